"""Builds the wheel and runs it in an empty environment without extras.

What must hold there: the doors answer, the YAML files, the web page and the model came along, a photo is diagnosed by
that model and by a service with another, a command that needs an extra says which one in one line and exit code 2,
and all of it takes less than `MAX_MB` of disk.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parents[1]
MAX_MB = 600
HEAVY = ("torch", "lightning", "timm", "mlflow", "boto3", "cv2", "sklearn", "pandas")


@dataclass(frozen=True)
class Expectation:
    """A command line, and what it must answer: exit code, a text on stdout (code 0) or in the line on stderr."""

    words: tuple[str, ...]
    exit_code: int
    text: str


EXPECTATIONS = (
    Expectation(("cassava", "--help"), 0, "usage: cassava COMMAND"),
    Expectation(("cassava-leaf-disease", "infer", "--help"), 0, "infer.image_path"),
    Expectation(("cassava-fire", "--help"), 0, "usage: cassava-fire COMMAND"),
    Expectation(("cassava", "train", "--cfg", "job"), 0, "backbone: mobilenetv2_100"),
    Expectation(("cassava", "infer", "infer.image_path=x.jpg"), 2, "x.jpg: no such file"),
    Expectation(("cassava", "score", "score.input=nowhere"), 2, "no such folder or table"),
    Expectation(("cassava", "benchmark", "benchmark.photos=1", "benchmark.rounds=1"), 0, '"onnxruntime/cpu"'),
    Expectation(("cassava", "train", "train.epochs=abc"), 2, "train.epochs=abc"),
    Expectation(("cassava", "train", "data.synthetic.enabled=true"), 2, "cassava-leaf-disease[train]"),
)


def main() -> int:
    """Returns 1 where an answer is not the expected one."""
    with tempfile.TemporaryDirectory(prefix="cassava-wheel-") as folder:
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # all of it is asked of processes that work on one core each
            model = pool.submit(export_small_model, Path(folder))
            scripts = install_wheel(Path(folder))
            leaf = draw_leaf_photo(scripts.parent)
            asked = [pool.submit(find_mistakes, expected, scripts) for expected in EXPECTATIONS]
            asked.append(pool.submit(ask_packaged_model, scripts))
            asked.append(pool.submit(ask_service, scripts, model.result(), leaf))
            mistakes = [mistake for answer in asked for mistake in answer.result()]
        megabytes = size_mb(scripts.parent)
        found = modules_of(scripts, HEAVY)
    mistakes += [f"the base install brings {name}" for name in found]
    if megabytes > MAX_MB:
        mistakes.append(f"the base install takes {megabytes:.0f} MB; expected at most {MAX_MB}")
    sys.stderr.writelines(f"{mistake}\n" for mistake in mistakes)
    if not mistakes:
        tried = f"{len(EXPECTATIONS)} command lines, two photos, {megabytes:.0f} MB"
        print(f"the wheel answers as expected without extras ({tried})")
    return 1 if mistakes else 0


def install_wheel(folder: Path) -> Path:
    """Builds the wheel, installs it with the pinned tree into an environment of its own; its scripts' folder."""
    environment = folder / "environment"
    uv("build", "--quiet", "--wheel", "--out-dir", str(folder))
    (wheel,) = folder.glob("*.whl")
    uv("venv", "--quiet", "--python", sys.executable, str(environment))
    uv("pip", "install", "--quiet", "--python", str(environment), str(wheel))
    return environment / ("Scripts" if os.name == "nt" else "bin")


def find_mistakes(expected: Expectation, scripts: Path) -> list[str]:
    """What is wrong with the answer to one command line."""
    answer = run_apart(scripts, expected.words)
    said = answer.stdout if expected.exit_code == 0 else answer.stderr
    wrong = []
    if answer.returncode != expected.exit_code:
        wrong.append(f"exit code {answer.returncode}, expected {expected.exit_code}")
    if expected.text not in said:
        wrong.append(f"expected {expected.text!r}")
    if expected.exit_code and (answer.stdout or len(answer.stderr.splitlines()) != 1):
        wrong.append("expected one line on stderr and nothing on stdout")
    said_in_full = f"{' '.join(expected.words)}: {', '.join(wrong)}; got:\n{answer.stdout}{answer.stderr}"
    return [said_in_full] if wrong else []


def ask_packaged_model(scripts: Path) -> list[str]:
    """What is wrong with the first command of the README."""
    words = ("cassava", "infer", "infer.image_path=leaf.jpg")
    answer = run_apart(scripts, words)
    if answer.returncode == 0 and json.loads(answer.stdout)["model"]["source"] == "package":
        return []
    return [f"{' '.join(words)}: no answer by the packaged model; got:\n{answer.stdout}{answer.stderr}"]


def size_mb(folder: Path) -> float:
    """Megabytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) / 1e6


def ask_service(scripts: Path, model: Path, leaf: bytes) -> list[str]:
    """What is wrong with the service's answer about a drawn leaf, and with its page."""
    words = [str(scripts / "cassava"), "serve", "serve.port=0", f"infer.checkpoint_path={model}"]
    service = subprocess.Popen(
        words, cwd=scripts.parent, env=surroundings(), text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    said: list[str] = []
    url = None
    for line in service.stderr or ():
        said.append(line)
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            url = found[0]
            break
    try:
        if url is None:
            return [f"cassava serve does not start; got:\n{''.join(said)}"]
        page = urlopen(url, timeout=60).read()  # noqa: S310  our own address
        body = (
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="leaf.jpg"\r\n\r\n' + leaf + b"\r\n--b--\r\n"
        )
        form = {"Content-Type": "multipart/form-data; boundary=b"}
        asked = Request(f"{url}/predict", body, form)  # noqa: S310
        answer = json.load(urlopen(asked, timeout=60))  # noqa: S310
    finally:
        service.terminate()
        service.communicate()
    mistakes = [] if page == expected_page() else [f"cassava serve: another page at / than expected: {page[:80]!r} …"]
    return mistakes if "verdict" in answer else [*mistakes, f"cassava serve: no diagnosis of a leaf; got {answer}"]


def expected_page() -> bytes:
    """The page that `just page` builds where it has been built, else the plain one."""
    package = ROOT / "src" / "cassava_leaf_disease"
    built = package / "web" / "index.html"
    return (built if built.is_file() else package / "serving" / "page" / "index.html").read_bytes()


def export_small_model(folder: Path) -> Path:
    """The smallest network of timm with drawn weights as ONNX, made in the environment that runs this program."""
    checkpoint = folder / "small.ckpt"
    script = f"from serve_stand_in import write; write({str(checkpoint)!r}, 'test_resnet', 64)"
    benchmarks = {**os.environ, "PYTHONPATH": str(ROOT / "benchmarks")}
    subprocess.run([sys.executable, "-c", script], env=benchmarks, check=True)
    words = ("export", f"infer.checkpoint_path={checkpoint}", f"paths.data_dir={folder}", "export.tolerance=0.1")
    subprocess.run([sys.executable, "-m", "cassava_leaf_disease", *words], check=True, capture_output=True)
    return checkpoint.with_suffix(".onnx")


def draw_leaf_photo(folder: Path) -> bytes:
    """A drawn leaf as a JPEG file's bytes."""
    from PIL import Image

    from cassava_leaf_disease.data.synthetic import draw_leaf

    Image.fromarray(draw_leaf(1, 3, 300)).save(folder / "leaf.jpg")
    return (folder / "leaf.jpg").read_bytes()


def modules_of(scripts: Path, names: Sequence[str]) -> list[str]:
    """Those libraries that the environment can import."""
    question = f"import importlib.util as i, json; print(json.dumps([n for n in {names!r} if i.find_spec(n)]))"
    found: list[str] = json.loads(run_apart(scripts, ("python", "-c", question)).stdout)
    return found


def run_apart(scripts: Path, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs a script of the environment in its parent folder, away from this repository."""
    command = [str(scripts / words[0]), *words[1:]]
    return subprocess.run(command, cwd=scripts.parent, env=surroundings(), check=False, capture_output=True, text=True)


def surroundings() -> dict[str, str]:
    """The environment variables without those that lead back to this repository."""
    hidden = {"PYTHONPATH", "CASSAVA_ROOT", "VIRTUAL_ENV"}
    return {name: value for name, value in os.environ.items() if name not in hidden}


def uv(*words: str) -> None:
    """Runs uv in the repository, whose pins hold for what it installs."""
    subprocess.run(["uv", *words], cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main())
