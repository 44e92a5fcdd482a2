# The verbs of daily work; the hooks, CI and the README use the same ones: uv run just VERB

set windows-shell := ["powershell.exe", "-NoLogo", "-Command"]

# list the verbs
default:
    @just --list --unsorted

# everything that reads the code without running it
lint: style types floors pins

# rewrite what can be mended by machine
fix:
    uv run ruff check --fix
    uv run ruff format

# ruff: rules and format
style:
    uv run ruff check
    uv run ruff format --check

# mypy, strict
types:
    uv run mypy

# imports run downward only
floors:
    uv run lint-imports

# direct dependencies are exact, and the pinned tree agrees with them
pins:
    uv run python tools/pin_tree.py --check

# all tests, on all cores; fails under 95% branch coverage
test *arguments:
    uv run pytest -n auto --dist worksteal --cov {{ arguments }}

# some tests, without coverage: just check tests/data -k split
check *arguments:
    uv run pytest {{ arguments }}

# the README's commands, run
docs:
    uv run pytest tests/docs

# the wheel, built and run in an environment without extras
wheel:
    uv run python tools/check_wheel.py

# train on drawn leaves, diagnose one
demo *overrides:
    uv run cassava demo {{ overrides }}

# images a second with and without the cache of decoded photos
bench *arguments:
    uv run python benchmarks/bench_decode_cache.py {{ arguments }}

# images a second of training, against the bare step and a plain loop
bench-train *arguments:
    uv run python benchmarks/bench_train.py {{ arguments }}

# what an audit finds of labels that were flipped on purpose
bench-audit *arguments:
    uv run python benchmarks/bench_audit.py {{ arguments }}

# images a second of each engine, and one photo from bytes to verdict
bench-infer *arguments:
    uv run python benchmarks/bench_infer.py {{ arguments }}

# largest difference between PyTorch and ONNX Runtime by network and precision
check-exports *arguments:
    uv run python benchmarks/check_exports.py {{ arguments }}

# one device against several: just bench-scale --devices 1,2
bench-scale *arguments:
    uv run python benchmarks/bench_scale.py {{ arguments }}

# what each choice of a training recipe is worth, over several seeds
bench-recipes *arguments:
    uv run python benchmarks/compare_recipes.py {{ arguments }}

# requests a second of the service, against the predictor alone, LitServe and plain FastAPI; --soak 600
bench-serve *arguments:
    uv run python benchmarks/bench_serve.py {{ arguments }}

# photos a second of a real tritonserver against this process, and failures under load
bench-triton *arguments:
    uv run python benchmarks/bench_triton.py {{ arguments }}

# serve what export-triton wrote, by the tritonserver of a wheel: just triton outputs/triton
triton *arguments:
    uv run python tools/triton_server.py {{ arguments }}

# the package's model from a checkpoint, measured; writes assets/, docs/results/ and the model card
ship-model *arguments:
    uv run python tools/ship_model.py {{ arguments }}

# write the resolved tree into pyproject.toml; --upgrade takes newer versions (uvx --from rust-just just pin)
pin *arguments:
    uv run --no-project python tools/pin_tree.py {{ arguments }}

# CHANGELOG.md from the commits
changelog *arguments:
    uvx git-cliff@2.14.2 --output CHANGELOG.md {{ arguments }}

# the hooks of .pre-commit-config.yaml, for this clone
hooks:
    uv run pre-commit install
