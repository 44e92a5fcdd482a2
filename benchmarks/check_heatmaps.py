"""Whether heatmaps of a checkpoint depend on what it has learned (Adebayo et al., 2018), on photos of its test part.

    python benchmarks/check_heatmaps.py CHECKPOINT --data data/cassava-leaf-disease-classification [--photos 64]

Makes the network random part by part from the classifier down, and compares its maps with those of the trained one.
"""

import argparse
import shlex
import sys
from pathlib import Path

import numpy as np

from cassava_leaf_disease.config.load import load_config, quoted
from cassava_leaf_disease.evaluation.own_split import divide_as_trained
from cassava_leaf_disease.evaluation.sanity import check_heatmaps
from cassava_leaf_disease.imaging.preprocess import to_network_size
from cassava_leaf_disease.modeling.checkpoint import load_checkpoint


def main() -> None:
    """Measures and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--photos", type=int, default=64)
    options = parser.parse_args()
    described = load_checkpoint(options.checkpoint).metadata
    photos = divide_as_trained(load_config([f"paths.data_dir={quoted(options.data)}"]), described)
    source = photos.evaluation_dataset("test").source
    chosen = np.random.default_rng(0).permutation(len(source))[: options.photos]
    images = np.stack([to_network_size(source.image(index), described.preprocessing) for index in chosen.tolist()])
    found = check_heatmaps(options.checkpoint, images)
    print(f"`{shlex.join(['python', *sys.argv])}`\n\n{described.name} ({described.version}), {found.photos} photos\n")
    print("| random from the top down to | rank correlation | SSIM | same answer |\n| --- | --- | --- | --- |")
    for step in found.steps:
        print(f"| {step.randomised} | {step.rank_correlation:.2f} | {step.similarity:.2f} | {step.same_answer:.2f} |")
    print(f"\nmaps of two different photos: rank correlation {found.other_photos:.2f}")
    print(
        f"confidence {found.confidence:.2f}; a quarter of the places covered, the hottest: "
        f"{found.confidence_without_hottest:.2f}, random ones: {found.confidence_without_random:.2f}"
    )


if __name__ == "__main__":
    main()
