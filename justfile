# The verbs of daily work; the hooks, CI and the README use the same ones: uv run just VERB

# no advice about what comes after MkDocs at each build
export NO_MKDOCS_2_WARNING := "1"

set windows-shell := ["powershell.exe", "-NoLogo", "-Command"]

# list the verbs
default:
    @just --list --unsorted

# everything that reads the code without running it
lint: style types floors pins automation

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
    uv run mypy --num-workers auto

# imports run downward only
floors:
    uv run lint-imports

# direct dependencies are exact, and the pinned tree agrees with them
pins:
    uv run python tools/pin_tree.py --check

# workflows (actionlint, zizmor) and Dockerfiles (hadolint)
[unix]
automation:
    uv run actionlint
    uv run zizmor --offline --quiet --persona auditor .github
    uv run hadolint docker/Dockerfile docker/triton.Dockerfile docker/mlflow.Dockerfile

# workflows: actionlint and zizmor; hadolint has no wheel for Windows
[windows]
automation:
    uv run actionlint
    uv run zizmor --offline --quiet --persona auditor .github

# all tests, on all cores; fails under 95% branch coverage
test *arguments:
    uv run slipcover --json --out .slipcover.json -m pytest -n auto --dist worksteal {{ arguments }}
    uv run slipcover --fail-under 95 --out .slipcover.json --merge .slipcover.json

# some tests, without coverage: just check tests/data -k split
check *arguments:
    uv run pytest {{ arguments }}

# the site, built strictly into build/site, and the commands of README and docs, run
docs:
    uv run mkdocs build --strict
    uv run pytest tests/docs

# the web page, built into the package; needs Node 20.19 or newer
page:
    npm --prefix web ci
    npm --prefix web run build

# tests of the page's own logic
page-test:
    npm --prefix web test

# the page as people see it, drawn by its tests
screenshots $CASSAVA_SCREENSHOTS="docs/screenshots":
    uv run pytest tests/web

# the site as it is being written, at http://127.0.0.1:8090
docs-serve:
    uv run mkdocs serve --dev-addr 127.0.0.1:8090

# docs/configuration.md from the schema, the YAML files and their comments
config-reference:
    uv run python tools/config_reference.py

# the wheel, built and run in an environment without extras
wheel:
    uv run python tools/check_wheel.py

# what a release publishes: the wheel with the page, and the sources, in dist/
dist:
    just page
    uv build --out-dir dist

# an image of docker/Dockerfile: just image api | bot | trainer
image target:
    docker build --file docker/Dockerfile --target {{ target }} --tag cassava-{{ target }} .

# photos, held-out photos and the current model, as DVC knows them
data:
    uv run dvc pull --allow-missing

# prepare, split, train, evaluate, export: what of dvc.yaml has changed
pipeline:
    uv run dvc repro

# a model on held-out photos, with a report: just measured new.ckpt data/held-out
measured model photos *overrides:
    uv run cassava evaluate infer.checkpoint_path={{ model }} evaluate.csv_path={{ photos }}/train.csv evaluate.images_dir={{ photos }}/train_images evaluate.output_dir=outputs/gate/new evaluate.report=true {{ overrides }}

# a new model beside the current one: just rivals new.ckpt current.ckpt data/held-out
rivals new current photos: && (measured new photos "evaluate.compare=[outputs/gate/current/predictions.csv]")
    uv run cassava evaluate infer.checkpoint_path={{ current }} evaluate.csv_path={{ photos }}/train.csv evaluate.images_dir={{ photos }}/train_images evaluate.output_dir=outputs/gate/current

# may the new model take the current one's place? just gate outputs/gate/new/report.json --current outputs/gate/current/metrics.json
gate *arguments:
    uv run python tools/model_gate.py {{ arguments }}

# a finished run to MLflow, its model registered there; MLFLOW_TRACKING_URI names the server
register run:
    uv run cassava track track.run_dir={{ run }}

# a finished run to S3: just publish outputs/runs/version_0 s3://bucket/runs
publish run prefix:
    uv run cassava publish publish.run_dir={{ run }} publish.s3_prefix={{ prefix }}

# a published model becomes artifacts/best.ckpt, in DVC's care and on its remote
adopt uri:
    uv run cassava download-model download_model.s3_uri={{ uri }} download_model.overwrite=true download_model.push=true download_model.remote=yandex_s3

# a new version beside the one it is to replace: promote or roll back? just canary http://… --stable http://…
canary *arguments:
    uv run python tools/canary.py {{ arguments }}

# an image or a model into a Kubernetes cluster, taken back by itself if it is bad
rollout *arguments:
    uv run python tools/rollout.py {{ arguments }}

# the next version by the commits: pyproject.toml, CHANGELOG.md, commit and tag, not pushed
release *arguments:
    uv run python tools/release.py {{ arguments }}

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

# photos a second of `cassava score`, its memory by the number of files, against the predictor alone
bench-score *arguments:
    uv run python benchmarks/bench_score.py {{ arguments }}

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
    uv run git-cliff --output CHANGELOG.md {{ arguments }}

# the hooks of .pre-commit-config.yaml, for this clone
hooks:
    uv run pre-commit install
