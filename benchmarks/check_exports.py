"""Largest difference of a probability between PyTorch and ONNX Runtime, by network and precision, on real photos.

    just check-exports --data data/cassava
    just check-exports --data data/cassava --networks vit_base_patch16_384:384,resnet18:224:weights/resnet18.safetensors

NETWORK is a timm name, an input size, and a file of weights if there is one. Without trained classifiers answers would
all be alike, so each gets random weights, stretched until the five classes are told apart with confidence: that makes
differences larger, not smaller, than a trained network's. Of a trained checkpoint `cassava export` tells them itself.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from safetensors.torch import load_file

from cassava_leaf_disease.export.half import to_half
from cassava_leaf_disease.export.light import to_half_weights
from cassava_leaf_disease.export.onnx import to_onnx
from cassava_leaf_disease.export.pictures import folder_pictures
from cassava_leaf_disease.imaging.preprocess import Preprocessing, normalize
from cassava_leaf_disease.modeling.backbone import classifier_names, rebuild_network
from untrained import describe_untrained

NETWORKS = "resnet18:224,efficientnet_b0:224,efficientnet_b4:380,vit_base_patch16_384:384"
TOLERANCES = {"fp32": 1e-4, "fp16": 5e-3, "fp16_weights": 5e-3}
BATCH = 8
SPREAD = 2.0  # standard deviation of the logits over photos


def main() -> int:
    """Prints a table; 1 where a difference is above its tolerance."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder with train.csv and train_images/")
    parser.add_argument("--networks", default=NETWORKS)
    parser.add_argument("--photos", type=int, default=64)
    options = parser.parse_args()
    print(f"{options.photos} photos of {options.data.name}; ONNX Runtime {onnxruntime.__version__} on the CPU\n")
    print("| network | precision | MB | largest difference | mean | same answer |")
    print("| --- | --- | --- | --- | --- | --- |")
    worst = [check(network, options.data, options.photos) for network in options.networks.split(",")]
    return int(not all(worst))


def check(network: str, data: Path, count: int) -> bool:
    """The rows of one network; whether all its precisions keep to their tolerance."""
    name, size, weights = [*network.split(":"), ""][:3]
    spec = Preprocessing(image_size_px=int(size))
    pictures = folder_pictures(data, spec, count)
    if pictures is None:
        sys.exit(f"{data}: no photos under train_images/; expected a data set in the Kaggle layout")
    photos = normalize(pictures.images, spec)
    torch.manual_seed(7)
    module = rebuild_network(name, int(size), 5).eval()
    if weights:
        heads = tuple(classifier_names(module))
        state = {key: value.float() for key, value in load_file(weights).items() if not key.startswith(heads)}
        module.load_state_dict(state, strict=False)
    expected = stretch_classifier(module, photos)
    graph = to_onnx(module, describe_untrained(name, spec))
    kept = True
    for precision, exported in (("fp32", graph), ("fp16", to_half(graph)), ("fp16_weights", to_half_weights(graph))):
        content = exported.SerializeToString()
        session = onnxruntime.InferenceSession(content)
        answers = [
            session.run(["logits"], {"images": photos[start : start + BATCH]})[0] for start in range(0, count, BATCH)
        ]
        found = softmax(np.concatenate(answers))
        difference = np.abs(found - expected)
        same = float((found.argmax(1) == expected.argmax(1)).mean())
        kept &= bool(difference.max() <= TOLERANCES[precision])
        figures = f"{len(content) / 1e6:.1f} | {difference.max():.1e} | {difference.mean():.1e} | {same:.3f}"
        print(f"| {name} @ {size} | {precision} | {figures} |", flush=True)
    return kept


def stretch_classifier(network: torch.nn.Module, photos: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Gives the network a classifier that is sure of its random answers; the probabilities it gives then."""
    with torch.inference_mode():
        features = torch.cat([embed(network, photos[start : start + BATCH]) for start in range(0, len(photos), BATCH)])
        classifier = network.get_classifier()  # type: ignore[operator]
        classifier.weight.normal_()
        logits = features @ classifier.weight.T
        classifier.weight.mul_(SPREAD / (logits - logits.mean(0)).std())
        classifier.bias.copy_(-(features @ classifier.weight.T).mean(0))
        return softmax((features @ classifier.weight.T + classifier.bias).numpy())


def embed(network: torch.nn.Module, photos: npt.NDArray[np.float32]) -> torch.Tensor:
    """What the classifier sees of each photo."""
    maps = network.forward_features(torch.from_numpy(photos))  # type: ignore[operator]
    features: torch.Tensor = network.forward_head(maps, pre_logits=True)  # type: ignore[operator]
    return features


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Probabilities, calculated in double precision."""
    odds = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    shares: npt.NDArray[np.float64] = odds / odds.sum(1, keepdims=True)
    return shares


if __name__ == "__main__":
    sys.exit(main())
