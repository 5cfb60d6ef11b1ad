"""How fast and in how much memory a case is preprocessed, beside TorchIO's ToCanonical and Resample(1).

    python benchmarks/preprocess_scan.py

The scan is a phantom's body from head to pelvis, 512×512×600 voxels of 0.8×0.8×1 mm, as .nii.gz. It is stored once as
most are, and once as VerSe's worst: the CT with an intercept, which makes nibabel compute in float64, and the mask as
float64. ``SPACING`` scales the voxels: a finer scan has a smaller volume at 1 mm, and more to read. Each row is a
process of its own, the rows alternate, and the best of the repeats counts. Memory is the peak over that of the process
after its imports, in units of the image's int16 volume at 1 mm.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from utils.misc import OneLineParser, command
from verse_utils.cases import Case

SHAPE, SPACING_MM, NOISE_HU = (512, 512, 600), (0.8, 0.8, 1.0), 20.0
KINDS = ("int16, mask uint8", "float64 by its intercept, mask float64")

# Nothing heavy is imported here: what a process holds when it starts another counts as that one's peak memory.


def write_cases(folder: Path, spacing_share: float) -> dict[str, Case]:
    """The body and its mask in both kinds, as .nii.gz; the body is always rendered at full size."""
    import nibabel as nib
    import numpy as np

    from verse_utils.phantom.anatomy import make_anatomy
    from verse_utils.phantom.render import render

    anatomy = make_anatomy(np.random.default_rng(0))
    origins = np.array([pose.origin for pose in anatomy.body_pose.values()])
    centre_mm = (origins.min(axis=0) + origins.max(axis=0)) / 2 + [0, 30, 0]
    spacing_mm = np.multiply(SPACING_MM, spacing_share)
    affine = nib.affines.from_matvec(np.diag(spacing_mm), centre_mm - spacing_mm * (np.array(SHAPE) - 1) / 2)
    image_hu, label = render(anatomy, affine, SHAPE, NOISE_HU)
    cases = {}
    for name, kind in zip(("usual", "float64"), KINDS, strict=True):
        is_usual = kind == KINDS[0]
        image = nib.Nifti1Image(image_hu if is_usual else (image_hu + 1024).astype(np.int16), affine)
        if not is_usual:
            image.header.set_slope_inter(1, -1024)
        paths = folder / f"sub-{name}_ct.nii.gz", folder / f"sub-{name}_seg-vert_msk.nii.gz"
        nib.save(image, paths[0])
        nib.save(nib.Nifti1Image(label.astype(np.uint8 if is_usual else np.float64), affine), paths[1])
        cases[kind] = Case(f"sub-{name}", f"sub-{name}", "training", *paths)
    return cases


def by_torchio(case: Case) -> Callable[[], object]:
    """Read and resample a case with TorchIO."""
    import torchio as tio

    def work() -> object:
        subject = tio.Subject(image=tio.ScalarImage(case.image_path), label=tio.LabelMap(case.mask_path))
        return tio.Compose([tio.ToCanonical(), tio.Resample(1)])(subject)

    return work


def by_project(case: Case) -> Callable[[], object]:
    """Read and resample a case with this project, checked on the way."""
    from preprocessing import resample
    from utils.preprocessing_settings import IsotropicSettings
    from verse_utils.check.findings import CaseReport

    return partial(resample, case, IsotropicSettings(), CaseReport(case.case_id, case.split))


def by_worker(case: Case) -> Callable[[], object]:
    """All that a worker of preprocessing.py does with a case: the picture and the file, too."""
    from preprocessing import preprocess_case
    from utils.preprocessing_settings import IsotropicSettings

    h5_path = case.image_path.parent / "a.h5"
    h5_path.with_suffix(".cases").joinpath(case.split, f"{case.case_id}.h5").unlink(missing_ok=True)
    return partial(preprocess_case, case, settings=IsotropicSettings(), h5_path=h5_path, pictures=True)


def by_check(case: Case) -> Callable[[], object]:
    """What ``verse_utils.check`` does with a case."""
    from verse_utils.check.cases import check_case

    return partial(check_case, case)


# What the ways import when they begin.
IMPORTS = (
    "SimpleITK",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "utils.files.h5_cases",
    "utils.files.scans",
    "utils.visualize",
    "verse_utils.check.cases",
)
WAYS = {
    "TorchIO: read, resample": by_torchio,
    "this project: check alone": by_check,
    "this project: read, check, resample": by_project,
    "this project: the same, picture and HDF5": by_worker,
}


def measure(way: str, case: Case) -> tuple[float, float]:
    """Seconds and bytes over what the process holds after its imports; to be called once in a process."""
    work = WAYS[way](case)
    for module in IMPORTS:
        import_module(module)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit


def volume_bytes(case: Case) -> int:
    """Bytes of the image at 1 mm as int16."""
    from math import prod

    from utils.preprocessing_settings import IsotropicSettings
    from verse_utils.images import open_image

    image = open_image(case.image_path)
    i, j, k = image.shape
    voxels: int = prod(IsotropicSettings().grid((i, j, k), image.affine).shape)
    return 2 * voxels


def in_its_own_process(function: Callable[..., object], *arguments: object) -> object:
    """Call a function in a process that does nothing else."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


@command
def main() -> None:
    """Print a table for each kind of scan."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spacing", type=float, default=1.0, help="factor on the spacing of 0.8×0.8×1 mm")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each row")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        cases = in_its_own_process(write_cases, Path(folder), arguments.spacing)
        assert isinstance(cases, dict)
        for kind, case in cases.items():
            size = in_its_own_process(volume_bytes, case)
            assert isinstance(size, int)
            print(f"\n{kind}; {size / 1e6:.0f} MB at 1 mm as int16\n", flush=True)
            runs: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
            for _ in range(arguments.repeats):
                for way, results in runs.items():
                    result = in_its_own_process(measure, way, case)
                    assert isinstance(result, tuple)
                    results.append(result)
            print("| way | s | × | peak memory, GB | in volumes |\n|---|---|---|---|---|")
            unit = min(seconds for seconds, _ in runs[next(iter(WAYS))])
            for way, results in runs.items():
                seconds, peak = (min(values) for values in zip(*results, strict=True))
                print(f"| {way} | {seconds:.1f} | {seconds / unit:.2f} | {peak / 1e9:.2f} | {peak / size:.1f} |")


if __name__ == "__main__":
    main()
