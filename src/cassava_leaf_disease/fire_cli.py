"""The Fire door: `cassava-fire COMMAND --flag value … key=value …`.

Flags become Hydra overrides, and the Hydra door runs them. Plain Fire reads values as Python literals
(`1e-3`, `0001`), lets a bare boolean eat the next word, and answers a mistake with a page of usage: so the
words are checked and put into one unambiguous form before Fire hands them to the methods of `Door`.
"""

import difflib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cassava_leaf_disease import __version__, cli
from cassava_leaf_disease.commands import find_command, guarded, joined, write_stdout
from cassava_leaf_disease.errors import ConfigError

# Fire keeps `-`, `--` and `--word` for itself; marked so, a word is plain. No process argument holds NUL.
_PLAIN: Final = "\0"
_TRUTH: Final = {"true": "true", "false": "false"}


@dataclass(frozen=True)
class Flag:
    """A named flag and the override that it stands for; a switch is `--name` or `--no-name`."""

    name: str
    key: str
    summary: str
    switch: bool = False

    @property
    def spelled(self) -> str:
        """How help and errors write it."""
        return f"--{self.name}/--no-{self.name}" if self.switch else f"--{self.name}"


_TRAINING: Final = (
    Flag("epochs", "train.epochs", "passes over the training photos"),
    Flag("batch_size", "train.batch_size", "photos in one step"),
    Flag("lr", "train.lr", "peak learning rate"),
    Flag("precision", "train.precision", "auto, 32, 16-mixed or bf16-mixed"),
    Flag("num_workers", "train.num_workers", "auto, or a number of loader processes"),
    Flag("synthetic", "data.synthetic.enabled", "drawn leaves instead of photos", switch=True),
    Flag("mlflow", "logger.enabled", "also track the run in MLflow", switch=True),
)
_CHECKPOINT: Final = (
    Flag("ckpt", "infer.checkpoint_path", "a checkpoint, an ensemble, or '[a.ckpt,b.ckpt]'"),
    Flag("ckpt_s3", "infer.checkpoint_s3_uri", "s3://bucket/key of a checkpoint"),
)
_TTA: Final = Flag("tta", "infer.tta", "views of each photo, such as flips")
FLAGS: Final[Mapping[str, tuple[Flag, ...]]] = {
    "train": _TRAINING,
    "crossval": _TRAINING,
    "tune": (
        *_TRAINING,
        Flag("trials", "tune.trials", "how many settings to try, those of earlier starts counted"),
        Flag("study", "tune.study", "the name of the search"),
        Flag("storage", "tune.storage", "the database's address"),
    ),
    "evaluate": (
        *_CHECKPOINT,
        _TTA,
        Flag("part", "evaluate.part", "train, val or test"),
        Flag("csv", "evaluate.csv_path", "a table like train.csv"),
        Flag("images", "evaluate.images_dir", "the folder of its photos"),
        Flag("report", "evaluate.report", "also a page for people", switch=True),
        Flag("compare", "evaluate.compare", "models or predictions.csv: '[b.ckpt]'"),
        Flag("slices", "evaluate.slices_csv", "a table of the photos to group by"),
    ),
    "plants": (
        *_CHECKPOINT,
        _TTA,
        Flag("part", "evaluate.part", "train, val or test"),
        Flag("csv", "evaluate.csv_path", "a table like train.csv"),
        Flag("images", "evaluate.images_dir", "the folder of its photos"),
    ),
    "calibrate": _CHECKPOINT,
    "fit_gate": (
        *_CHECKPOINT,
        Flag("score", "gate.score", "mahalanobis, knn or energy"),
        Flag("max_refused", "gate.max_refused", "fraction of real leaves refused as not_cassava"),
        Flag("foreign", "gate.foreign_dir", "a folder of photos without cassava, to measure on"),
    ),
    "ensemble": (
        Flag("members", "ensemble.members", "the checkpoints: '[a.ckpt,b.ckpt]'"),
        Flag("output", "ensemble.output_path", "the file to write"),
        Flag("combine", "ensemble.combine", "probabilities or logits"),
        Flag("weights", "ensemble.weights", "equal or val_f1_macro"),
    ),
    "pseudo_label": (
        Flag("images", "pseudo_label.images_dir", "the folder of unlabelled photos"),
        *_CHECKPOINT,
        _TTA,
        Flag("min_confidence", "pseudo_label.min_confidence", "keep answers from this probability up"),
        Flag("max_per_class", "pseudo_label.max_per_class", "at most so many photos of a class"),
        Flag("members_agree", "pseudo_label.members_agree", "all members must name one class", switch=True),
    ),
    "infer": (
        Flag("image", "infer.image_path", "a photo, or several: '[a.jpg,b.jpg]'"),
        *_CHECKPOINT,
        _TTA,
        Flag("device", "infer.device", "auto, cpu or cuda"),
        Flag("top_k", "infer.top_k", "how many classes to rank"),
        Flag("plant", "infer.plant", "the photos show one plant: one answer", switch=True),
        Flag("explain", "infer.explain", "write a heatmap of each photo", switch=True),
    ),
    "demo": (),
    "download_data": (
        Flag("url", "download_data.public_url", "a link, an address or an archive"),
        Flag("force", "download_data.force", "replace what is there", switch=True),
    ),
    "check_data": (Flag("data_dir", "paths.data_dir", "the folder of the data set"),),
    "audit": (
        Flag("oof", "audit.oof_csv", "a cross-validation's out-of-fold table"),
        Flag("data_dir", "paths.data_dir", "the folder of the data set"),
        Flag("max_shown", "audit.max_shown", "photos in the gallery"),
        Flag("copies", "audit.near_duplicates", "look for pictures under two labels", switch=True),
    ),
    "feedback_export": (
        Flag("store", "feedback.url", "the store's database"),
        Flag("photos", "feedback.photos", "the folder of its photos, or s3://bucket/prefix"),
        Flag("reviewed", "feedback.reviewed_csv", "a table with an expert's labels"),
        Flag("output", "feedback.output_dir", "the folder to write"),
    ),
    "drift": (
        *_CHECKPOINT,
        Flag("statistics", "drift.statistics_url", "the database of counts"),
        Flag("days", "drift.days", "days of the period"),
        Flag("reference", "drift.reference", "what drift-reference wrote"),
    ),
    "drift_reference": (
        *_CHECKPOINT,
        Flag("part", "drift.part", "train, val or test"),
        Flag("output", "drift.reference", "the file to write"),
    ),
    "prepare": (
        Flag("data_dir", "paths.data_dir", "the folder of the data set"),
        Flag("synthetic", "data.synthetic.enabled", "draw leaves there first", switch=True),
    ),
    "split": (
        Flag("data_dir", "paths.data_dir", "the folder of the data set"),
        Flag("output", "data.split.manifest", "the split file to write"),
    ),
    "track": (
        Flag("run_dir", "track.run_dir", "the run's folder"),
        Flag("uri", "logger.tracking_uri", "the MLflow server"),
    ),
    "publish": (
        Flag("s3_prefix", "publish.s3_prefix", "s3://bucket/prefix"),
        Flag("run_dir", "publish.run_dir", "the run's folder"),
    ),
    "export": (
        *_CHECKPOINT,
        Flag("output", "export.output_path", "the file to write"),
        Flag("precision", "export.precision", "fp32, fp16, fp16_weights or int8"),
    ),
    "export_tensorrt": (
        *_CHECKPOINT,
        Flag("output", "export.tensorrt.output_dir", "the folder to write to"),
        Flag("max_batch", "export.tensorrt.max_batch", "the most photos at a time"),
    ),
    "export_triton": (
        *_CHECKPOINT,
        _TTA,
        Flag("output", "export.triton.output_dir", "the folder to write"),
        Flag("target", "export.triton.target", "cpu, gpu or multi_gpu"),
        Flag("backend", "export.triton.backend", "auto, python, onnxruntime or tensorrt"),
    ),
    "score": (
        Flag("input", "score.input", "a folder, a table of paths, or s3://bucket/prefix"),
        Flag("output", "score.output", "answers.parquet, answers.csv, or a folder"),
        *_CHECKPOINT,
        _TTA,
        Flag("device", "infer.device", "auto, cpu or cuda"),
        Flag("engine", "score.engine", "local or ray"),
        Flag("workers", "score.workers", "photos at a time, or auto"),
        Flag("batch_size", "score.batch_size", "photos that the network sees at once"),
        Flag("resume", "score.resume", "go on with what was killed", switch=True),
    ),
    "benchmark": (
        *_CHECKPOINT,
        _TTA,
        Flag("device", "infer.device", "auto, cpu or cuda"),
        Flag("images", "benchmark.images_dir", "a folder of photos to measure on"),
        Flag("batch_sizes", "benchmark.batch_sizes", "photos at once: '[1,8]'"),
        Flag("threads", "benchmark.threads", "of a network: auto, or a number"),
        Flag("compare", "benchmark.compare", "models to measure too: '[b.onnx]'"),
        Flag("clock", "benchmark.clock", "wall, or cpu on a busy machine"),
        Flag("seconds", "benchmark.seconds", "of measuring at most"),
    ),
    "serve": (
        *_CHECKPOINT,
        Flag("device", "infer.device", "auto, cpu or cuda"),
        Flag("host", "serve.host", "the address to listen at"),
        Flag("port", "serve.port", "its port; 0: any that is free"),
        Flag("workers", "serve.workers", "photos at a time, or auto"),
        Flag("engine", "infer.engine", "local or triton"),
        Flag("triton_url", "infer.triton_url", "grpc://host:port of a Triton server"),
    ),
    "bot": (
        *_CHECKPOINT,
        Flag("device", "infer.device", "auto, cpu or cuda"),
        Flag("api_url", "bot.api_url", "a service that answers instead of a model here"),
        Flag("webhook_url", "bot.webhook_url", "the https address that Telegram calls"),
        Flag("host", "bot.host", "where the webhook listens"),
        Flag("port", "bot.port", "its port; 0: any that is free"),
        Flag("state", "bot.state_path", "the SQLite file of what is to be answered"),
    ),
    "download_model": (
        Flag("s3_uri", "download_model.s3_uri", "s3://bucket/key of the model"),
        Flag("dst_dir", "download_model.dst_dir", "the folder to put it in"),
        Flag("overwrite", "download_model.overwrite", "replace a model that is there", switch=True),
        Flag("push", "download_model.push", "push it to the DVC remote afterwards", switch=True),
        Flag("remote", "download_model.remote", "the DVC remote to push to"),
    ),
}


class Door:
    """What Fire sees: each method returns the words that the Hydra door is to run."""

    def train(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava train`."""
        return _words("train", overrides, flags)

    def crossval(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava crossval`."""
        return _words("crossval", overrides, flags)

    def tune(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava tune`."""
        return _words("tune", overrides, flags)

    def evaluate(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava evaluate`."""
        return _words("evaluate", overrides, flags)

    def plants(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava plants`."""
        return _words("plants", overrides, flags)

    def calibrate(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava calibrate`."""
        return _words("calibrate", overrides, flags)

    def fit_gate(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava fit-gate`."""
        return _words("fit_gate", overrides, flags)

    def ensemble(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava ensemble`."""
        return _words("ensemble", overrides, flags)

    def pseudo_label(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava pseudo-label`."""
        return _words("pseudo_label", overrides, flags)

    def infer(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava infer`."""
        return _words("infer", overrides, flags)

    def demo(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava demo`."""
        return _words("demo", overrides, flags)

    def download_data(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava download-data`."""
        return _words("download_data", overrides, flags)

    def check_data(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava check-data`."""
        return _words("check_data", overrides, flags)

    def audit(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava audit`."""
        return _words("audit", overrides, flags)

    def feedback_export(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava feedback-export`."""
        return _words("feedback_export", overrides, flags)

    def drift(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava drift`."""
        return _words("drift", overrides, flags)

    def drift_reference(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava drift-reference`."""
        return _words("drift_reference", overrides, flags)

    def prepare(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava prepare`."""
        return _words("prepare", overrides, flags)

    def split(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava split`."""
        return _words("split", overrides, flags)

    def track(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava track`."""
        return _words("track", overrides, flags)

    def publish(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava publish`."""
        return _words("publish", overrides, flags)

    def export(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava export`."""
        return _words("export", overrides, flags)

    def export_tensorrt(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava export-tensorrt`."""
        return _words("export_tensorrt", overrides, flags)

    def export_triton(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava export-triton`."""
        return _words("export_triton", overrides, flags)

    def score(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava score`."""
        return _words("score", overrides, flags)

    def benchmark(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava benchmark`."""
        return _words("benchmark", overrides, flags)

    def serve(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava serve`."""
        return _words("serve", overrides, flags)

    def bot(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava bot`."""
        return _words("bot", overrides, flags)

    def download_model(self, *overrides: str, **flags: str) -> list[str]:
        """Words of `cassava download-model`."""
        return _words("download_model", overrides, flags)

    def raw(self, *words: str) -> list[str]:
        """The words as they are."""
        return [_plain(word) for word in words]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line (default: the process's own) and returns its exit code."""
    words = joined(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _dispatch(words))


def to_hydra_words(words: Sequence[str]) -> list[str]:
    """The command line of the Hydra door that a Fire command line stands for.

    Raises:
        ConfigError: An unknown command or flag, or a flag without its value.
    """
    import fire
    from fire.decorators import SetParseFn

    method = words[0].replace("-", "_")
    arguments = [f"{_PLAIN}{word}" for word in words[1:]] if method == "raw" else _normalised(method, words[1:])
    door = Door()
    SetParseFn(str)(getattr(Door, method))  # values stay the text that was typed
    translated: list[str] = fire.Fire(door, [method, *arguments], name="cassava-fire", serialize=lambda _: None)
    return translated


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        return write_stdout(_overview())
    if words[0] == "--version":
        return write_stdout(f"cassava-fire {__version__}\n")
    if words[0].startswith("-") or "=" in words[0]:
        raise ConfigError(
            f"{words[0]}: the command comes first: cassava-fire COMMAND --flag value; commands: {_names()}"
        )
    method = words[0].replace("-", "_")
    if method != "raw" and method not in FLAGS:
        find_command(words[0])
    asks_help = any(word in ("-h", "--help") for word in (words[1:2] if method == "raw" else words[1:]))
    if asks_help or words == ["raw"]:
        return write_stdout(_command_help(method))
    return cli.main(to_hydra_words(words))


def _normalised(method: str, words: Sequence[str]) -> list[str]:
    """Each flag as `--name=value`, then every other word marked as plain."""
    flags: list[str] = []
    free: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not re.match(r"--?[A-Za-z]", word):
            free.append(f"{_PLAIN}{word}")
            continue
        typed, equals, value = word.partition("=")
        flag, negated = _find_flag(method, typed)
        if flag.switch:
            if not equals and rest and rest[0].lower() in _TRUTH:  # `--force true`: no override looks like that
                equals, value = "=", rest.pop(0)
            value = _switch_value(typed, value if equals else "true", negated=negated)
        elif not equals:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"{typed}: its value is missing; type {typed} VALUE")
            value = rest.pop(0)
        if not value:
            raise ConfigError(f"{typed}: its value is empty; type {typed} VALUE")
        flags.append(f"--{flag.name}={value}")
    return [*flags, *free]


def _find_flag(method: str, typed: str) -> tuple[Flag, bool]:
    """The flag that a word names, and whether `no` stands before it."""
    known = {flag.name: (flag, False) for flag in FLAGS[method]}
    for flag in FLAGS[method]:
        if flag.switch:
            known |= {f"no_{flag.name}": (flag, True), f"no{flag.name}": (flag, True)}
    name = typed.lstrip("-").replace("-", "_")
    if typed.startswith("--") and name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        spelled = close[0].replace("no_", "no-") if known[close[0]][1] else close[0]
        raise ConfigError(f"{typed}: no such flag of {method}; did you mean --{spelled}?")
    flags = ", ".join(flag.spelled for flag in FLAGS[method]) or "none"
    raise ConfigError(
        f"{typed}: no such flag of {method}; flags: {flags}; for Hydra's: cassava-fire raw {method} {typed}"
    )


def _switch_value(typed: str, value: str, *, negated: bool) -> str:
    truth = _TRUTH.get(value.lower())
    if truth is None:
        raise ConfigError(f"{typed}={value}: expected {typed} alone, or {typed}=true or {typed}=false")
    return str((truth == "true") != negated).lower()


def _words(method: str, overrides: Iterable[str], flags: Mapping[str, str]) -> list[str]:
    """The Hydra words of a method: its flags, then the free overrides, which win where both name a key."""
    emitted = [f"{flag.key}={_one_value(flags[flag.name])}" for flag in FLAGS[method] if flag.name in flags]
    return [method, *emitted, *map(_plain, overrides)]


def _one_value(value: str) -> str:
    """A flag has one value: a comma belongs to it, unless brackets or quotes say otherwise."""
    if "," not in value or value.startswith(("[", "'", '"')):
        return value
    from cassava_leaf_disease.config.load import quoted

    return quoted(value)


def _plain(word: str) -> str:
    return word.removeprefix(_PLAIN)


def _names() -> str:
    return ", ".join([*FLAGS, "raw"])


def _overview() -> str:
    commands = "\n".join(f"  {name:<16}{_summary(name)}" for name in [*FLAGS, "raw"])
    return f"""CassavaVision {__version__}: photos of cassava leaves in, a trustworthy diagnosis out.

usage: cassava-fire COMMAND [--flag value ...] [key=value ...]

commands:
{commands}

  cassava-fire COMMAND --help   the flags of a command
  cassava COMMAND --help        the keys that can follow as key=value

The result is one JSON document on stdout; logs and progress go to stderr.
"""


def _summary(method: str) -> str:
    if method == "raw":
        return "pass words to `cassava` as they are: raw COMMAND key=value -m"
    return find_command(method)[1].summary


def _command_help(method: str) -> str:
    if method == "raw":
        usage = "usage: cassava-fire raw COMMAND [key=value ...] [-m] [--cfg job]"
        return f"cassava-fire raw: {_summary(method)}\n\n{usage}\n"
    flags = "\n".join(f"  {flag.spelled:<27}{flag.summary:<40}{flag.key}" for flag in FLAGS[method])
    return f"""cassava-fire {method}: {_summary(method)}

usage: cassava-fire {method} [--flag value ...] [key=value ...]

flags, and the keys they stand for:
{flags or "  none"}

A switch may be followed by anything; `-` and `_` are spelled alike. Other keys follow as key=value.
"""


if __name__ == "__main__":
    sys.exit(main())
