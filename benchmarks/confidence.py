"""Whether the connected components of low confidence are those that are wrong.

    python -m verse_utils.phantom --field_of_view trunk --output trunks --training 0 --validation 0 --test 12 --seed 41
    python benchmarks/confidence.py --data_path trunks verse_sample

Each test case is segmented, and all connected components of 1 cm³ and more are kept (``--postprocess none``). One is
wrong if less than half of it lies in the reference mask. Its confidence is the mean probability of foreground in it, as
the summary of inference tells it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.ndimage import label as label_components
from scipy.ndimage import mean, sum_labels

from prediction.options import Options
from prediction.pretrained import PRETRAINED, pretrained_checkpoint
from prediction.whole_scans import Models, load_models, segment
from utils.misc import OneLineParser, command
from utils.tasks import HEATMAP
from verse_utils.cases import Case
from verse_utils.catalogue import list_cases
from verse_utils.images import read_case
from verse_utils.labels import LABEL_SCHEMES

LEAST_ML = 1.0


def components_of(case: Case, models: Models, postprocess: str) -> np.ndarray:
    """(N, 2): confidence of each component, and the share of it that lies in the reference mask."""
    found = segment(case.image_path, models, Options(postprocess=postprocess, probabilities=True))
    images = read_case(case)
    reference = LABEL_SCHEMES["binary"].to_classes(images.label)
    numbers, count = label_components(found.mask)
    every = np.arange(1, count + 1)
    voxel_ml = abs(np.linalg.det(images.affine[:3, :3])) / 1000
    volumes_ml = voxel_ml * sum_labels(np.ones_like(reference), numbers, every)
    large = every[volumes_ml >= LEAST_ML]
    return np.stack([mean(found.probabilities, numbers, large), mean(reference, numbers, large)], axis=1)


@command
def main() -> None:
    """Print how many components are wrong, by their confidence, with and without post-processing."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data_path", type=Path, nargs="+", required=True, help="data whose test cases are segmented")
    add("--segmentation_model", type=Path, default=Path(PRETRAINED), help="segmenter")
    add("--heatmap_model", type=Path, default=pretrained_checkpoint(HEATMAP), help="localiser")
    arguments = parser.parse_args()
    models = load_models(arguments.segmentation_model, arguments.heatmap_model)
    cases = [case for case in list_cases(arguments.data_path, 19) if case.split == "test"]
    print("| kept | components | wrong | wrong of the tenth of lowest confidence | its highest confidence |")
    print("|---|---|---|---|---|")
    for postprocess in ("none", Options.postprocess):
        found = np.concatenate([components_of(case, models, postprocess) for case in cases])
        found = found[found[:, 0].argsort(kind="stable")]
        wrong, lowest = found[:, 1] < 0.5, -(-len(found) // 10)
        told = f"{wrong[:lowest].sum()} of {lowest} | {found[lowest - 1, 0]:.2f}"
        print(f"| {postprocess} | {len(found)} | {wrong.sum()} | {told} |", flush=True)


if __name__ == "__main__":
    main()
