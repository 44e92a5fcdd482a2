"""`cassava infer`: one answer for each photo, or one for the plant that they show."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from cassava_leaf_disease.config.schema import AppConfig, InferConfig
from cassava_leaf_disease.domain import Prediction
from cassava_leaf_disease.errors import ConfigError
from cassava_leaf_disease.imaging.decode import DecodeLimits, read_bytes, read_image
from cassava_leaf_disease.inference.aggregate import combine_photos, pooling_for, pooling_of
from cassava_leaf_disease.inference.ensemble import load_model
from cassava_leaf_disease.inference.explain import heatmap_paths, write_heatmap
from cassava_leaf_disease.inference.model_files import check_device
from cassava_leaf_disease.inference.predictor import AnyPredictor
from cassava_leaf_disease.inference.views import UInt8Image


def infer(config: AppConfig) -> Prediction | list[Prediction]:
    """The answer about `infer.image_path`; a list of answers, in order, where that is a list.

    With `infer.plant` it is one `PlantPrediction` about all photos.

    Raises:
        CassavaError: No photo was named, a file is no usable photo, or no model answers.
    """
    settings = config.infer
    paths = [settings.image_path] if isinstance(settings.image_path, Path) else list(settings.image_path or ())
    if not paths:
        raise ConfigError("infer.image_path is not set; type infer.image_path=photo.jpg")
    if settings.engine == "triton":
        return _ask_triton(settings, paths)
    check_device(settings.device, settings.checkpoint_path)
    limits = DecodeLimits(settings.max_image_bytes, settings.max_image_pixels)
    first = read_image(paths[0], limits)  # a bad photo is told before seconds are spent on loading the model
    predictor = load_model(config)
    images = chain([first], (read_image(path, limits) for path in paths[1:]))  # one at a time in memory
    folder = settings.explain_dir or config.paths.outputs_dir / "explain"
    heatmaps = heatmap_paths(paths, folder) if settings.explain else [None] * len(paths)
    answers = []
    for path, image, heatmap in zip(paths, images, heatmaps, strict=True):
        answer = predictor.predict_image(image, name=str(path), top_k=settings.top_k)
        answers.append(answer if heatmap is None else explained(answer, predictor, image, heatmap))
    if settings.plant:
        return combine_photos(answers, predictor.min_confidence, pooling_for(predictor))
    return answers[0] if isinstance(settings.image_path, Path) else answers


def explained(answer: Prediction, predictor: AnyPredictor, image: UInt8Image, path: Path) -> Prediction:
    """The answer with the heatmap of its class, which is written to `path`."""
    write_heatmap(predictor, image, answer.predicted_class_id, path)
    return answer.model_copy(update={"explanation": str(path)})


def _ask_triton(settings: InferConfig, paths: Sequence[Path]) -> Prediction | list[Prediction]:
    from cassava_leaf_disease.inference.engines.triton import BlockingTritonClient, require_client

    require_client()
    limits = DecodeLimits(settings.max_image_bytes, settings.max_image_pixels)
    with BlockingTritonClient(settings.triton_url, timeout_s=settings.triton_timeout_s) as client:
        photos = ((str(path), read_bytes(path, limits)) for path in paths)  # one at a time in memory
        answers = [client.predict_bytes(data, name=name, top_k=settings.top_k) for name, data in photos]
        if settings.plant:
            served = client.describe()
            weights = [each.weight for each in served.members]
            pooling = pooling_of([each.metadata for each in served.members], weights, served.class_prior)
            return combine_photos(answers, served.thresholds.min_confidence, pooling)
    return answers[0] if isinstance(settings.image_path, Path) else answers
