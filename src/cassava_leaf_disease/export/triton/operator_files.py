"""What the repository holds for the operator: how to serve it, how to build its engines, DALI's pipeline."""

from typing import Final

from cassava_leaf_disease.export.triton.model_configs import Plan
from cassava_leaf_disease.inference import served

_DALI: Final = '''"""Written by `cassava export-triton`: decoding and resizing on the GPU, by NVIDIA DALI.

Photos arrive checked by the model `check`. DALI's resizing is antialiased bilinear like Pillow's, but its JPEG decoder
and its rounding are others, so that probabilities differ a little from those of the Python model.
"""

import nvidia.dali as dali
from nvidia.dali import fn, types
from nvidia.dali.plugin.triton import autoserialize


@autoserialize
@dali.pipeline_def(batch_size={batch}, num_threads=4, device_id=0)
def pipeline():
    encoded = fn.external_source(device="cpu", name="{encoded}", dtype=types.UINT8, ndim=1)
    image = fn.decoders.image(
        encoded, device="mixed", output_type=types.RGB, adjust_orientation=False, use_fast_idct=False
    )
    return ({returned})
'''

_DALI_SQUARE: Final = """fn.crop(
            fn.resize(
                image, resize_shorter={side}, interp_type=types.INTERP_LINEAR, antialias=True, dtype=types.UINT8
            ),
            crop=({size}, {size}),
            crop_pos_x=0.5,
            crop_pos_y=0.5,
            rounding="truncate",
            name="{name}",
        )"""

_README: Final = """# {name} on NVIDIA Triton

Written by `cassava export-triton` ({version}). `models` is the model repository; the ensemble `cassava` takes encoded
JPEG or PNG files (`IMAGE`, bytes, one photo a request) and gives `PROBABILITIES` of the {classes} classes and `MODEL`,
the digest of `cassava.json`, which says what answers.

    pip install -r requirements.txt          # what the models in Python import
{build}    tritonserver --model-repository=models --http-address=127.0.0.1 --grpc-address=127.0.0.1

The Python that Triton's Python backend uses must be the one that has those packages. Ports: 8000 HTTP, 8001 gRPC,
8002 metrics. Photos that cannot be used are answered with the status INVALID_ARGUMENT and a text that names the kind:
`UnsupportedImageError`, `CorruptImageError`, `ImageTooLargeError` or `TooManyPixelsError`.
"""

_BUILD: Final = """#!/bin/sh
# Written by `cassava export-triton`. Run it where the engines will run: they fit one kind of GPU and one TensorRT.
set -eu
cd "$(dirname "$0")"
{lines}"""


def readme(plan: Plan) -> str:
    """For who finds the folder."""
    build = "    sh build_engines.sh                      # TensorRT engines, for the GPU of this machine\n"
    return _README.format(
        name=plan.description.name,
        version=plan.description.package_version,
        classes=len(plan.description.members[0].metadata.class_names),
        build=build if plan.backend == "tensorrt" else "",
    )


def build_script(plan: Plan) -> str:
    """One `trtexec` for each member."""
    lines = []
    for member in plan.description.members:
        dims = "x".join(map(str, plan.photo_dims(member.metadata.preprocessing)))
        most = plan.settings.max_batch_size
        shapes = {"min": 1, "opt": max(1, most // 2), "max": most}
        wanted = " ".join(f"--{key}Shapes={served.PIXELS}:{count}x{dims}" for key, count in shapes.items())
        lines.append(
            f"trtexec --onnx=onnx/{member.model}.onnx --saveEngine=models/{member.model}/1/model.plan "
            f"--stronglyTyped {wanted} --timingCacheFile=onnx/timing.cache --skipInference\n"
        )
    return _BUILD.format(lines="".join(lines))


def dali_pipeline(plan: Plan) -> str:
    """The source of DALI's pipeline; its outputs stand in the order of the configuration."""
    squares = [
        _DALI_SQUARE.format(side=spec.resize_side_px, size=spec.image_size_px, name=name)
        for spec, name in plan.pixels.items()
    ]
    return _DALI.format(batch=plan.settings.max_batch_size, encoded=served.ENCODED, returned=", ".join(squares) + ",")
