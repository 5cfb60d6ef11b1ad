"""Trained models on whole scans: find the spine, look at it window by window, bring the mask to the scan's own grid."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from utils.constants import HU_AIR, LEAST_BLOB_MM3
from verse_utils.errors import UserError

if TYPE_CHECKING:
    import h5py

    from training.trained_model import TrainedModel
    from utils.scans import Scan
    from utils.scratch import Scratch
    from utils.sliding_window import Windows
    from utils.working_grid import WorkingGrid

POSTPROCESSING = ("blobs", "largest", "none")
# The localiser's view is coarse, and it may miss the ends of the spine and of processes.
MARGIN_MM = 10.0


@dataclass(frozen=True)
class Options:
    """How scans are segmented.

    Attributes:
        margin_mm: around the spine as the localiser found it.
        overlap: least share of a window's side that its neighbour covers.
        batch_size: windows in a forward pass.
        tta: average with the mirrored image's answer (test-time augmentation).
        postprocess: "blobs" drops those under 5 cm³, "largest" keeps one, "none" all.
        probabilities: return the probability of foreground, too.
    """

    margin_mm: float = MARGIN_MM
    overlap: float = 0.5
    batch_size: int = 1
    tta: bool = False
    postprocess: str = "blobs"
    probabilities: bool = False


class Models(NamedTuple):
    """The segmenter, and the localiser that tells it where to look; without one it looks everywhere."""

    segmenter: TrainedModel
    localiser: TrainedModel | None = None


@dataclass
class Segmentation:
    """What was found in a scan.

    Attributes:
        mask: (I, J, K) uint8 on the scan's own grid: 1 on vertebrae, or a class, or VerSe's number, as was learnt.
        probabilities: (I, J, K) float32 in [0, 1] of any vertebra; None unless asked for.
        region: stored voxels that were searched; None where the localiser found no spine.
        working_hu: (X, Y, Z) int16 of that region on the network's grid, for pictures; on disk, read by slicing.
        working_blobs: (X, Y, Z) int32, the mask on that grid: numbers of its blobs' parts, 0 outside; likewise.
        spacing_mm: of that grid.
        seconds: what was done -> how long it took.
        warnings: what the user should know.
    """

    mask: np.ndarray
    probabilities: np.ndarray | None = None
    region: tuple[slice, slice, slice] | None = None
    working_hu: h5py.Dataset | None = None
    working_blobs: h5py.Dataset | None = None
    spacing_mm: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Take the time of a step."""
        started = time.perf_counter()
        yield
        self.seconds[what] = round(time.perf_counter() - started, 2)


def load_models(
    segmentation_model: Path,
    heatmap_model: Path | None = None,
    device: str = "auto",
    precision: str = "fp32",
    runs: Path = Path("trained_models"),
) -> Models:
    """Load trained networks by checkpoint file, run folder, or name of a run. Raises UserError."""
    from training.compute import find_compute
    from training.trained_model import load_model

    compute = find_compute(device, precision)
    segmenter = load_model(segmentation_model, "segmentation", compute, runs)
    localiser = load_model(heatmap_model, "heatmap", compute, runs) if heatmap_model is not None else None
    return Models(segmenter, localiser)


def segment(scan: Scan | Path | str, models: Models, options: Options | None = None) -> Segmentation:
    """Find the vertebrae of a CT.

    The localiser, where there is one, finds the spine in a coarse view of the scan; of the windows over the whole scan,
    the segmenter looks only at those in whose middle the spine lies. Well inside, it answers as if it had looked at
    all. The scan is read slab by slab and worked on in a temporary file: of all that is as long as the scan, memory
    holds the mask alone.

    Args:
        scan: NIfTI file, DICOM folder, or a scan that ``utils.scans.open_scan`` opened.
        models: of ``load_models``.
        options: see there; the defaults where None.

    Raises:
        UserError: no CT.
    """
    from utils.scratch import Scratch
    from utils.working_grid import WorkingGrid

    options = options or Options()
    scan = _opened(scan)
    # In Fortran's order a slab along K, as scans are read and written, is one piece of memory.
    found = Segmentation(np.zeros(scan.shape, np.uint8, order="F"), warnings=list(scan.warnings))
    if options.probabilities:
        found.probabilities = np.zeros(scan.shape, np.float32, order="F")
    found.spacing_mm = models.segmenter.spacing_mm
    grid = WorkingGrid.isotropic(scan.shape, scan.affine, found.spacing_mm)
    windows = models.segmenter.windows(grid.shape, options.overlap)
    if models.localiser is not None:
        with found.timed("localise"):
            view, spine = locate(scan, models.localiser, options.margin_mm)
            windows = windows.where(lambda middle: spine[grid.box_in(view, middle)].any())
        if not windows.wanted.any():
            found.warnings.append("no spine found by the localiser; --no_localiser searches the whole scan")
            return found
    scratch = Scratch()
    with found.timed("read"):
        windows, box = windows.in_box()
        found.region = grid.source_region(box, margin_mm=2 * found.spacing_mm)  # for smoothing at its edges
        grid = grid.part(box, found.region)
        found.working_hu = scratch.volume("hu", grid.shape, np.int16, HU_AIR)
        for where, part_hu in grid.forward_parts(scan.slabs(found.region), HU_AIR):
            found.working_hu[where] = np.rint(part_hu).astype(np.int16, order="C")  # quicker than HDF5 converts
    with found.timed("segment"):
        classes = _segment_working_grid(models.segmenter, windows, found, options, scratch)
    with found.timed("undo"):
        _undo(grid, classes, models.segmenter.label_values, found)
    return found


def locate(scan: Scan, localiser: TrainedModel, margin_mm: float) -> tuple[WorkingGrid, np.ndarray]:
    """The localiser's view of a scan, and where the spine and a margin around it lie there, (X, Y, Z) bool."""
    from scipy.ndimage import distance_transform_edt

    from metrics.heatmap_metrics import spine_in_heatmap
    from utils.working_grid import WorkingGrid

    view = WorkingGrid.view(scan.shape, scan.affine, localiser.spec.input_shape)
    view_hu = np.rint(view.forward_slabs(scan.slabs(), HU_AIR))
    spine = spine_in_heatmap(localiser.predict(view_hu)[0].numpy())
    if not spine.any():
        return view, spine
    return view, distance_transform_edt(~spine, sampling=view.spacing_mm) <= margin_mm


def _segment_working_grid(
    segmenter: TrainedModel, windows: Windows, found: Segmentation, options: Options, scratch: Scratch
) -> list[h5py.Dataset]:
    """Fill ``found.working_blobs``; returns the probabilities of each class, (X, Y, Z) float32, postprocessed."""
    from utils.boxes import mask_box
    from utils.components import Blobs
    from utils.probabilities import class_indices, of_background
    from utils.scratch import return_freed_memory

    assert found.working_hu is not None
    shape = found.working_hu.shape
    found.working_blobs = scratch.volume("blobs", shape, np.int32)
    classes = [scratch.volume(f"class {k}", shape, np.float32) for k in range(segmenter.spec.out_channels)]
    blobs, slabs = Blobs(), []
    for planes, slab_KXYZ in segmenter.predict_slabs(found.working_hu, windows, options.batch_size, options.tta):
        for volume, slab in zip(classes, slab_KXYZ.numpy(), strict=True):
            volume[..., planes] = slab
        found.working_blobs[..., planes] = blobs.add(class_indices(slab_KXYZ.numpy()) > 0)
        slabs.append(planes)
        return_freed_memory()

    large = blobs.large(**_what_blobs_stay(options.postprocess, found.spacing_mm))
    for planes in slabs:
        numbers = found.working_blobs[..., planes]
        dropped = (numbers > 0) & ~large[numbers]
        if (box := mask_box(dropped)) is not None:
            x, y, z = box.slices
            where = x, y, slice(planes.start + z.start, planes.start + z.stop)
            volumes = [found.working_blobs, *classes]
            for volume, value in zip(volumes, [0, *of_background(len(classes))], strict=True):
                volume[where] = np.where(dropped[box.slices], value, volume[where])
    return classes


def _what_blobs_stay(postprocess: str, spacing_mm: float) -> dict[str, float]:
    """Arguments of ``Blobs.large`` for one of ``POSTPROCESSING``."""
    if postprocess == "blobs":
        return {"least_vox": LEAST_BLOB_MM3 / spacing_mm**3}
    return {"least_share": 1.0} if postprocess == "largest" else {}


def _undo(grid: WorkingGrid, classes: list[h5py.Dataset], label_values: np.ndarray, found: Segmentation) -> None:
    """Bring probabilities back to the scan's grid, slab by slab, and decide there: edges are smooth on fine grids."""
    from utils.probabilities import class_indices, of_foreground
    from utils.scratch import return_freed_memory

    assert found.region is not None
    mask = found.mask[found.region]
    foreground = None if found.probabilities is None else found.probabilities[found.region]
    for slabs in zip(*map(grid.undo_slabs, classes), strict=True):
        first, slab = slabs[0]
        where = (..., slice(first, first + slab.shape[-1]))
        classes_KkJI = np.stack([slab.T for _, slab in slabs])  # turned, as it lies in memory: nothing has to be sorted
        mask[where] = label_values[class_indices(classes_KkJI)].T
        if foreground is not None:
            foreground[where] = of_foreground(classes_KkJI).T
        return_freed_memory()


def _opened(scan: Scan | Path | str) -> Scan:
    from utils.scans import find_scans, open_scan

    if isinstance(scan, str | Path):
        sources = find_scans([str(scan)])
        if len(sources) > 1:
            raise UserError(f"{scan}: holds {len(sources)} scans; give one of them")
        return open_scan(sources[0])
    return scan
