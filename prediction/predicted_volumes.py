"""Step 3 of a whole scan: sliding-window inference of the working image, and which connected components are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from prediction.names.column import Vertebra
from prediction.options import Options
from prediction.postprocessing import describe_components, keep_components
from prediction.probabilities import class_indices
from prediction.trained_model import TrainedModel
from prediction.working_image import WorkingImage
from utils.files.scratch import Scratch, return_freed_memory
from utils.geometry.boxes import Box
from utils.geometry.components import ConnectedComponents

if TYPE_CHECKING:
    import h5py


@dataclass(frozen=True)
class PredictedVolumes:
    """A prediction on the network's grid, on disk.

    Attributes:
        probabilities: (X, Y, Z) float32 in [0, 1] of each channel of the network.
        components: (X, Y, Z) int32, 0 is background; numbers of parts of the connected components of foreground.
        described: the components, see ``describe_components``.
        labels: (X, Y, Z) uint8 of single vertebrae: VerSe's label of the one that each voxel most probably belongs to,
            also outside of the components; None of other segmenters.
        boxes: label -> where its voxels lie.
        vertebrae: from head to foot.
        left_out_vox: of vertebrae that were found, but have no place in the sequence.
    """

    probabilities: list[h5py.Dataset]
    components: h5py.Dataset
    described: list[dict[str, Any]]
    labels: h5py.Dataset | None = None
    boxes: dict[int, Box] = field(default_factory=dict)
    vertebrae: list[Vertebra] = field(default_factory=list)
    left_out_vox: int = 0


def predict_volumes(
    segmenters: Sequence[TrainedModel], image: WorkingImage, options: Options, scratch: Scratch
) -> PredictedVolumes:
    """Predict slab by slab; connected components that ``options.postprocess`` drops become background.

    Several segmenters, which must see the same windows, predict one after the other, each on the
    device only meanwhile if it rests on the CPU. Their mean is made on disk.
    """
    assert image.windows is not None
    shape, count = image.hu.shape, len(segmenters)
    volumes = [scratch.volume(f"class {k}", shape, np.float32) for k in range(segmenters[0].spec.out_channels)]
    components = scratch.volume("components", shape, np.int32)
    connected, slabs = ConnectedComponents(), []
    for number, segmenter in enumerate(segmenters, 1):
        with segmenter.on_device():
            for planes, slab_KXYZ in segmenter.predict_slabs(image.hu, image.windows, options.batch_size, options.tta):
                probabilities_KXYZ = slab_KXYZ.numpy() / np.float32(count)
                if number > 1:
                    probabilities_KXYZ += np.stack([volume[..., planes] for volume in volumes])
                for volume, slab in zip(volumes, probabilities_KXYZ, strict=True):
                    volume[..., planes] = slab
                if number == count:
                    components[..., planes] = connected.add(class_indices(probabilities_KXYZ) > 0)
                    slabs.append(planes)
                return_freed_memory()
    wholes = connected.wholes()
    keep_components(wholes, options.postprocess, [segmenters[0].spacing_mm] * 3, slabs, components, volumes)
    described = describe_components(wholes, slabs, components, volumes, image.grid.affine)
    return PredictedVolumes(volumes, components, described)
