"""What this package computes of small pictures, for the tests of the page's own engine: web/test/offline/fixture.json.

The pictures are drawn by one formula there and here, so that only results are kept: python tools/offline_fixture.py
"""

import base64
import io
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from cassava_leaf_disease.domain import ModelIdentity, Prediction
from cassava_leaf_disease.errors import ImageError
from cassava_leaf_disease.imaging.decode import DecodeLimits, decode_image
from cassava_leaf_disease.imaging.preprocess import Preprocessing, preprocess, resized_shape, to_network_size
from cassava_leaf_disease.imaging.quality import PhotoQuality, measure_quality
from cassava_leaf_disease.inference.aggregate import DEFAULT_POOLING, combine_photos
from cassava_leaf_disease.inference.answer import to_prediction
from cassava_leaf_disease.inference.engines.base import EngineOutputs
from cassava_leaf_disease.inference.explain import draw_heatmap
from cassava_leaf_disease.inference.gate import Gate, judge
from cassava_leaf_disease.inference.ood import fit_arrays, score_outputs
from cassava_leaf_disease.inference.predictor import AnyPredictor
from cassava_leaf_disease.inference.stages import unwatched
from cassava_leaf_disease.inference.views import views_of
from cassava_leaf_disease.modeling.gate_arrays import encode_arrays
from cassava_leaf_disease.modeling.metadata import GateRecord, OtherTrouble, QualityLimits, Thresholds
from cassava_leaf_disease.serving.replies import split_message

FIXTURE: Final = Path(__file__).resolve().parents[1] / "web" / "test" / "offline" / "fixture.json"
LIMITS: Final = DecodeLimits(max_bytes=100_000, max_pixels=10_000)
QUALITY: Final = QualityLimits(
    min_sharpness=20,
    min_brightness=0.15,
    max_brightness=0.85,
    min_contrast=0.04,
    max_dark=0.5,
    max_bright=0.4,
    min_colors=100,
)
THRESHOLDS: Final = Thresholds(min_confidence=0.5, other_trouble=OtherTrouble(below=0.55, within=1.625))
_SIZES: Final = ((40, 30, 20, 15), (40, 30, 17, 30), (40, 30, 40, 13), (23, 61, 45, 70), (50, 7, 9, 50))
_REDUCED: Final = ((23, 17, 2), (40, 31, 3), (64, 65, 5))
_PHOTOS: Final = (("drawn", 200, 210), ("drawn", 800, 1000), ("grey 16", 200, 200), ("page", 400, 300))


def draw(width: int, height: int, kind: str = "drawn") -> npt.NDArray[np.uint8]:
    """The picture of that size, `(H, W, 3)`; the same as `draw` in web/test/offline/drawn.ts."""
    y, x, channel = np.ogrid[:height, :width, :3]
    if kind == "grey 16":
        return np.broadcast_to(np.uint8(16), (height, width, 3)).copy()
    if kind == "page":
        return np.where((x // 9 + y // 14) % 5 == 0, 20, 250 + 0 * channel).astype(np.uint8)
    slopes = x * (3 + channel) + y * (5 + 2 * channel)
    steps = (x // 8) * (y // 16) * (channel + 1) * 11
    drawn: npt.NDArray[np.uint8] = ((slopes + steps) % 256).astype(np.uint8)
    return drawn


def build() -> dict[str, Any]:
    """All of it, as JSON has it."""
    return {
        "resize": [_resized(*sizes) for sizes in _SIZES],
        "reduce": [_reduced(*each) for each in _REDUCED],
        "upright": [_turned(orientation) for orientation in range(1, 9)],
        "preprocess": [_preprocessed(*each) for each in ((70, 50, 24, 0.875), (33, 60, 24, 1.0), (24, 24, 24, 1.0))],
        "quality": [_measured(*photo) for photo in _PHOTOS],
        "words": _words(),
        "thresholds": THRESHOLDS.model_dump(include={"min_confidence", "other_trouble"}),
        "judged": list(_judged()),
        "gates": [_gate(score) for score in ("energy", "knn", "mahalanobis")],
        "plants": list(_plants()),
        "heatmap": _heatmap(),
        "files": [_opened(name, data) for name, data in _files().items()],
        "limits": {"max_upload_bytes": LIMITS.max_bytes, "max_image_pixels": LIMITS.max_pixels, "max_files": 10},
        "quality_limits": QUALITY.model_dump(),
        "pooling": {
            "kind": "logarithms",
            "correlation": DEFAULT_POOLING.correlation,
            "doubt": DEFAULT_POOLING.doubt,
            "prior": list(DEFAULT_POOLING.prior),
        },
    }


def _coded(array: npt.NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _resized(width: int, height: int, new_width: int, new_height: int) -> dict[str, Any]:
    picture = Image.fromarray(draw(width, height))
    values = Image.fromarray(draw(width, height)[..., 0].astype(np.float32) / 255)
    size = (new_width, new_height)
    return {
        "from": [width, height],
        "to": list(size),
        "pixels": _coded(np.asarray(picture.resize(size, Image.Resampling.BILINEAR))),
        "values": _coded(np.asarray(values.resize(size, Image.Resampling.BILINEAR))),
    }


def _reduced(width: int, height: int, factor: int) -> dict[str, Any]:
    reduced = Image.fromarray(draw(width, height)).reduce(factor)
    return {"from": [width, height], "factor": factor, "to": list(reduced.size), "pixels": _coded(np.asarray(reduced))}


def _turned(orientation: int) -> dict[str, Any]:
    """By a PNG, which loses nothing, with that orientation in it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(draw(5, 3)).save(buffer, "PNG", exif=exif)
    upright = decode_image(buffer.getvalue())
    return {"orientation": orientation, "to": [upright.shape[1], upright.shape[0]], "pixels": _coded(upright)}


def _preprocessed(width: int, height: int, size_px: int, crop_ratio: float) -> dict[str, Any]:
    spec = Preprocessing(image_size_px=size_px, crop_ratio=crop_ratio)
    image = draw(width, height)
    return {
        "from": [width, height],
        "spec": spec.model_dump(),
        "resize_side_px": spec.resize_side_px,
        "resized": list(resized_shape(height, width, spec.resize_side_px)[::-1]),
        "pixels": _coded(to_network_size(image, spec)),
        "normalized": _coded(preprocess(image, spec)),
    }


def _measured(kind: str, width: int, height: int) -> dict[str, Any]:
    quality = measure_quality(draw(width, height, kind))
    return {"kind": kind, "from": [width, height], "quality": vars(quality)}


def _words() -> list[dict[str, Any]]:
    values = (0.5, 1.5, 2.5, 0.25, 0.75, 0.15, 0.05, 0.125, 0.375, 1.005, 12.345, 99.95, 1234567.5, 0.0)
    return [
        {"value": value, "whole": f"{value:.0f}", "tenths": f"{value:.1f}", "hundredths": f"{value:.2f}"}
        for value in values
    ]


def _judged() -> Any:  # noqa: ANN401  a generator of dictionaries
    fine = {"sharpness": 200.0, "brightness": 0.45, "contrast": 0.2, "dark": 0.02, "bright": 0.01, "colors": 3000}
    changes: tuple[dict[str, float], ...] = (
        {},
        {"sharpness": 3.5},
        {"brightness": 0.05, "dark": 0.9, "contrast": 0.01},
        {"brightness": 0.95, "bright": 0.8},
        {"bright": 0.8, "brightness": 0.9, "colors": 12},
    )
    for changed in changes:
        for confidence, foreign in ((0.9, 0.2), (0.375, 1.25), (0.4, None), (0.53, 1.5), (0.25, 1.75)):
            quality = {**fine, **changed}
            judged = judge(confidence, THRESHOLDS, PhotoQuality(**quality), QUALITY, foreign)  # type: ignore[arg-type]
            yield {
                "quality": quality,
                "confidence": confidence,
                "foreign": foreign,
                "verdict": judged.verdict,
                "reasons": judged.reasons,
                "checks": [check.model_dump() for check in judged.checks],
            }


def _gate(score: Any) -> dict[str, Any]:  # noqa: ANN401  one of three literals
    random = np.random.default_rng(7)
    learned = EngineOutputs(
        random.normal(size=(30, 5)).astype(np.float32), random.normal(size=(30, 12)).astype(np.float32)
    )
    arrays = fit_arrays(score, learned, np.arange(30) % 5, 4)
    scores = score_outputs(score, arrays, learned, 3)
    record = GateRecord(
        score=score,
        typical=float(np.median(scores)),
        limit=float(scores.max()),
        neighbors=3,
        max_refused=0.1,
        quality=QUALITY,
        photos={"train": 30, "val": 30},
    )
    photos = EngineOutputs(
        (2 * random.normal(size=(3, 5))).astype(np.float32), random.normal(size=(3, 12)).astype(np.float32)
    )
    assert photos.features is not None  # noqa: S101
    return {
        "gate": {
            **record.model_dump(include={"score", "typical", "limit", "neighbors"}),
            "features": [0, None],
            "arrays": json.loads(encode_arrays(arrays))["arrays"],
        },
        "logits": photos.logits.tolist(),
        "features": photos.features.tolist(),
        "foreign": Gate(record, arrays).foreign(photos).tolist(),
    }


def _plants() -> Any:  # noqa: ANN401  a generator of dictionaries
    sure, unsure, other = (0.02, 0.03, 0.05, 0.85, 0.05), (0.1, 0.2, 0.2, 0.3, 0.2), (0.01, 0.9, 0.03, 0.03, 0.03)
    nothing = DEFAULT_POOLING.prior
    plants: tuple[tuple[tuple[tuple[float, ...], float], ...], ...] = (
        ((sure, 0.1), (sure, 0.2)),
        ((unsure, 0.1), (unsure, 0.2), (sure, 1.5)),
        ((sure, 1.5), (other, 2.0)),
        ((sure, 0.0), (other, 0.1)),
        ((nothing, 0.1),),
    )
    identity = ModelIdentity(name="fixture", version="1", source="explicit", path="fixture.onnx")
    for plant in plants:
        photos = [
            to_prediction(
                share, identity, Thresholds(min_confidence=0.8), None, (), top_k=5, name=name, foreign=foreign
            )
            for (share, foreign), name in zip(plant, "abc", strict=False)
        ]
        yield {
            "min_confidence": 0.8,
            "photos": [_plain(photo) for photo in photos],
            "plant": _plain(combine_photos(photos, 0.8)),
        }


def _plain(prediction: Prediction) -> Any:  # noqa: ANN401  JSON
    return json.loads(prediction.model_dump_json())


class _Mapped(AnyPredictor):
    """A model whose maps are given; all that a heatmap asks of a predictor."""

    def __init__(self, maps: npt.NDArray[np.float32], spec: Preprocessing) -> None:
        from cassava_leaf_disease.inference.views import VIEWS

        self.looks = VIEWS["none"]
        self._maps = maps
        self.metadata = _Described(spec)
        self.watch = unwatched

    @property
    def members(self) -> Any:  # noqa: ANN401
        return (self,)

    @property
    def temperature(self) -> float:
        return self.metadata.temperature

    def views_by_network(self, image: npt.NDArray[np.uint8]) -> Any:  # noqa: ANN401
        spec = self.metadata.preprocessing
        return {spec: views_of(image, spec, "none")}

    def combine(self, answers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(answers[0])

    def outputs(self, _: npt.NDArray[np.uint8]) -> EngineOutputs:
        return EngineOutputs(self._maps.mean(axis=(2, 3)), None, self._maps)

    quality_limits = None


class _Described:
    temperature = 1.5

    def __init__(self, spec: Preprocessing) -> None:
        self.preprocessing = spec


def _heatmap() -> dict[str, Any]:
    spec = Preprocessing(image_size_px=24, crop_ratio=0.9)
    maps = np.random.default_rng(3).normal(scale=3, size=(1, 5, 3, 3)).astype(np.float32)
    drawn = np.asarray(draw_heatmap(_Mapped(maps, spec), draw(50, 36), 2))
    return {
        "from": [50, 36],
        "class_id": 2,
        "spec": spec.model_dump(),
        "resize_side_px": spec.resize_side_px,
        "temperature": _Described.temperature,
        "maps": maps[0].ravel().tolist(),
        "map_size": [3, 3],
        "pixels": _coded(drawn),
    }


def _files() -> dict[str, bytes]:
    turned = Image.Exif()
    turned[0x0112] = 6
    jpeg, png = _saved("JPEG", exif=turned, comment=b"hello"), _saved("PNG", exif=turned)
    wrong_crc = bytearray(png)
    wrong_crc[20] ^= 1
    return {
        "turned.jpg": jpeg,
        "turned.png": png,
        "grey.jpg": _saved("JPEG", "L"),
        "progressive.jpg": _saved("JPEG", progressive=True),
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.png": png[: len(png) // 2],
        "wrong.png": bytes(wrong_crc),
        "empty.jpg": b"",
        "text.jpg": b"no 'photo'\n\\ at\xff all",
        "a.gif": _saved("GIF"),
        "a.webp": b"RIFF\x10\0\0\0WEBPVP8 ",
        "a.heic": b"\0\0\0\x18ftypheic\0\0\0\0",
        "page.html": b"  <html>",
        "large.jpg": b"\xff\xd8\xff" + bytes(LIMITS.max_bytes),
        "bomb.png": _saved("PNG", size=(200, 100)),
        "bomb.jpg": _saved("JPEG", size=(101, 100)),
        "two.png": _saved("PNG", save_all=True, append_images=[Image.fromarray(draw(20, 10)[::-1])]),
        "no frame.jpg": b"\xff\xd8\xff\xd9",
        "soi.jpg": b"\xff\xd8\xff",
    }


def _saved(kind: str, mode: str = "RGB", size: tuple[int, int] = (20, 10), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(draw(*size)).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def _opened(name: str, data: bytes) -> dict[str, Any]:
    told = {"name": name, "data": base64.b64encode(data[:5000]).decode("ascii"), "bytes": len(data)}
    try:
        upright = decode_image(data, LIMITS, name=name)
    except ImageError as error:
        seen, expected = split_message(str(error))
        return {**told, "refused": {"status": error.http_status, "seen": seen, "expected": expected}}
    return {**told, "size": [upright.shape[1], upright.shape[0]]}


if __name__ == "__main__":
    FIXTURE.write_text(json.dumps(build(), separators=(",", ":")) + "\n", encoding="utf-8")
