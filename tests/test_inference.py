"""Inference: files and table of the command, faults."""

import csv
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK

import inference
from metrics.mask_metrics import MaskPair, dice, precision
from prediction import localisation
from prediction.checkpoints import NetworkSpec
from prediction.localisation import Spine
from prediction.names.column import Vertebra
from prediction.whole_scans import check_checkpoints
from training.arguments import parse_arguments
from training.scripts import train_and_test
from utils.files.find_scans import ScanSource, find_scans
from utils.files.h5_cases import H5Cases
from utils.files.scans import open_scan
from utils.tasks import HEATMAP, SEGMENTATION
from verse_utils.centroids import read_centroids
from verse_utils.errors import UserError

pytestmark = pytest.mark.usefixtures("blank_pictures")  # but in processes of their own


@pytest.fixture(scope="module")
def runs(tmp_path_factory, heatmap_h5, segmentation_h5, blank_pictures) -> Path:
    """A localiser and a segmenter that were trained for a moment."""
    folder = tmp_path_factory.mktemp("runs")
    for task, h5, shape in ((HEATMAP, heatmap_h5, "16 16 32"), (SEGMENTATION, segmentation_h5, "16 16 16")):
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
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"results.csv", *(name + end for name in names for end in endings)}
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert list(rows) == names
    for name in names:
        assert name in result.stdout
        summary = json.loads((tmp_path / "out" / f"{name}_summary.json").read_text(encoding="utf-8"))
        ct, mask = nib.load(scans / f"{name}.nii.gz"), nib.load(tmp_path / "out" / f"{name}_vertebrae.nii.gz")
        assert mask.shape == ct.shape and mask.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(mask.affine, ct.affine)
        found = np.asarray(mask.dataobj)
        volume_ml = (found > 0).sum() * abs(np.linalg.det(ct.affine[:3, :3])) / 1000
        assert summary["volume_ml"] == pytest.approx(volume_ml, abs=0.01)
        reference = np.asarray(nib.load(next((tmp_path / "masks").glob(f"{name.removesuffix('_ct')}*"))).dataobj)
        known = (reference > 0) & (reference != 26) & (reference != 27)
        pair = MaskPair(found, known, ct.header.get_zooms())
        assert summary["metrics"]["dice"] == pytest.approx(dice(pair), abs=1e-6)
        assert summary["metrics"]["precision"] == pytest.approx(precision(pair), abs=1e-6)
        assert len(summary["models"]["segmentation"]["sha256"]) == 64
        row = rows[name]
        assert (row["scan"], row["error"]) == (summary["scan"], "")
        assert [float(row[key]) for key in ("volume_ml", "dice")] == [summary["volume_ml"], summary["metrics"]["dice"]]
        assert row["extent_Z_mm"] == (str(summary["extent_mm"]["Z"]) if summary["extent_mm"] else "")


@pytest.mark.parametrize("chosen", [(), ("--segmentation_model", "pretrained", "--heatmap_model", "pretrained")])
def test_nothing_but_a_scan_need_be_given(run_script, phantom_root, tmp_path, chosen):
    scan = sorted(phantom_root.rglob("*_ct.nii.gz"))[0]
    result = run_script("inference.py", "--input", scan, *chosen, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "pretrained: trained on few scans; for research, no clinical tool" in result.stderr
    name = scan.name.removesuffix(".nii.gz")
    summary = json.loads((tmp_path / "results" / f"{name}_summary.json").read_text(encoding="utf-8"))
    assert {task: model["name"] for task, model in summary["models"].items()} == {
        "segmentation": "pretrained",
        "heatmap": "pretrained",
    }


def test_results_are_kept_unless_told_otherwise(infer, scans, tmp_path):
    infer([scans], "--no_localiser")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir() if path.suffix != ".csv"}
    result = infer([scans], "--no_localiser")
    assert result.returncode == 0 and result.stdout.count("kept from before, made by segmentation (segmentation)") == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert infer([scans], "--no_localiser", "--overwrite").stdout.count("kept from before") == 0
    assert all(path.stat().st_mtime_ns > before[path] for path in before)


def test_what_is_kept_is_of_the_same_scan_whole_and_scored(infer, scans, tmp_path):
    """Scores are those of the first run; a scan of the same name elsewhere gets no other's result."""
    common = (["scans"], "--no_localiser", "--postprocess", "none", "--json")
    scored = json.loads(infer(*common, "--evaluate", "masks").stdout)
    for summary in (tmp_path / "out").glob("*_summary.json"):
        content = json.loads(summary.read_text(encoding="utf-8"))
        summary.write_text(json.dumps({key: content[key] for key in content if key != "metrics"}), encoding="utf-8")
    again = json.loads(infer(*common, "--evaluate", "masks").stdout)
    assert [row["metrics"] for row in again] == [row["metrics"] for row in scored] and all(row["kept"] for row in again)
    summary.write_text(json.dumps({"scan": content["scan"]}), encoding="utf-8")  # not all of it
    assert sum("kept" in row for row in json.loads(infer(*common).stdout)) == 1
    scans.rename(tmp_path / "others")
    for more in ((), ("--probabilities",)):  # nor are they overwritten where more is asked for than is there
        result = infer(["others"], "--no_localiser", *more)
        assert result.returncode == 1
        assert result.stderr.count(f" is the result of another scan, {scans}") == 2


@pytest.fixture(scope="module")
def names_run(runs, heatmap_h5) -> str:
    """A localiser that names vertebrae, trained for a moment."""
    common = f"--data_path {heatmap_h5} --model_name names --epochs 2 --workers 0 --output {runs} --labels vertebrae"
    train_and_test(parse_arguments(HEATMAP, [*common.split(), "--model_args", "channels=4,8,16"]))
    return "names"


def test_vertebrae_are_named(infer, scans, tmp_path, names_run, monkeypatch, phantom_root):
    """With the true centres in place of what a network learns in a moment: names, numbers and files."""
    paths = {path.name.removesuffix("_ct.nii.gz"): path for path in sorted(scans.iterdir())}
    centres_mm = {}
    for case, path in paths.items():
        image = nib.load(path)
        listed = read_centroids(next(phantom_root.rglob(f"{case}*ctd.json")))
        centres_mm[image.shape] = listed.to_world(image.affine, image.shape)

    def know(view, *_):
        vertebrae = [Vertebra(label, place, 0.8) for label, place in centres_mm[view.source_shape].items()]
        return Spine(view, np.ones(view.shape, bool), vertebrae)

    monkeypatch.setattr(localisation, "_locate_by_names", know)
    options = ("--labels", "vertebrae", "--postprocess", "none", "--json")
    result = infer([scans], *options, models=("segmentation", names_run))
    assert result.returncode == 0, result.stderr
    out = tmp_path / "out"
    for row in json.loads(result.stdout):
        mask = nib.load(out / f"{row['name']}_vertebrae.nii.gz")
        found = set(np.unique(np.asarray(mask.dataobj))) - {0}
        named = {one["label"]: one for one in row["vertebrae"]}
        assert row["labels"] == "vertebrae" and found <= set(named) and set(centres_mm[mask.shape]) <= set(named)
        listed = read_centroids(out / f"{row['name']}_ctd.json").to_world(mask.affine, mask.shape)
        for label, one in named.items():
            np.testing.assert_allclose(listed[label], one["centre_mm"], atol=0.3)
    assert {"vertebrae.csv", "vertebrae.ctbl", "vertebrae.label"} <= {path.name for path in out.iterdir()}
    kept = infer([scans], *options, models=("segmentation", names_run))
    assert all(row["kept"] for row in json.loads(kept.stdout))
    without = infer([scans], "--postprocess", "none", "--json", models=("segmentation", names_run))
    assert not any("kept" in row or row["vertebrae"] for row in json.loads(without.stdout))
    assert not [*out.glob("*_ctd.json"), *out.glob("vertebrae.csv")]


def test_names_need_a_localiser_that_learnt_them(infer, scans, assert_one_line_error):
    for models, told in ((("segmentation", "heatmap"), "finds the spine alone"), (("segmentation",), "there is none")):
        assert_one_line_error(infer([scans], "--labels", "vertebrae", models=models), told, "--heatmap_model")


def test_results_of_two_runs_are_never_mixed(infer, scans, tmp_path, monkeypatch):
    """Seen: probabilities of another model stayed beside a new mask, and an old summary after a full disk."""
    infer([scans], "--probabilities", "--no_localiser")
    out = tmp_path / "out"
    assert len([*out.glob("*_probabilities.nii.gz")]) == len([*out.glob("*.png")]) == 2
    infer([scans], "--overwrite", "--no_preview")
    assert not [*out.glob("*_probabilities.nii.gz"), *out.glob("*.png")]

    def full(*_):
        raise UserError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(inference, "_save_picture", full)
        assert infer([scans], "--overwrite", "--no_localiser").stderr.count("error: no room") == 2
    rows = json.loads(infer([scans], "--json", "--no_localiser").stdout)
    assert not any("kept" in row for row in rows)


def test_json_is_for_machines(infer, scans):
    rows = json.loads(infer([scans], "--json").stdout)
    assert [row["name"] for row in rows] == [path.name.removesuffix(".nii.gz") for path in sorted(scans.iterdir())]
    assert all(row["seconds"] and row["models"]["heatmap"] for row in rows)


def test_an_ensemble_is_named_in_the_summary(infer, runs, scans, tmp_path, assert_one_line_error):
    models = ("segmentation", runs / "segmentation" / "best.pt")
    result = infer([scans], "--segmentation_model", *models, "--no_localiser")
    assert "2 segmenters, one after the other: 2 times the time of one" in result.stderr
    assert result.returncode == 0, result.stderr
    for path in (tmp_path / "out").glob("*_summary.json"):
        named = json.loads(path.read_text(encoding="utf-8"))["models"]
        assert list(named) == ["segmentation", "segmentation 2"] and named["segmentation"] == named["segmentation 2"]
    assert_one_line_error(
        infer([scans], "--segmentation_model", "segmentation", "heatmap"), "heatmap", "is a localiser"
    )


def test_models_of_other_processes_are_checked_by_their_checkpoints(
    infer, runs, scans, monkeypatch, assert_one_line_error
):
    """No network is built where none is used, and what can't work is refused before a scheduler is asked for."""

    def build(self):
        raise AssertionError("a network was built")

    monkeypatch.setattr(NetworkSpec, "build", build)
    path = runs / "segmentation" / "best.pt"
    job = SimpleNamespace(workers=2)
    inference._tell_of_ensemble(check_checkpoints([path, path], runs / "heatmap" / "best.pt", "classes"), job)
    for arguments, models, told in (
        (["--labels", "vertebrae"], ("segmentation", "heatmap"), "finds the spine alone"),
        (["--labels", "vertebrae"], ("segmentation",), "there is none"),
        (["--segmentation_model", "segmentation", "heatmap"], ("segmentation",), "is a localiser"),
    ):
        for elsewhere in (["--workers", 2], ["--scheduler", "127.0.0.1:9"]):
            assert_one_line_error(infer([scans], *arguments, *elsewhere, models=models), told)


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
    "long name" * 24: (nifti(np.arange(9**3, dtype=np.int16).reshape(9, 9, 9)), "File name too long; rename the scan"),
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
    others = [
        path for path in (tmp_path / "out").iterdir() if not path.name.startswith(tuple(g.name[:10] for g in good))
    ]
    assert [path.name for path in others] == ["results.csv"]
    with others[0].open(encoding="utf-8") as file:
        assert [bool(row["error"]) for row in csv.DictReader(file)] == [False, *[True] * len(BAD_SCANS), False]


@pytest.mark.parametrize(
    ("arguments", "models", "words"),
    [
        ((), ("heatmap",), "is a localiser (--heatmap_model), not a segmenter"),
        ((), ("segmentation", "segmentation"), "not a localiser"),
        ((), ("nothing",), "no such checkpoint"),
        (("--overlap", 1), ("segmentation",), "--overlap"),
        (("--margin_mm", "nan"), ("segmentation",), "--margin_mm"),
        (("--output", "/dev/null/out"), ("segmentation",), "--output /dev/null/out: can't be written"),
        (("--evaluate", "nowhere"), ("segmentation",), "no such folder of masks"),
        (("--output", ""), ("segmentation",), "--output: '' names no file or folder"),
        (("--device", "tpu"), ("segmentation",), "--device tpu"),
    ],
)
def test_a_wrong_call_is_one_line(infer, scans, tmp_path, assert_one_line_error, arguments, models, words):
    assert_one_line_error(infer([scans], *arguments, models=models), words)
    assert not (tmp_path / "out").exists()


def test_a_missing_scan_is_a_wrong_call(infer, assert_one_line_error):
    assert_one_line_error(infer(["nowhere.nii"]), "nowhere.nii")


def huge_header() -> nib.Nifti1Header:
    header = nib.Nifti1Header()
    header.set_data_shape((1000, 1000, 1000))
    header.set_data_dtype(np.int16)
    header.set_sform(np.eye(4), code=1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    return header


def test_a_header_that_claims_what_is_not_there_is_refused_and_the_others_go_on(infer, scans, tmp_path):
    (tmp_path / "huge.nii").write_bytes(huge_header().binaryblock + bytes(4) + bytes(1000))
    (tmp_path / "odd.nii.gz").write_bytes(b"no gzip")
    result = infer(["huge.nii", "odd.nii.gz", next(scans.iterdir())], models=("segmentation",))
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "huge.nii: voxels can't be read (its header claims 2000000352 bytes" in result.stderr
    assert "odd.nii.gz: can't be read as an image" in result.stderr
    assert len(list(tmp_path.rglob("*_vertebrae.nii.gz"))) == 1


def test_a_huge_scan_is_told_beforehand(tmp_path, capsys):
    path = tmp_path / "huge.nii"
    path.write_bytes(huge_header().binaryblock + bytes(4))
    os.truncate(path, 352 + 2 * 1000**3)  # takes no disk until it is written
    source = ScanSource(path, "huge")
    for channels, words in {
        1: "about 5 GB of memory and up to 10 GB in",
        26: "80 GB of memory and up to 110 GB",
    }.items():
        inference._warn_of_memory(open_scan(source), source, SimpleNamespace(heatmap_model=None), channels)
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda hu: hu + 1024, "not HU"),
        (lambda hu: (hu - hu.min()) / np.ptp(hu.astype(float)), "not HU"),
        (lambda hu: hu, "neither sform nor qform"),
    ],
)
def test_a_scan_that_is_no_ct_as_it_should_be_is_warned_of(infer, scans, tmp_path, change, words):
    image = nib.load(next(scans.iterdir()))
    odd = nib.Nifti1Image(change(np.asarray(image.dataobj)), None if "sform" in words else image.affine)
    if "sform" in words:
        odd.header.set_sform(None, code=0)
    nib.save(odd, tmp_path / "odd.nii.gz")
    result = infer(["odd.nii.gz"], "--json", models=("segmentation",))
    assert result.returncode == 0, result.stderr
    (row,) = json.loads(result.stdout)
    assert [words in line for line in row["warnings"]].count(True) == 1


def as_dicom(path, folder, series: str, step_mm=(0, 0, 0), **tags):
    """A NIfTI scan as a folder of axial DICOM slices, each moved by a step (LPS) more than the one before."""
    volume = SimpleITK.DICOMOrient(SimpleITK.ReadImage(path), "LPS")
    writer = SimpleITK.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.reshape(volume.GetDirection(), (3, 3)).T[:2].ravel()
    for k in range(volume.GetDepth()):
        image = volume[:, :, k]
        written = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{series}.{k + 1}",
            "0020|000e": series,
            "0020|000d": "1.2",
            "0020|0052": "1.2.9",
            "0020|0032": "\\".join(map(str, volume.TransformIndexToPhysicalPoint((0, 0, k)) + k * np.array(step_mm))),
            "0020|0037": "\\".join(map(str, rows)),
            "0028|1052": "-1024",
            "0028|1053": "1",
            "0028|1054": "HU",
        }
        for tag, value in (written | tags).items():
            image.SetMetaData(tag.replace("_", "|"), value)
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


def test_a_tilted_gantry_gives_a_mask_with_right_angles_and_one_on_the_slices(infer, scans, tmp_path):
    as_dicom(sorted(scans.iterdir())[0], tmp_path / "tilted", "1.2.3", step_mm=(0, 1.0, 0))
    result = infer([tmp_path / "tilted"], "--no_localiser", "--postprocess", "none", "--probabilities")
    assert result.returncode == 0, result.stderr
    (scan,) = find_scans([str(tmp_path / "tilted")])
    scan = open_scan(scan)
    upright, on_slices = (nib.load(tmp_path / "out" / f"tilted_vertebrae{end}.nii.gz") for end in ("", "_slices"))
    assert on_slices.shape == scan.shape and upright.shape == scan.tilt.shape != scan.shape
    np.testing.assert_array_equal(scan.tilt.undo(np.asarray(upright.dataobj)), np.asarray(on_slices.dataobj))

    nifti = sorted(scans.iterdir())[0]
    options = ("--no_localiser", "--postprocess", "none", "--probabilities", "--dicom_seg")
    result = infer([tmp_path / "tilted", nifti], *options)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.returncode == 1 and len(errors) == 1 and f"{nifti}: is no DICOM series" in errors[0]
    frames = pydicom.dcmread(tmp_path / "out" / "tilted_vertebrae_seg.dcm").pixel_array  # what was kept lacked it
    assert frames.shape[1:] == on_slices.shape[1::-1] and frames.sum() == np.asarray(on_slices.dataobj).sum()
    assert SimpleITK.ReadImage(tmp_path / "out" / "tilted_vertebrae.nii.gz").GetSize() == upright.shape
    summary = json.loads((tmp_path / "out" / "tilted_summary.json").read_text(encoding="utf-8"))
    assert summary["shape"] == list(scan.shape) and "gantry tilted" in summary["warnings"][0]
    probabilities = np.asarray(nib.load(tmp_path / "out" / "tilted_probabilities.nii.gz").dataobj)
    np.testing.assert_array_equal(probabilities > 0.5, np.asarray(upright.dataobj) > 0)


def test_inputs_that_are_no_scans_cost_no_other(infer, scans, tmp_path):
    """Three good ones among seven bad ones of as many kinds: each bad one is named by a line."""
    first, second = sorted(scans.iterdir())
    as_dicom(first, tmp_path / "in" / "good" / "study" / "series", "1.2.3")
    as_dicom(first, tmp_path / "in" / "pet", "1.2.4", **{"0008|0060": "PT", "0020_000d": "1.9"})
    as_dicom(first, tmp_path / "in" / "no_unit", "1.2.5", **{"0028|1054": "OD", "0020_000d": "1.8"})
    (tmp_path / "in" / "broken").mkdir()
    (tmp_path / "in" / "broken" / "a.dcm").write_bytes(b"no slice")
    (tmp_path / "bad.zip").write_bytes(b"no archive")
    (tmp_path / "cut.nii.gz").write_bytes(second.read_bytes()[:3000])
    (tmp_path / "empty").mkdir()
    bad = [tmp_path / name for name in ("bad.zip", "cut.nii.gz", "empty", "absent")]
    result = infer([*bad, tmp_path / "in", scans], "--no_localiser", "--postprocess", "none", "--json")
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    for name in ("bad.zip", "cut.nii.gz", "empty", "absent", "in/pet", "in/no_unit", "in/broken"):
        assert sum(f"{tmp_path / name}" in line for line in lines) == 1, name
    assert len(lines) == 7
    rows = json.loads(result.stdout)
    assert [row["name"] for row in rows if "error" not in row] == [
        "series",
        *(path.name[:-7] for path in (first, second)),
    ]
    assert len(list((tmp_path / "out").glob("*_vertebrae.nii.gz"))) == 3


def test_scans_and_their_masks_become_training_cases(infer, run_script, scans, tmp_path, phantom_root):
    """Also of a result that is kept; masks that were corrected stay, and preprocessing reads the table."""
    common = ([scans], "--no_localiser", "--postprocess", "none", "--no_preview", "--json")
    assert all("training_case" not in row for row in json.loads(infer(*common).stdout))
    rows = json.loads(infer(*common, "--as_dataset", "own").stdout)
    assert all(row["kept"] for row in rows)
    for row, reference in zip(rows, sorted((tmp_path / "masks").iterdir()), strict=True):
        (mask,) = (tmp_path / "own").rglob(f"{row['training_case']}_seg-vert_msk.nii.gz")
        assert mask.read_bytes() == (tmp_path / "out" / f"{row['name']}_vertebrae.nii.gz").read_bytes()
        image = nib.load(reference)
        nib.save(nib.Nifti1Image((np.asarray(image.dataobj) > 0).astype(np.uint8), image.affine), mask)
    corrected = {path: path.read_bytes() for path in (tmp_path / "own").rglob("*_msk.nii.gz")}
    for row in json.loads(infer(*common, "--as_dataset", "own").stdout):
        assert [line for line in row["warnings"] if "stays, though it differs" in line]
    assert {path: path.read_bytes() for path in corrected} == corrected
    paths = "--data_path", phantom_root, "own/cases.csv"
    result = run_script(
        "preprocessing.py", *paths, "--task", "heatmap", "--input_shape", 16, 16, 32, "--workers", 1, cwd=tmp_path
    )
    # One of the two is a scan of the test split, too.
    assert "left out: cases_sub-phantom300 (training): the same scan as sub-phantom300 (test)" in result.stderr
    (h5,) = (tmp_path / "preprocessed").glob("*.h5")
    assert result.returncode == 1 and len(H5Cases(h5).case_ids("training")) == 3


def test_a_killed_worker_costs_its_own_scan(infer, scans, tmp_path, monkeypatch):
    """What the command makes of it; processes that are really killed are in ``tests/utils/test_pool.py``."""

    def first_is_killed(work, items, workers, scheduler, killed):
        assert workers == 2
        yield killed(items[0], "a worker process was killed")
        yield from map(work, items[1:])

    monkeypatch.setattr("utils.pool.run_all", first_is_killed)
    first, second = sorted(scans.iterdir())
    result = infer([scans], "--no_localiser", "--workers", 2, "--no_preview")
    assert not list((tmp_path / "out").glob("*.png"))
    assert result.returncode == 1 and result.stderr.count(f"error: {first}: a worker process was killed") == 1
    assert [path.name for path in (tmp_path / "out").glob("*.nii.gz")] == [f"{second.name[:-7]}_vertebrae.nii.gz"]


def test_a_reference_mask_must_be_there_and_fit(infer, scans, tmp_path):
    name = sorted(scans.iterdir())[0].name
    shutil.rmtree(tmp_path / "masks")
    (tmp_path / "masks").mkdir()
    result = infer([scans / name], "--evaluate", tmp_path / "masks")
    assert result.returncode == 1 and "no reference mask" in result.stderr
    far = nib.affines.from_matvec(np.eye(3), [9000, 0, 0])
    nifti(np.zeros((5, 5, 5), np.uint8), far)(tmp_path / "masks" / name.replace("_ct", "_mask"))
    result = infer([scans / name], "--evaluate", tmp_path / "masks")
    assert result.returncode == 1 and "shares no space with the reference mask" in result.stderr


def test_a_reference_mask_on_another_grid_is_scored_as_by_the_command_for_masks(infer, run_script, scans, tmp_path):
    """Turned, and cut to every other voxel: as by ``metrics.evaluate --resample``."""
    ct = sorted(scans.iterdir())[0]
    path = tmp_path / "masks" / ct.name.replace("_ct", "_seg-vert_msk")
    image = nib.load(path)
    turned = nib.as_closest_canonical(
        nib.Nifti1Image(np.asarray(image.dataobj).transpose(2, 0, 1), image.affine[:, [2, 0, 1, 3]])
    )
    nib.save(turned.slicer[::2, ::2, :], path)
    result = infer([ct], "--evaluate", tmp_path / "masks", "--no_localiser", "--postprocess", "none", "--json")
    assert result.returncode == 0, result.stderr
    (row,) = json.loads(result.stdout)
    for other in (tmp_path / "masks").iterdir():
        if other != path:
            other.unlink()
    scored = run_script("metrics/evaluate.py", "out", "masks", "--resample", "--json", cwd=tmp_path)
    (case,) = json.loads(scored.stdout)["cases"]
    assert row["metrics"] == {key: pytest.approx(case[key]) for key in row["metrics"]}


def test_each_checkpoint_is_read_once(infer, scans, monkeypatch):
    """One read serves the check before the work, the hash in the summary, and the network."""
    reads = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path.name) or read_bytes(path))
    result = infer([scans])
    assert result.returncode == 0, result.stderr
    assert reads.count("best.pt") == 2  # the localiser's and the segmenter's
