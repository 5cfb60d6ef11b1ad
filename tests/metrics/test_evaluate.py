import csv
import json

import nibabel as nib
import numpy as np
import pytest

from metrics.evaluation import without_ends
from metrics.mask_metrics import measure_masks
from utils.intervals import mean_interval

# Stored PIR: the long axis is the second, and runs downward.
AFFINE = np.array([[0.0, 0, -2, 0], [-1, 0, 0, 0], [0, -1.5, 0, 0], [0, 0, 0, 1]])
SPACING = (1.0, 1.5, 2.0)
SHAPE = (20, 60, 12)


def column(shift=0, labels=(19, 20, 21)):
    mask = np.zeros(SHAPE, np.uint8)
    for place, label in enumerate(labels):
        mask[5 + shift : 15 + shift, 5 + 18 * place : 19 + 18 * place, 3:9] = label
    return mask


def save(mask, path, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(mask, affine), path)


@pytest.fixture
def masks(tmp_path):
    """Two cases: a prediction that is off by a voxel, named as inference does, and a perfect one."""
    for case in ("sub-a", "sub-b"):
        save(column(), tmp_path / "true" / "derivatives" / case / f"{case}_seg-vert_msk.nii.gz")
    save(column(1), tmp_path / "found" / "sub-a_ct_vertebrae.nii.gz")
    save(column(), tmp_path / "found" / "sub-b.nii.gz")
    save(column().astype(np.float32) / 30, tmp_path / "found" / "sub-a_ct_probabilities.nii.gz")
    return tmp_path


@pytest.fixture
def evaluate(run_script, masks):
    return lambda *options: run_script("metrics/evaluate.py", "found", "true", *options, cwd=masks)


def test_the_command_leaves_table_csv_and_json(evaluate, masks):
    result = evaluate("--output", "scores")
    assert result.returncode == 0, result.stderr
    content = json.loads((masks / "scores" / "evaluation.json").read_text(encoding="utf-8"))
    expected = measure_masks(column(1) > 0, column() > 0, SPACING)
    assert [row["case"] for row in content["cases"]] == ["sub-a", "sub-b"]
    for name, value in expected.items():
        assert content["cases"][0][name] == pytest.approx(value)
    assert content["summary"]["dice"]["mean"] == pytest.approx((expected["dice"] + 1) / 2)
    assert content["summary"]["dice"]["ci95"] == list(mean_interval([expected["dice"], 1]))
    assert content["failed"] == [] and content["settings"]["trim_ends_mm"] == 0
    assert content["vertebrae"]["found"] == {"value": 1, "ci95": [1, 1], "count": 6, "over": "vertebrae", "unit": "1"}
    assert content["vertebrae"]["merged"]["value"] == content["vertebrae"]["false_components"]["value"] == 0
    with (masks / "scores" / "evaluation.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["dice"]) for row in rows] == [pytest.approx(expected["dice"]), 1]
    assert rows[0]["vertebrae"] == "3"
    table = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()[2:]}
    assert float(table["dice"][0]) == pytest.approx((expected["dice"] + 1) / 2, abs=1e-3)
    assert table["found"] == ["1.000", "1.000", "to", "1.000", "over", "6", "vertebrae"]
    assert "ends of the field of view included" in result.stdout


def test_json_in_place_of_the_table(evaluate):
    content = json.loads(evaluate("--json").stdout)
    assert set(content) == {"summary", "vertebrae", "cases", "failed", "settings"}


def test_vertebrae_by_name(evaluate, masks):
    save(column(labels=(19, 21, 20)), masks / "found" / "sub-b.nii.gz")  # L1 and L2 swapped
    result = evaluate("--labels", "vertebrae", "--json")
    content = json.loads(result.stdout)
    of_a = measure_masks(column(1) == 19, column() == 19, SPACING)["dice"]
    assert content["summary"]["dice_L1"]["mean"] == pytest.approx(of_a / 2)
    assert content["summary"]["dice_T12"]["mean"] == pytest.approx((of_a + 1) / 2)
    vertebrae = content["vertebrae"]
    assert vertebrae["vertebra_dice"]["value"] == pytest.approx((3 * of_a + 1) / 6)
    assert vertebrae["identification_rate"]["value"] == pytest.approx(4 / 6)
    assert vertebrae["localisation_error_mm"]["value"] == pytest.approx((3 * 1 + 2 * 27) / 6)


def test_trimmed_ends_are_left_out_of_both_masks(evaluate, masks):
    """What is cut is along the body, whatever the stored axes: here 9 mm are six slices of the second."""
    wrong_at_the_end = column()
    wrong_at_the_end[:, :5] = 1
    save(wrong_at_the_end, masks / "found" / "sub-b.nii.gz")
    assert json.loads(evaluate("--json").stdout)["cases"][1]["dice"] < 0.9
    result = evaluate("--trim_ends_mm", 9)
    assert "9 mm left out at the upper and lower end" in result.stdout
    content = json.loads(evaluate("--trim_ends_mm", 9, "--json").stdout)
    assert content["cases"][1]["dice"] == 1
    kept = (slice(None), slice(6, -6))
    expected = measure_masks(column(1)[kept] > 0, column()[kept] > 0, SPACING)
    assert content["cases"][0]["hd95_mm"] == pytest.approx(expected["hd95_mm"])
    assert content["cases"][0]["volume_difference_ml"] == pytest.approx(expected["volume_difference_ml"])


@pytest.mark.parametrize(("trim_mm", "slices"), [(0, 0), (1.4, 1), (1.5, 1), (1.6, 2), (45, 30), (900, 600)])
def test_trims_are_rounded_up_to_whole_slices(trim_mm, slices):
    field = without_ends(SHAPE, AFFINE, trim_mm)
    assert field == (slice(None), slice(slices, max(slices, 60 - slices)), slice(None))


def test_a_binary_true_mask_tells_of_no_vertebrae(evaluate, masks):
    for path in (masks / "true").rglob("*.nii.gz"):
        save((column() > 0).astype(np.uint8), path)
    content = json.loads(evaluate("--json").stdout)
    assert content["vertebrae"] == {} and len(content["cases"]) == 2


def _other_shape(masks):
    save(column()[:, :-1], masks / "found" / "sub-b.nii.gz")


def _other_grid(masks):
    save(column(), masks / "found" / "sub-b.nii.gz", np.diag([1, 1.5, 2, 1]))


def _label_29(masks):
    save(column(labels=(19, 20, 29)), masks / "found" / "sub-b.nii.gz")


def _fractions(masks):
    save(column() / np.float32(40), masks / "found" / "sub-b.nii.gz")


def _no_image(masks):
    (masks / "found" / "sub-b.nii.gz").write_bytes(b"no image")


def _no_true_mask(masks):
    next((masks / "true").rglob("sub-b_seg*")).unlink()


def _no_prediction(masks):
    (masks / "found" / "sub-b.nii.gz").unlink()


def _two_predictions(masks):
    save(column(), masks / "found" / "sub-b_seg.nii.gz")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (_other_shape, ("sub-b.nii.gz", "shape (20, 59, 12)", "true mask", "resample")),
        (_other_grid, ("sub-b.nii.gz", "mm off that of the true mask")),
        (_label_29, ("sub-b.nii.gz", "labels 0 to 29 leave VerSe's 0 to 28")),
        (_fractions, ("sub-b.nii.gz", "not whole numbers")),
        (_no_image, ("sub-b.nii.gz", "can't be read")),
        (_no_true_mask, ("sub-b.nii.gz", "no true mask of sub-b")),
        (_no_prediction, ("sub-b_seg-vert_msk.nii.gz", "no prediction of sub-b")),
        (_two_predictions, ("sub-b.nii.gz", "one of 2 predictions of sub-b")),
    ],
)
def test_a_case_that_fails_is_named_and_the_others_go_on(evaluate, masks, fault, words):
    fault(masks)
    result = evaluate("--json")
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
    assert len(lines) == (2 if fault is _two_predictions else 1) and "Traceback" not in result.stderr
    assert all(word in lines[0] for word in words), lines
    content = json.loads(result.stdout)
    assert [row["case"] for row in content["cases"]] == ["sub-a"] and len(content["failed"]) == len(lines)


def test_a_binary_mask_is_not_scored_by_vertebra(evaluate, masks):
    save((column() > 0).astype(np.uint8), masks / "found" / "sub-b.nii.gz")
    result = evaluate("--labels", "vertebrae")
    assert result.returncode == 1 and "--labels binary" in result.stderr


def test_trimming_everything_is_said_of_each_case(evaluate):
    result = evaluate("--trim_ends_mm", 45)
    assert result.returncode == 1 and result.stderr.count("give less than 45 mm") == 2 and "0 cases" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("found", "nowhere"), ("nowhere", "no such folder")),
        (("found", "found"), ("holds the predictions",)),
        (("empty", "true"), ("empty", "no masks here")),
        (("found", "true", "--trim_ends_mm", "-1"), ("--trim_ends_mm -1",)),
        (("found", "true", "--trim_ends_mm", "nan"), ("--trim_ends_mm nan",)),
        (("found", "true", "--labels", "ribs"), ("ribs",)),
        (("found", "true", "--output", "found/sub-b.nii.gz"), ("is a file",)),
    ],
)
def test_a_wrong_call_is_one_line(run_script, assert_one_line_error, masks, arguments, words):
    (masks / "empty").mkdir()
    assert_one_line_error(run_script("metrics/evaluate.py", *arguments, cwd=masks), *words)
