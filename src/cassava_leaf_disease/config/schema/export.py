"""Model files without PyTorch, and servers of them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cassava_leaf_disease.config.schema.base import AbsolutePath, Fraction, Section

Precision = Literal["fp32", "fp16", "fp16_weights", "int8_weights", "int8"]


class Int8Config(Section):
    """Weights and activations of convolutions in int8, calibrated on photos of the training part.

    `int8_weights` takes the photos and the limits of the answers, too. In `int8` convolutions stay in float32, the
    noisiest first, until logits of training photos are off by at most `max_noise` (mean square, as a fraction of their
    own), `min_agreement` of the answers about validation photos are the checkpoint's, and at most `max_accuracy_loss`
    of them turn from right to wrong on balance.
    """

    calibration_photos: int = Field(ge=4, le=10_000)
    max_noise: float = Field(gt=0, le=1)
    min_agreement: Fraction
    max_accuracy_loss: Fraction


class TritonConfig(Section):
    """A model repository for NVIDIA Triton, in a folder of its own (null: `paths.outputs_dir`/triton).

    `backend` runs the networks (auto: Python with ONNX Runtime on the CPU, Triton's ONNX Runtime on GPUs);
    `preprocess` decodes and resizes, in `preprocess_instances` processes (auto: one for each processor here). At most
    `max_queue` photos wait for it; more are refused at once.
    """

    target: Literal["cpu", "gpu", "multi_gpu"]
    backend: Literal["auto", "python", "onnxruntime", "tensorrt"]
    preprocess: Literal["python", "dali"]
    preprocess_instances: Literal["auto"] | Annotated[int, Field(ge=1, le=256)]
    max_batch_size: int = Field(ge=1, le=1024)
    max_queue: int = Field(ge=1, le=1_000_000)
    output_dir: AbsolutePath | None


class TensorRtConfig(Section):
    """A TensorRT engine from an ONNX file, beside it or in `output_dir`.

    It runs batches of `min_batch` to `max_batch` photos, fastest with `opt_batch`; `workspace_bytes` is the GPU memory
    that building may use. `tolerance` is the largest difference of a probability from the ONNX file's.
    """

    min_batch: int = Field(ge=1, le=1024)
    opt_batch: int = Field(ge=1, le=1024)
    max_batch: int = Field(ge=1, le=1024)
    workspace_bytes: int = Field(ge=1_000_000)
    tolerance: float = Field(gt=0, le=0.1)
    output_dir: AbsolutePath | None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.min_batch <= self.opt_batch <= self.max_batch:
            msg = (
                f"export.tensorrt.min_batch={self.min_batch} opt_batch={self.opt_batch} max_batch={self.max_batch}: "
                "expected rising numbers, for example 1, 8 and 32"
            )
            raise ValueError(msg)
        return self


class ExportConfig(Section):
    """A model file without PyTorch, beside the checkpoint or at `output_path`.

    `precision` is that of weights and arithmetic, or of the weights alone. `tolerance` is the largest difference of a
    probability (null: 0.0001 in fp32, 0.005 in fp16, 0.05 in int8_weights, none in int8; these two have limits of
    their own in `int8`).
    """

    precision: Precision
    output_path: AbsolutePath | None
    tolerance: float | None = Field(gt=0, le=1, description="a number above 0 and ≤ 1, or null")
    int8: Int8Config
    tensorrt: TensorRtConfig
    triton: TritonConfig
