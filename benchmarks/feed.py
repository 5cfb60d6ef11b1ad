"""How fast the segmenter is fed with patches from an H5, beside the plain chain of TorchIO, which reads whole scans.

    python benchmarks/feed.py

The scans are phantoms' bodies from head to pelvis at 1 mm, once in the H5 of ``preprocessing.py`` and once as the same
voxels in .nii.gz. TorchIO reads a scan whole, draws as many patches of it as training does, and transforms each: flip,
affine, label remapping, clipping and scaling, anisotropy, blur, gamma and noise by its own classes, as in today's
default augmentation. One process with one thread makes both; they alternate epoch by epoch, and
its own time counts, so that others on the machine change little.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import nibabel as nib
import numpy as np
import torch
import torchio as tio

from data_transforms.segmentation_transforms import patch_augmentation, segmentation_presets
from dataloader import Patches, h5VerSe
from training.settings import TrainingSettings
from utils.constants import AUGMENTATIONS, HU_PER_UNIT, HU_RANGE, OVERHANG_VOX
from utils.files.h5_cases import StoredCase, case_file, write_case
from utils.files.h5_packing import only_writer, pack_cases
from utils.geometry.working_grid import WorkingGrid
from utils.misc import OneLineParser, command
from utils.preprocessing_settings import IsotropicSettings
from utils.tasks import SEGMENTATION
from verse_utils.labels import LABEL_SCHEMES
from verse_utils.phantom.anatomy import make_anatomy
from verse_utils.phantom.render import render

SCAN_SHAPE, NOISE_HU = (360, 300, 500), 20.0
SCHEME = LABEL_SCHEMES["binary"]
PER_VOLUME, FOREGROUND_SHARE = TrainingSettings.patches_per_volume, TrainingSettings.bone_share


def write_scans(folder: Path, count: int) -> Path:
    """Write the bodies as ``ID.nii.gz`` with ``ID_mask.nii.gz``, and as an H5; returns the path of that."""
    h5_path = folder / "feed.h5"
    names = [("training", f"sub-{number}") for number in range(count)]
    for number, (split, name) in enumerate(names):
        anatomy = make_anatomy(np.random.default_rng(number))
        origins = np.array([pose.origin for pose in anatomy.body_pose.values()])
        centre_mm = (origins.min(axis=0) + origins.max(axis=0)) / 2 + [0, 30, 0]
        affine = nib.affines.from_matvec(np.eye(3), centre_mm - (np.array(SCAN_SHAPE) - 1) / 2)
        image_hu, label = render(anatomy, affine, SCAN_SHAPE, NOISE_HU)
        image_hu, label = image_hu.astype(np.int16), label.astype(np.uint8)
        nib.save(nib.Nifti1Image(image_hu, affine), folder / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), folder / f"{name}_mask.nii.gz")
        case = StoredCase(name, name, split, WorkingGrid.isotropic(SCAN_SHAPE, affine, 1.0))
        settings = IsotropicSettings().as_dict()
        write_case(case_file(h5_path, split, name), case, image_hu, label, settings, {"ct": name})
    with only_writer(h5_path):
        pack_cases(h5_path, SEGMENTATION, settings, names)
    return h5_path


def torchio_patches(folder: Path, name: str, edge: int, augmentation: str) -> Iterator[tio.Subject]:
    """Read a scan whole, and yield its patches."""
    subject = tio.Subject(
        image=tio.ScalarImage(folder / f"{name}.nii.gz"), label=tio.LabelMap(folder / f"{name}_mask.nii.gz")
    )
    subject.load()
    subject["bone"] = tio.LabelMap(tensor=(subject.label.data > 0).to(torch.uint8), affine=subject.label.affine)
    air_share = (1 - FOREGROUND_SHARE) / FOREGROUND_SHARE
    sampler = tio.LabelSampler(edge, "bone", {0: air_share, 1: 1})
    in_hu, scaled = patch_augmentation(augmentation)
    transform = tio.Compose(
        [
            *in_hu,
            tio.RemapLabels(SCHEME.class_of, include=["label"]),
            tio.Clamp(*HU_RANGE),
            tio.RescaleIntensity(tuple(hu / HU_PER_UNIT for hu in HU_RANGE), in_min_max=HU_RANGE),
            *scaled,
        ]
    )
    for patch in sampler(subject, PER_VOLUME):
        yield transform(patch)


def decompressed_share(h5_path: Path, shape: np.ndarray, starts: list[np.ndarray]) -> float:
    """Bytes of all chunks that patches touch, for each byte of the patches that lies within the scan."""
    with h5py.File(h5_path, "r") as file:
        dataset = next(iter(file["training"].values()))["image"]
        chunk, size = np.array(dataset.chunks), np.array(dataset.shape)
    touched = used = 0
    for start in starts:
        first, last = np.clip(start, 0, size), np.clip(start + shape, 0, size)
        chunks = np.ceil(last / chunk) - first // chunk
        touched += int(np.prod(chunks * chunk))
        used += int(np.prod(last - first))
    return touched / used


def draw_starts(patches: Patches, h5_path: Path, count: int) -> list[np.ndarray]:
    """Where patches begin, as ``h5VerSe`` draws them."""
    rng = np.random.default_rng(0)
    with h5py.File(h5_path, "r") as file:
        foreground_vox = next(iter(file["training"].values()))["bone_vox"][...]
    return [patches.draw_start(rng, SCAN_SHAPE, foreground_vox) for _ in range(count)]


def seconds_of(patches: Iterator[tio.Subject]) -> float:
    """Seconds of a core in which all of them are made."""
    started = time.process_time()
    for _ in patches:
        pass
    return time.process_time() - started


@command
def main() -> None:
    """Print a table of both ways, then the bytes."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=128, help="voxels of a patch along each axis")
    parser.add_argument("--scans", type=int, default=2, help="phantoms that are read")
    parser.add_argument("--epochs", type=int, default=6, help=f"{PER_VOLUME} patches of each scan in each of them")
    parser.add_argument("--augmentation", default=AUGMENTATIONS[0], choices=AUGMENTATIONS, help="of both ways")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as in a worker of the DataLoader
    shape = (arguments.edge,) * 3
    patches = Patches(shape, PER_VOLUME, FOREGROUND_SHARE, OVERHANG_VOX)
    with TemporaryDirectory() as place:
        folder = Path(place)
        h5_path = write_scans(folder, arguments.scans)
        dataset = h5VerSe(
            h5_path, "training", segmentation_presets(SCHEME, arguments.augmentation).train, patches, SEGMENTATION
        )
        count = len(dataset) * arguments.epochs
        seconds = {"h5VerSe": 0.0, "TorchIO, whole scans from .nii.gz": 0.0}
        own, other = seconds
        for epoch in range(arguments.epochs):
            seconds[own] += seconds_of(dataset[epoch, index] for index in range(len(dataset)))
            for number in range(arguments.scans):
                seconds[other] += seconds_of(
                    torchio_patches(folder, f"sub-{number}", arguments.edge, arguments.augmentation)
                )
        print(f"{count} patches of {'×'.join(map(str, shape))}\n\n| way | ms a patch | × |\n|---|---|---|")
        for way, total in seconds.items():
            print(f"| {way} | {1000 * total / count:.0f} | {total / seconds[own]:.1f} |")
        share = decompressed_share(h5_path, np.array(shape), draw_starts(patches, h5_path, 1000))
        gzip_bytes = sum(path.stat().st_size for path in folder.glob("*.nii.gz"))
        print(f"\nbytes decompressed for a byte used: {share:.2f}")
        print(f"size of the H5 beside that of .nii.gz: {h5_path.stat().st_size / gzip_bytes:.2f}")


if __name__ == "__main__":
    main()
