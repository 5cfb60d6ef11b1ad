"""Step 3 of a whole scan whose vertebrae are named: they are found one at a time, and the names confirmed by that."""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import numpy as np
import torch

from prediction.names.confirmed import FoundBody, confirm
from prediction.names.single import SingleVertebrae
from prediction.names.spine import Spine
from prediction.options import Options
from prediction.postprocessing import describe_components
from prediction.predicted_volumes import PredictedVolumes
from prediction.trained_model import TrainedModel
from prediction.working_image import WorkingImage
from utils.constants import SLAB_SLICES
from utils.files.scratch import Scratch
from utils.geometry.components import ConnectedComponents

# A vertebra whose centre lies so far from the scan's upper and lower end is not cut by it.
_SHOWN_MM = 25.0


def predict_single_volumes(
    segmenters: Sequence[TrainedModel], image: WorkingImage, spine: Spine, options: Options, scratch: Scratch
) -> PredictedVolumes:
    """Predict one vertebra at a time, each in a window of its own, and have the names confirmed by what is found.

    The probabilities of several segmenters, which must see the same windows, are averaged.
    """
    shape, first, grid = image.hu.shape, segmenters[0], image.grid
    to_grid = np.linalg.inv(grid.affine)
    single = SingleVertebrae(
        network=lambda window_CXYZ: torch.stack(
            [one.predict_window(window_CXYZ, options.tta) for one in segmenters]
        ).mean(dim=0),
        image=first.scaled(image.hu),
        air=first.scaling.air,
        window_shape=first.spec.input_shape,
        spacing_mm=first.spacing_mm,
        probability=scratch.volume("class 0", shape, np.float32),
        numbers=scratch.volume("numbers", shape, np.uint8),
    )

    def find(place_mm: np.ndarray) -> FoundBody | None:
        body = single.find(nib.affines.apply_affine(to_grid, place_mm))
        if body is None:
            return None
        return FoundBody(nib.affines.apply_affine(grid.affine, body.centre_vox), body.number, body.fragments)

    def is_shown(place_mm: np.ndarray) -> bool:
        z_mm = nib.affines.apply_affine(to_grid, place_mm)[2] * first.spacing_mm
        return bool(_SHOWN_MM <= z_mm <= shape[2] * first.spacing_mm - _SHOWN_MM)

    confirmed = confirm(spine.candidates or (), spine.steps, find, is_shown)
    label_of = np.zeros(256, np.uint8)
    for vertebra, number in confirmed:
        label_of[number] = vertebra.label if number else 0
    components, labels = scratch.volume("components", shape, np.int32), single.numbers
    connected, slabs = ConnectedComponents(), [slice(low, low + SLAB_SLICES) for low in range(0, shape[2], SLAB_SLICES)]
    left_out_vox = 0
    for planes in slabs:
        named = label_of[labels[..., planes]]
        probability = single.probability[..., planes]
        left_out_vox += int(((probability > 0.5) & (named == 0)).sum())
        labels[..., planes], single.probability[..., planes] = named, probability * (named > 0)
        components[..., planes] = connected.add((probability > 0.5) & (named > 0))
    described = describe_components(connected.wholes(), slabs, components, [single.probability], grid.affine)
    vertebrae = [one.vertebra for one in confirmed]
    boxes = {one.vertebra.label: single.boxes[one.number - 1] for one in confirmed if one.number}
    return PredictedVolumes([single.probability], components, described, labels, boxes, vertebrae, left_out_vox)
