"""Inference: files and table of the command, faults."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from metrics.mask_metrics import dice


@pytest.fixture(scope="module")
def runs(tmp_path_factory, heatmap_h5, segmentation_h5) -> Path:
    """A localiser and a segmenter that were trained for a moment."""
    from training.arguments import parse_arguments
    from training.scripts import train_and_test

    folder = tmp_path_factory.mktemp("runs")
    for task, h5, shape in (("heatmap", heatmap_h5, "16 16 32"), ("segmentation", segmentation_h5, "16 16 16")):
        common = f"--data_path {h5} --model_name {task} --epochs 2 --workers 0 --output {folder} --input_shape {shape}"
        train_and_test(parse_arguments(task, [*common.split(), "--model_args", "channels=4,8,16"]))
    return folder


@pytest.fixture
def infer(run_script, runs, tmp_path):
    """Run the command on scans: (scans, arguments …) -> how it ended; results in ``out``."""

    def run(scans, *arguments, models=("segmentation", "heatmap"), process=False):
        chosen = ["--segmentation_model", models[0], *(["--heatmap_model", models[1]] if len(models) > 1 else [])]
        command = ["--input", *scans, "--output", "out", *chosen, "--runs", runs, *arguments]
        return run_script("inference.py", *command, cwd=tmp_path, process=process)

    return run


@pytest.fixture
def scans(phantom_root, tmp_path) -> Path:
    """A folder with two of the phantoms' CTs, and one with their masks."""
    for kind, ending in (("scans", "_ct"), ("masks", "_seg-vert_msk")):
        (tmp_path / kind).mkdir()
        for path in sorted(phantom_root.rglob(f"*{ending}.nii.gz"))[:2]:
            shutil.copy(path, tmp_path / kind)
    return tmp_path / "scans"


def test_the_command_leaves_everything_behind(infer, scans, tmp_path):
    result = infer(
        [scans], "--evaluate", tmp_path / "masks", "--probabilities", "--tta", "--no_localiser", process=True
    )
    assert result.returncode == 0, result.stderr
    names = [path.name.removesuffix(".nii.gz") for path in sorted(scans.iterdir())]
    endings = ("_vertebrae.nii.gz", "_probabilities.nii.gz", "_summary.json", ".png")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {name + end for name in names for end in endings}
    for name in names:
        assert name in result.stdout
        summary = json.loads((tmp_path / "out" / f"{name}_summary.json").read_text(encoding="utf-8"))
        ct, mask = nib.load(scans / f"{name}.nii.gz"), nib.load(tmp_path / "out" / f"{name}_vertebrae.nii.gz")
        assert mask.shape == ct.shape and mask.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(mask.affine, ct.affine)
        found = np.asarray(mask.dataobj)
        volume_ml = (found > 0).sum() * abs(np.linalg.det(ct.affine[:3, :3])) / 1000
        assert summary["volume_ml"] == pytest.approx(volume_ml, abs=0.01)
        truth = np.asarray(nib.load(next((tmp_path / "masks").glob(f"{name.removesuffix('_ct')}*"))).dataobj)
        known = (truth > 0) & (truth != 26) & (truth != 27)
        assert summary["metrics"]["dice"] == pytest.approx(dice(found > 0, known, ct.header.get_zooms()), abs=1e-6)
        assert len(summary["models"]["segmentation"]["sha256"]) == 64


def test_results_are_kept_unless_told_otherwise(infer, scans, tmp_path):
    infer([scans], "--no_localiser")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    result = infer([scans], "--no_localiser")
    assert result.returncode == 0 and result.stdout.count("kept from before") == 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    assert infer([scans], "--no_localiser", "--overwrite").stdout.count("kept from before") == 0
    assert all(path.stat().st_mtime_ns > before[path] for path in before)


def test_json_is_for_machines(infer, scans):
    rows = json.loads(infer([scans], "--json").stdout)
    assert [row["name"] for row in rows] == [path.name.removesuffix(".nii.gz") for path in sorted(scans.iterdir())]
    assert all(row["seconds"] and row["models"]["heatmap"] for row in rows)


def test_a_cluster_gives_what_this_process_gives(infer, scans, tmp_path, dask_scheduler):
    infer([scans], "--no_localiser")
    here = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.nii.gz")}
    result = infer([scans], "--no_localiser", "--overwrite", "--scheduler", dask_scheduler)
    assert result.returncode == 0, result.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.nii.gz")} == here


def nifti(array, affine=None):
    return lambda path: nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)


def truncated(path):
    nifti(np.arange(8000, dtype=np.int16).reshape(20, 20, 20))(path)
    path.write_bytes(path.read_bytes()[:4000])


def no_spacing(path):
    nifti(np.zeros((9, 9, 9), np.int16))(path)
    content = bytearray(path.read_bytes())
    content[76:108] = np.zeros(8, np.float32).tobytes()  # pixdim
    content[252:256] = bytes(4)  # qform and sform code
    path.write_bytes(content)


COLOUR = np.zeros((9, 9, 9), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
BAD_SCANS = {
    "no image": (lambda path: path.write_text("hello", encoding="utf-8"), "can't be read"),
    "2D": (nifti(np.zeros((9, 9), np.int16)), "2 axes"),
    "4D": (nifti(np.zeros((9, 9, 9, 3), np.int16)), "4 axes"),
    "colour": (nifti(COLOUR), "greyscale"),
    "empty": (lambda path: path.write_bytes(b""), "can't be read"),
    "constant": (nifti(np.full((9, 9, 9), 40, np.int16)), "constant"),
    "NaN": (nifti(np.full((9, 9, 9), np.nan, np.float32)), "NaN"),
    "truncated": (truncated, "can't be read"),
    "three slices": (nifti(np.arange(243, dtype=np.int16).reshape(9, 9, 3)), "3 slices"),
    "no spacing": (no_spacing, "spacing of zero"),
}


@pytest.mark.parametrize("models", [("segmentation",), ("segmentation", "heatmap")], ids=["whole", "localised"])
def test_bad_scans_are_named_and_the_others_go_on(infer, scans, tmp_path, models):
    paths = {name: tmp_path / f"{name.replace(' ', '_')}.nii" for name in BAD_SCANS}
    for name, (write, _) in BAD_SCANS.items():
        write(paths[name])
    good = sorted(scans.iterdir())
    result = infer([good[0], *paths.values(), good[1]], models=models)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(BAD_SCANS)
    for error, (name, (_, words)) in zip(errors, BAD_SCANS.items(), strict=True):
        assert error.startswith(f"error: {paths[name]}: ") and words in error, error
    expected = {f"{path.name.removesuffix('.nii.gz')}_vertebrae.nii.gz" for path in good}
    assert {path.name for path in (tmp_path / "out").iterdir() if path.name.endswith(".nii.gz")} == expected
    assert all(any(path.name.startswith(g.name[:10]) for g in good) for path in (tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("arguments", "models", "words"),
    [
        ((), ("heatmap",), "is a localiser (--heatmap_model), not a segmenter"),
        ((), ("segmentation", "segmentation"), "not a localiser"),
        ((), ("nothing",), "no such checkpoint"),
        (("--overlap", 1), ("segmentation",), "--overlap"),
        (("--evaluate", "nowhere"), ("segmentation",), "no such folder of masks"),
        (("--device", "tpu"), ("segmentation",), "--device tpu"),
    ],
)
def test_a_wrong_call_is_one_line(infer, scans, tmp_path, assert_one_line_error, arguments, models, words):
    assert_one_line_error(infer([scans], *arguments, models=models), words)
    assert not (tmp_path / "out").exists()


def test_a_missing_scan_is_a_wrong_call(infer, assert_one_line_error):
    assert_one_line_error(infer(["nowhere.nii"]), "nowhere.nii")


def test_a_huge_scan_is_told_beforehand(infer, tmp_path):
    """1000 × 1000 × 1000 voxels that are not there: said, and then refused for what they are."""
    header = nib.Nifti1Header()
    header.set_data_shape((1000, 1000, 1000))
    header.set_data_dtype(np.int16)
    header.set_sform(np.eye(4), code=1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    (tmp_path / "huge.nii").write_bytes(header.binaryblock + bytes(4) + bytes(1000))
    result = infer(["huge.nii"], models=("segmentation",))
    assert result.returncode == 1
    first, second = result.stderr.splitlines()[:2]
    assert "1.0e+09 voxels, about 5 GB of memory and up to 10 GB in" in first and second.startswith("error: ")


def as_dicom(path, folder, series: str):
    """A NIfTI scan as a folder of axial DICOM slices."""
    volume = SimpleITK.DICOMOrient(SimpleITK.ReadImage(path), "LPS")
    writer = SimpleITK.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    folder.mkdir(exist_ok=True)
    rows = np.reshape(volume.GetDirection(), (3, 3)).T[:2].ravel()
    for k in range(volume.GetDepth()):
        image = volume[:, :, k]
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{series}.{k + 1}",
            "0020|000e": series,
            "0020|0032": "\\".join(map(str, volume.TransformIndexToPhysicalPoint((0, 0, k)))),
            "0020|0037": "\\".join(map(str, rows)),
            "0028|1052": "-1024",
            "0028|1053": "1",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{series}_{k:03}.dcm"))
        writer.Execute(image)


def test_dicom_folders_are_segmented_as_nifti_is(infer, scans, tmp_path):
    """One with a second series, which is named; and one that lacks a slice, which is refused."""
    first, second = sorted(scans.iterdir())
    as_dicom(first, tmp_path / "two_series", "1.2.3")
    as_dicom(first, tmp_path / "gap", "1.2.5")
    for slice_path in sorted((tmp_path / "gap").iterdir())[4:5]:
        slice_path.unlink()
    as_dicom(second, tmp_path / "others", "1.2.4")
    for slice_path in sorted((tmp_path / "others").iterdir())[:6]:
        slice_path.rename(tmp_path / "two_series" / slice_path.name)
    result = infer([tmp_path / "two_series", tmp_path / "gap", first], "--no_localiser", "--postprocess", "none")
    assert result.returncode == 1
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert f"{tmp_path / 'gap'}: slice missing between" in error
    summary = json.loads((tmp_path / "out" / "two_series_summary.json").read_text(encoding="utf-8"))
    assert "1 other series left out: 1.2.4 (6 slices)" in summary["warnings"][0] in result.stdout
    of_nifti = json.loads(
        (tmp_path / "out" / f"{first.name.removesuffix('.nii.gz')}_summary.json").read_text(encoding="utf-8")
    )
    assert summary["volume_ml"] == pytest.approx(of_nifti["volume_ml"], rel=0.01)
    dicom, ct = nib.load(tmp_path / "out" / "two_series_vertebrae.nii.gz"), nib.load(first)
    assert sorted(dicom.shape) == sorted(ct.shape) and nib.aff2axcodes(dicom.affine) == ("L", "P", "S")


def test_a_true_mask_must_be_there_and_fit(infer, scans, tmp_path):
    name = sorted(scans.iterdir())[0].name
    shutil.rmtree(tmp_path / "masks")
    (tmp_path / "masks").mkdir()
    result = infer([scans / name], "--evaluate", tmp_path / "masks")
    assert result.returncode == 1 and "no true mask" in result.stderr
    nifti(np.zeros((5, 5, 5), np.uint8))(tmp_path / "masks" / name.replace("_ct", "_mask"))
    result = infer([scans / name], "--evaluate", tmp_path / "masks")
    assert result.returncode == 1 and "shape (5, 5, 5)" in result.stderr
