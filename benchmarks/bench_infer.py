"""Speed of every engine that this machine has, by model and batch, and of one photo from its bytes to the verdict.

    python benchmarks/bench_infer.py [--models resnet18:224,best.ckpt,…] [--engines onnx-fp32,…] [--batches 1,8] …

First table: the bare engine on a batch that lies ready (on a GPU in its memory, but for ONNX Runtime), each call timed
to its end. Second table: `Predictor.predict_bytes` of one photo against the sum of decoding and resizing with Pillow
alone and the bare session on the same photo; the three are measured in turn, and the smallest time of each photo
counts. MODEL is a timm backbone with random weights and an input size, or a checkpoint. Random weights are as fast as
trained ones; their int8 graph has all convolutions in integers.

`--clock cpu` counts the processor time of this process instead of the time that passes: on a machine that others use
too it is the figure that repeats, for one thread.

Engines on a CPU: onnx-fp32, onnx-fp16_weights, onnx-int8, openvino-fp32, openvino-int8 (where it is installed), torch,
torch-compile. On a CUDA GPU: torch-fp16 (channels-last), torch-fp16-compile, torch-fp16-graph (CUDA graph),
torch-fp16-aot (AOTInductor), onnx-cuda-fp16 (where ONNX Runtime has CUDA).
"""

import argparse
import gc
import importlib.util
import io
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from PIL import Image
from torch import nn

from cassava_leaf_disease.benchmark.machine import describe_machine
from cassava_leaf_disease.benchmark.photos import draw_photos
from cassava_leaf_disease.benchmark.timing import CLOCKS
from cassava_leaf_disease.data.cpus import available_cpus
from cassava_leaf_disease.errors import first_line
from cassava_leaf_disease.export.half import to_half
from cassava_leaf_disease.export.integer.graph import Statistics, convolutions, quantize, tensors_to_observe
from cassava_leaf_disease.export.integer.ranges import best_range, observe
from cassava_leaf_disease.export.light import to_half_weights
from cassava_leaf_disease.export.network import showing
from cassava_leaf_disease.export.onnx import to_onnx
from cassava_leaf_disease.imaging.decode import decode_image
from cassava_leaf_disease.imaging.preprocess import Preprocessing, normalize, preprocess, resized_shape, to_network_size
from cassava_leaf_disease.inference.discover import FoundModel
from cassava_leaf_disease.inference.engines.onnx_engine import INPUT_NAME, OnnxEngine
from cassava_leaf_disease.inference.engines.torch_engine import restore_network
from cassava_leaf_disease.inference.predictor import Predictor
from cassava_leaf_disease.modeling.backbone import rebuild_network
from cassava_leaf_disease.modeling.checkpoint import load_checkpoint
from cassava_leaf_disease.modeling.metadata import ModelMetadata
from untrained import describe_untrained

REPOSITORY = Path(__file__).resolve().parents[1]
CPU_ENGINES = "onnx-fp32,onnx-fp16_weights,onnx-int8,openvino-fp32,openvino-int8,torch,torch-compile"
GPU_ENGINES = "torch-fp16,torch-fp16-graph,torch-fp16-compile,torch-fp16-aot,onnx-cuda-fp16"
WARM_UP = 3

Batch = npt.NDArray[np.float32]
Call = Callable[[], object]


@dataclass(frozen=True)
class Subject:
    """A model to measure: its network, what it says of itself, and its ONNX graph."""

    name: str
    network: nn.Module
    metadata: ModelMetadata
    graph: onnx.ModelProto

    @property
    def spec(self) -> Preprocessing:
        """What its network sees of a photo."""
        return self.metadata.preprocessing


class MissingEngineError(Exception):
    """An engine that this machine does not have."""


def main() -> None:
    """Measures and prints two tables in Markdown."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    print(f"`{shlex.join(['python', *sys.argv])}`\n", flush=True)
    photos, what = some_photos(options.data, options.photos)
    print(f"{what}; {hardware(options)}.\n", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        subjects = [make_subject(model) for model in options.models.split(",")]
        print(f"| model | engine | batch | p50, ms | p99, ms | images/s | time / {options.reference} |")
        print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
        for subject in subjects:
            engine_rows(subject, photos, options, Path(scratch))
        print("\n| model | engine | decode and resize, ms | engine, ms | bytes to verdict, ms | ratio to the sum |")
        print("| --- | --- | --- | --- | --- | --- |", flush=True)
        for subject in subjects:
            for precision in options.verdicts.split(","):
                print(verdict_row(subject, precision, photos, options, Path(scratch)), flush=True)


def parse_options() -> argparse.Namespace:
    """What was typed, with defaults for this machine."""
    has_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default="mobilenetv2_100:224,resnet18:224,efficientnet_b0:224")
    parser.add_argument("--engines", default=GPU_ENGINES if has_gpu else CPU_ENGINES)
    parser.add_argument("--reference", default="torch-fp16" if has_gpu else "onnx-fp32")
    parser.add_argument("--batches", default="1,64" if has_gpu else "1,8")
    parser.add_argument("--verdicts", default="fp32,int8", help="precisions of the second table")
    parser.add_argument("--seconds", type=float, default=1.0, help="of measuring for each row of the first table")
    parser.add_argument("--rounds", type=int, default=8, help="for each photo of the second table")
    parser.add_argument("--deadline", type=float, default=170.0, help="seconds after which no engine is started")
    parser.add_argument("--threads", type=int, default=available_cpus())
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument("--photos", type=int, default=12)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    options.started = time.perf_counter()
    options.now = CLOCKS[options.clock]
    return options


def hardware(options: argparse.Namespace) -> str:
    """The machine and the versions, in words."""
    machine = describe_machine([], None)
    words = [f"{options.threads} threads of {machine.processor}", "VNNI" if machine.vnni else "no VNNI"]
    if torch.cuda.is_available():
        words.append(torch.cuda.get_device_name())
    words += [f"torch {torch.__version__}", f"ONNX Runtime {onnxruntime.__version__}", f"{options.clock} time"]
    return ", ".join(words)


def some_photos(named: Path | None, count: int) -> tuple[list[bytes], str]:
    """Files of photos, or of drawn leaves where there are none, and what they are."""
    shared = named or Path(os.environ.get("CASSAVA_TEST_DATA") or REPOSITORY.parent / "shared" / "data") / "cassava"
    paths = sorted((shared / "train_images").glob("*.jpg"))[:count]
    if paths:
        return [path.read_bytes() for path in paths], f"{len(paths)} photos"
    return [leaf.data for leaf in draw_photos(count, 384)], f"{count} drawn leaves of 512x384"


def make_subject(model: str) -> Subject:
    """A checkpoint, or BACKBONE:SIZE with random weights."""
    if model.endswith(".ckpt"):
        loaded = load_checkpoint(Path(model))
        network, metadata, gate = restore_network(loaded, Path(model)), loaded.metadata, loaded.gate_arrays
    else:
        backbone, size = model.split(":")
        network = rebuild_network(backbone, int(size), 5)
        metadata, gate = describe_untrained(backbone, Preprocessing(image_size_px=int(size))), None
    size_px = metadata.preprocessing.image_size_px
    name = f"{metadata.backbone} @ {size_px}"
    return Subject(name, showing(network, size_px).eval(), metadata, to_onnx(network, metadata, gate))


def engine_rows(subject: Subject, photos: Sequence[bytes], options: argparse.Namespace, scratch: Path) -> None:
    """Prints a line for each engine and batch."""
    ready = np.stack([preprocess(decode_image(photo), subject.spec) for photo in photos])
    medians: dict[tuple[str, int], float] = {}
    for engine in options.engines.split(","):
        for batch in map(int, options.batches.split(",")):
            images = np.resize(ready, (batch, *ready.shape[1:]))
            start = f"| {subject.name} | {engine} | {batch} |"
            if time.perf_counter() - options.started > options.deadline:
                print(f"{start} not started: {options.deadline:.0f} s are over |", flush=True)
                continue
            try:
                with calling(engine, subject, images, options, scratch) as call:
                    times = measure(call, options)
            except MissingEngineError as missing:
                print(f"{start} not here: {missing} |", flush=True)
                continue
            except Exception as error:  # noqa: BLE001  one engine that fails leaves the others
                print(f"{start} failed: {type(error).__name__}: {first_line(error)[:150]} |", flush=True)
                continue
            median = medians[engine, batch] = statistics.median(times)
            high = times[min(len(times) - 1, int(0.99 * len(times)))]
            against = medians.get((options.reference, batch))
            ratio = "" if against is None else f"{median / against:.2f}"
            print(f"{start} {1e3 * median:.2f} | {1e3 * high:.2f} | {batch / median:,.0f} | {ratio} |", flush=True)


def measure(call: Call, options: argparse.Namespace) -> list[float]:
    """The seconds of each call, sorted."""
    for _ in range(WARM_UP):
        call()
    times: list[float] = []
    end = time.perf_counter() + options.seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = options.now()
        call()
        times.append(options.now() - start)
    return sorted(times)


@contextmanager
def calling(engine: str, subject: Subject, images: Batch, options: argparse.Namespace, scratch: Path) -> Iterator[Call]:
    """What runs a batch through an engine, to its end; its memory is given back afterwards."""
    kind, _, how = engine.partition("-")
    if kind == "onnx":
        cuda = how.startswith("cuda-")
        yield onnx_call(in_precision(subject, how.removeprefix("cuda-"), images), images, options.threads, cuda=cuda)
    elif kind == "openvino":
        yield openvino_call(in_precision(subject, how, images), images, options.threads)
    elif how.startswith("fp16"):
        yield gpu_call(subject.network, images, how.removeprefix("fp16").removeprefix("-"), scratch)
    else:
        yield cpu_call(subject.network, images, compiled=how == "compile")
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def in_precision(subject: Subject, precision: str, images: Batch) -> onnx.ModelProto:
    """The graph in fp32, fp16, fp16_weights or int8 (all convolutions)."""
    if precision == "fp32":
        return subject.graph
    if precision in {"fp16", "fp16_weights"}:
        return to_half(subject.graph) if precision == "fp16" else to_half_weights(subject.graph)
    observed = observe(subject.graph, tensors_to_observe(subject.graph), [images[:4]], available_cpus())
    statistics_of = {name: Statistics(best_range(each), each.channel_means) for name, each in observed.items()}
    return quantize(subject.graph, statistics_of, {node.name for node in convolutions(subject.graph)})


def onnx_call(graph: onnx.ModelProto, images: Batch, threads: int, *, cuda: bool) -> Call:
    """A session of ONNX Runtime; on a GPU the copies to and from it count."""
    providers = ["CUDAExecutionProvider"] if cuda else ["CPUExecutionProvider"]
    if providers[0] not in onnxruntime.get_available_providers():
        raise MissingEngineError("ONNX Runtime without CUDA")
    session = onnxruntime.InferenceSession(graph.SerializeToString(), session_options(threads), providers=providers)
    return lambda: session.run(None, {INPUT_NAME: images})


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """As the project's engine has them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return options


def openvino_call(graph: onnx.ModelProto, images: Batch, threads: int) -> Call:
    """OpenVINO for latency, where it is installed; in float32, or processors that have it would take bfloat16."""
    if importlib.util.find_spec("openvino") is None:
        raise MissingEngineError("openvino is not installed")
    openvino: Any = importlib.import_module("openvino")
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(graph.SerializeToString()), "CPU", settings).create_infer_request()
    return lambda: request.infer({INPUT_NAME: images})


def cpu_call(network: nn.Module, images: Batch, *, compiled: bool) -> Call:
    """PyTorch in float32, channels-last."""
    ready = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
    network = network.float().cpu().to(memory_format=torch.channels_last)
    run: Callable[[torch.Tensor], object] = torch.compile(network) if compiled else network
    return torch.inference_mode()(lambda: run(ready))


def gpu_call(network: nn.Module, images: Batch, how: str, scratch: Path) -> Call:
    """PyTorch in float16, channels-last, on a batch in the GPU's memory: plain, or as `how` says."""
    if not torch.cuda.is_available():
        raise MissingEngineError("no CUDA GPU")
    ready = torch.from_numpy(images).half().cuda().contiguous(memory_format=torch.channels_last)
    network = network.half().cuda().to(memory_format=torch.channels_last)
    run: Callable[[torch.Tensor], object] = network
    with torch.no_grad():
        if how == "compile":
            run = torch.compile(network)
        elif how == "aot":
            package = str(scratch / f"{time.time_ns()}.pt2")
            torch._inductor.aoti_compile_and_package(torch.export.export(network, (ready,)), package_path=package)  # noqa: SLF001
            run = torch._inductor.aoti_load_package(package)  # noqa: SLF001
        elif how == "graph":
            replay = captured(network, ready)
            run = lambda _: replay()  # noqa: E731

    @torch.no_grad()
    def call() -> None:
        run(ready)
        torch.cuda.synchronize()

    return call


def captured(network: nn.Module, ready: torch.Tensor) -> Callable[[], object]:
    """The network on this batch as one CUDA graph."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            network(ready)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        network(ready)
    return graph.replay


def verdict_row(
    subject: Subject, precision: str, photos: Sequence[bytes], options: argparse.Namespace, scratch: Path
) -> str:
    """One line of the second table, on the CPU."""
    spec = subject.spec
    ready = [normalize(to_network_size(decode_image(photo), spec)[None], spec) for photo in photos]
    graph = in_precision(subject, precision, np.concatenate(ready[:4]))
    path = scratch / f"{precision}.onnx"
    path.write_bytes(graph.SerializeToString())
    session = onnxruntime.InferenceSession(
        path.read_bytes(), session_options(options.threads), providers=["CPUExecutionProvider"]
    )
    predictor = Predictor(OnnxEngine(path, "cpu", threads=options.threads), FoundModel(path, "explicit"))
    steps: list[Callable[[int], object]] = [
        lambda index: decode_and_resize(photos[index], spec),
        lambda index: session.run(None, {INPUT_NAME: ready[index]}),
        lambda index: predictor.predict_bytes(photos[index], name="photo"),
    ]
    least = np.full((len(steps), len(photos)), np.inf)
    for _ in range(options.rounds):
        for index in range(len(photos)):
            for number, step in enumerate(steps):
                start = options.now()
                step(index)
                least[number, index] = min(least[number, index], options.now() - start)
    decoding, engine, whole = 1e3 * least.mean(axis=1)
    return (
        f"| {subject.name} | onnx-{precision} | {decoding:.2f} | {engine:.2f} | {whole:.2f} "
        f"| {whole / (decoding + engine):.3f} |"
    )


def decode_and_resize(photo: bytes, spec: Preprocessing) -> npt.NDArray[np.uint8]:
    """What anyone would write with Pillow: no checks, no normalisation."""
    with Image.open(io.BytesIO(photo)) as image:
        rgb = image.convert("RGB")
    height, width = resized_shape(rgb.height, rgb.width, spec.resize_side_px)
    size, left, top = spec.image_size_px, (width - spec.image_size_px) // 2, (height - spec.image_size_px) // 2
    resized = rgb.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


if __name__ == "__main__":
    main()
