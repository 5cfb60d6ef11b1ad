"""What the command writes: files, scores, training cases, and what it keeps of an earlier run."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

import inference
from metrics.mask_metrics import MaskPair, dice, precision
from utils.files.h5_cases import H5Cases
from verse_utils.errors import UserError

pytestmark = pytest.mark.usefixtures("blank_pictures")  # but in processes of their own


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


def test_json_is_for_machines(infer, scans):
    rows = json.loads(infer([scans], "--json").stdout)
    assert [row["name"] for row in rows] == [path.name.removesuffix(".nii.gz") for path in sorted(scans.iterdir())]
    assert all(row["seconds"] and row["models"]["heatmap"] for row in rows)


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


def test_a_reference_mask_must_be_there_and_fit(infer, scans, tmp_path):
    name = sorted(scans.iterdir())[0].name
    shutil.rmtree(tmp_path / "masks")
    (tmp_path / "masks").mkdir()
    result = infer([scans / name], "--evaluate", tmp_path / "masks")
    assert result.returncode == 1 and "no reference mask" in result.stderr
    far = nib.affines.from_matvec(np.eye(3), [9000, 0, 0])
    nib.save(nib.Nifti1Image(np.zeros((5, 5, 5), np.uint8), far), tmp_path / "masks" / name.replace("_ct", "_mask"))
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
