"""Trained models on whole scans: find the spine, segment it window by window, bring the mask to the scan's own grid.

``segment`` is the whole way and reads from top to bottom.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from prediction.checkpoints import load_checkpoint_of
from prediction.device import find_device
from prediction.localisation import locate_spine
from prediction.names.naming import NamedVertebra, name_mask
from prediction.names.single_volumes import predict_single_volumes
from prediction.options import Options
from prediction.predicted_volumes import predict_volumes
from prediction.trained_model import ModelInput, TrainedModel, load_model, weight_bytes
from prediction.working_image import bring_to_scan, empty_volume, read_working_image
from utils.files.find_scans import find_scans
from utils.files.run_folder import RUNS_FOLDER
from utils.files.scans import Scan, open_scan
from utils.files.scratch import Scratch
from utils.files.straight_scan import StraightScan, straight_scan
from utils.geometry.straightening import Straightening
from utils.tasks import HEATMAP, SEGMENTATION
from verse_utils.errors import UserError
from verse_utils.labels import LABEL_SCHEMES, LabelScheme

if TYPE_CHECKING:
    import h5py


class Models(NamedTuple):
    """The segmenter, and the localiser that finds the spine for it; without one the whole scan is searched.

    Of several segmenters, an ensemble, the probabilities are averaged.
    """

    segmenters: tuple[TrainedModel, ...]
    localiser: TrainedModel | None = None

    @property
    def segmenter(self) -> TrainedModel:
        """The first one, for what all of them share: the grid, the windows, the scaling and the labels."""
        return self.segmenters[0]

    def described(self) -> dict[str, dict[str, str]]:
        """Name, network and hash of each by its task; those of an ensemble, after the first, by their numbers too."""
        named = {f"{one.task.name} {number}": one for number, one in enumerate(self.segmenters, 1)}
        named = {name.removesuffix(" 1"): one for name, one in named.items()}
        if self.localiser is not None:
            named[self.localiser.task.name] = self.localiser
        return {
            name: {"name": model.name, "network": str(model.spec), "sha256": model.sha256}
            for name, model in named.items()
        }

    @property
    def scheme(self) -> LabelScheme:
        """What a mask tells apart."""
        return LABEL_SCHEMES["vertebrae"] if self.segmenter.finds_single_vertebrae else self.segmenter.scheme

    def check_labels(self, labels: str) -> None:
        """Raise UserError unless these models give a mask with ``Options.labels``."""
        of = [(one.name, one.scheme.name) for one in (self.segmenter, self.localiser) if one is not None]
        _check_labels(labels, *of)


@dataclass(frozen=True)
class Segmentation:
    """The result of a scan.

    Attributes:
        mask: (I, J, K) uint8 on the scan's own grid; its values are those of the segmenter's ``LabelScheme``.
        region: stored voxels that were searched.
        working_hu: (X, Y, Z) int16 of that region on the network's grid, for pictures; on disk, read by slicing.
        working_mask: (X, Y, Z), the mask on that grid: 0 outside; where vertebrae were named their labels, uint8, else
            numbers of parts of its connected components, int32; on disk, too.
        spacing_mm: of that grid.
        components: volume, centre and confidence of each connected component, from above: see ``describe_components``.
        probabilities: (I, J, K) float32 in [0, 1] of foreground; None unless asked for.
        seconds: step -> how long it took.
        warnings: what the user should know.
        vertebrae: from head to foot, where they were named.
    """

    mask: np.ndarray
    region: tuple[slice, slice, slice]
    working_hu: h5py.Dataset
    working_mask: h5py.Dataset
    spacing_mm: float
    components: list[dict[str, Any]]
    probabilities: np.ndarray | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    vertebrae: list[NamedVertebra] = field(default_factory=list)

    def on_slices(self, straightening: Straightening) -> Segmentation:
        """The same on the slices of a tilted gantry, instead of the grid with right angles."""
        return replace(
            self,
            mask=straightening.undo(self.mask),
            probabilities=None if self.probabilities is None else straightening.undo(self.probabilities),
            region=straightening.source_region(self.region),
        )


def check_checkpoints(segmenters: Sequence[Path], localiser: Path | None, labels: str) -> list[int]:
    """See that ``load_models`` and ``segment`` can use models that other processes will load; builds no network.

    Args:
        segmenters, localiser: checkpoint files.
        labels: of ``Options``.

    Returns:
        Memory that the weights of each segmenter take, in bytes.

    Raises:
        UserError: no checkpoint of the task, segmenters that can't be averaged, or models that don't give these labels.
    """
    inputs, sizes, trained_for = [], [], []
    for path in segmenters:
        content = load_checkpoint_of(SEGMENTATION, path)
        inputs.append(ModelInput.of(content))
        sizes.append(weight_bytes(content["weights"]))
        trained_for.append((content["settings"]["model_name"], inputs[-1].labels))
        inputs[0].check_alike(inputs[-1], segmenters[0], path)
    localisers = []
    if localiser is not None:
        content = load_checkpoint_of(HEATMAP, localiser)
        localisers.append((content["settings"]["model_name"], ModelInput.of(content).labels))
    _check_labels(labels, trained_for[0], *localisers)
    return sizes


def _check_labels(labels: str, segmenter: tuple[str, str], localiser: tuple[str, str] | None = None) -> None:
    """Raise UserError unless models, given by their names and their labels, give a mask with ``Options.labels``."""
    is_single = segmenter[1] == "single"
    if labels != "vertebrae":
        if is_single:
            raise UserError(f"{segmenter[0]} finds single vertebrae, which the localiser names; add --labels vertebrae")
        return
    if not is_single:
        remedy = "give a --segmentation_model that was trained with --labels single"
        raise UserError(f"--labels vertebrae: {segmenter[0]} can't find vertebrae one by one; {remedy}")
    if localiser is None or localiser[1] != "vertebrae":
        which = "there is none" if localiser is None else f"{localiser[0]} finds the spine alone"
        remedy = "give a --heatmap_model that was trained with --labels vertebrae"
        raise UserError(f"--labels vertebrae: the localiser names them, but {which}; {remedy}")


def load_models(
    segmentation_model: Path | Sequence[Path],
    heatmap_model: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    runs: Path = RUNS_FOLDER,
) -> Models:
    """Load trained networks by checkpoint file, run folder, or name of a run.

    With several segmenters, each network is on the device only while it is used.

    Args:
        segmentation_model: the segmenter; several are an ensemble.
        heatmap_model: the localiser, if there is one.
        device: "auto" for a GPU where there is one, or a device's name in torch.
        precision: "auto" for the fastest that the device computes natively, or "fp32", "bf16", "fp16".
        runs: folder of the runs, for names.

    Raises:
        UserError: no checkpoint of the task, segmenters that can't be averaged, or a device or precision that can't be
            used.
    """
    found_device = find_device(device, precision)
    paths = [segmentation_model] if isinstance(segmentation_model, Path | str) else segmentation_model
    several = len(paths) > 1
    segmenters = tuple(load_model(path, SEGMENTATION, found_device, runs, several) for path in paths)
    for path, other in zip(paths, segmenters, strict=True):
        segmenters[0].input.check_alike(other.input, paths[0], path)
    localiser = None if heatmap_model is None else load_model(heatmap_model, HEATMAP, found_device, runs, several)
    return Models(segmenters, localiser)


def segment(scan: Scan | Path | str, models: Models, options: Options = Options()) -> Segmentation:  # noqa: B008 frozen
    """Segment the vertebrae of a CT.

    The slices of a tilted gantry are shifted to right angles first; the mask lies on the slices as they are.

    The localiser, if there is one, finds the spine in a coarse view of the whole scan. Of the windows over the scan,
    the segmenter sees only those in whose middle the spine lies; well inside them, the result is the same as if it had
    seen all. The scan is read slab by slab and worked on in a temporary file: of all that grows with the scan's length,
    only the result is in memory.

    Args:
        scan: NIfTI file, DICOM folder, or a scan that ``utils.files.scans.open_scan`` opened.
        models: of ``load_models``.
        options: see there.

    Raises:
        UserError: no CT.
    """
    models.check_labels(options.labels)
    scan = _opened(scan)
    straight = straight_scan(scan)
    found = _segment_straight(straight, models, options)
    found.warnings[:0] = scan.warnings
    return found.on_slices(straight.straightening) if isinstance(straight, StraightScan) else found


def _segment_straight(scan: Scan | StraightScan, models: Models, options: Options) -> Segmentation:
    """``segment`` of a scan whose axes meet at right angles."""
    clock, scratch, spine = _Clock(), Scratch(), None
    warnings: list[str] = []
    vertebrae: list[NamedVertebra] = []
    is_named = options.labels == "vertebrae"
    mask = empty_volume(scan.shape, np.uint8)
    probabilities = empty_volume(scan.shape, np.float32) if options.probabilities else None
    if models.localiser is not None:
        with clock("localise"):
            spine = locate_spine(scan, models.localiser, options.margin_mm)
        if spine.doubt:
            warnings.append(f"{spine.doubt}; {'check the names' if is_named else 'the whole scan was searched'}")
    with clock("read"):
        image = read_working_image(scan, models.segmenter, spine, options, scratch)
    with clock("segment"):
        if is_named and spine is not None:
            volumes = predict_single_volumes(models.segmenters, image, spine, options, scratch)
        else:
            volumes = predict_volumes(models.segmenters, image, options, scratch)
    if not volumes.described:
        warnings.append("no vertebra found: the mask is empty")
    with clock("undo"):
        bring_to_scan(volumes.probabilities, image, models.scheme.mask_values, mask, probabilities)
    if volumes.labels is not None:
        with clock("name"):
            vertebrae, told = name_mask(mask, image, volumes)
            warnings.extend(told)
    return Segmentation(
        mask=mask,
        region=image.region,
        working_hu=image.hu,
        working_mask=volumes.components if volumes.labels is None else volumes.labels,
        spacing_mm=models.segmenter.spacing_mm,
        components=volumes.described,
        probabilities=probabilities,
        seconds=clock.seconds,
        warnings=warnings,
        vertebrae=vertebrae,
    )


def _opened(scan: Scan | Path | str) -> Scan:
    if isinstance(scan, str | Path):
        sources = find_scans([str(scan)])
        if len(sources) > 1:
            raise UserError(f"{scan}: holds {len(sources)} scans; give one of them")
        return open_scan(sources[0])
    return scan


class _Clock:
    """Takes the time of steps, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[step] = round(time.perf_counter() - started, 2)
