import csv
import json

import nibabel as nib
import numpy as np
import pytest

from metrics.intervals import mean_interval
from metrics.mask_metrics import MASK_METRICS
from metrics.mask_scores import MaskScores, without_ends

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
        save(column(), tmp_path / "reference" / "derivatives" / case / f"{case}_seg-vert_msk.nii.gz")
    save(column(1), tmp_path / "found" / "sub-a_ct_vertebrae.nii.gz")
    save(column(), tmp_path / "found" / "sub-b.nii.gz")
    save(column().astype(np.float32) / 30, tmp_path / "found" / "sub-a_ct_probabilities.nii.gz")
    return tmp_path


@pytest.fixture
def evaluate(run_script, masks):
    return lambda *options: run_script("metrics/evaluate.py", "found", "reference", *options, cwd=masks)


def test_the_command_leaves_table_csv_and_json(evaluate, masks):
    save((column(1) > 0).astype(np.uint8), masks / "found" / "sub-a_ct_vertebrae.nii.gz")  # no more than a binary mask
    result = evaluate("--output", "scores")
    assert result.returncode == 0, result.stderr
    content = json.loads((masks / "scores" / "evaluation.json").read_text(encoding="utf-8"))
    expected = MASK_METRICS.measure(column(1) > 0, column() > 0, spacing_mm=SPACING)
    assert [row["case"] for row in content["cases"]] == ["sub-a", "sub-b"]
    for name, value in expected.items():
        assert content["cases"][0][name] == pytest.approx(value)
    assert content["summary"]["dice"]["mean"] == pytest.approx((expected["dice"] + 1) / 2)
    assert content["summary"]["dice"]["ci95"] == list(mean_interval([expected["dice"], 1]))
    assert content["failed"] == [] and content["settings"]["trim_ends_mm"] == 0
    assert content["vertebrae"]["found"] == {"value": 1, "ci95": [1, 1], "count": 6, "over": "vertebrae", "unit": "1"}
    none = {"value": 0, "ci95": [0, 0], "unit": "1"}
    assert content["vertebrae"]["merged"] == {**none, "count": 6, "over": "vertebrae"}
    assert content["vertebrae"]["false_components"] == {**none, "count": 2, "over": "cases"}
    with (masks / "scores" / "evaluation.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["dice"]) for row in rows] == [pytest.approx(expected["dice"]), 1]
    assert list(rows[0])[:2] == ["case", "dice"] and rows[0]["vertebrae"] == "3"
    table = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()[2:]}
    assert float(table["dice"][0]) == pytest.approx((expected["dice"] + 1) / 2, abs=1e-3)
    assert table["found"] == ["1.000", "1.000", "to", "1.000", "over", "6", "vertebrae"]
    assert "ends of the field of view included" in result.stdout


def test_json_in_place_of_the_table(evaluate):
    content = json.loads(evaluate("--json").stdout)
    assert set(content) == {"summary", "vertebrae", "cases", "failed", "settings"}


def test_vertebrae_by_name(evaluate, masks):
    save(column(labels=(0, 21, 20)), masks / "found" / "sub-b.nii.gz")  # no T12; L1 and L2 swapped
    result = evaluate("--labels", "vertebrae", "--json")
    content = json.loads(result.stdout)
    of_a = MASK_METRICS.measure(column(1) == 19, column() == 19, spacing_mm=SPACING)["dice"]
    assert content["summary"]["dice_L1"]["mean"] == pytest.approx(of_a / 2)
    assert content["summary"]["dice_T12"]["mean"] == pytest.approx(of_a / 2)
    vertebrae = content["vertebrae"]
    assert vertebrae["vertebra_dice"]["value"] == pytest.approx(3 * of_a / 6)
    assert vertebrae["identification_rate"]["value"] == pytest.approx(3 / 6)
    assert vertebrae["localisation_error_mm"]["value"] == pytest.approx((3 * 1 + 2 * 27) / 5)


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
    expected = MASK_METRICS.measure(column(1)[kept] > 0, column()[kept] > 0, spacing_mm=SPACING)
    assert content["cases"][0]["hd95_mm"] == pytest.approx(expected["hd95_mm"])
    assert content["cases"][0]["volume_difference_ml"] == pytest.approx(expected["volume_difference_ml"])


@pytest.mark.parametrize(("trim_mm", "slices"), [(0, 0), (1.4, 1), (1.5, 1), (1.6, 2), (45, 30), (900, 600)])
def test_trims_are_rounded_up_to_whole_slices(trim_mm, slices):
    field = without_ends(SHAPE, AFFINE, trim_mm)
    assert field == (slice(None), slice(slices, max(slices, 60 - slices)), slice(None))


def test_a_binary_reference_mask_has_no_vertebrae(evaluate, masks):
    for path in (masks / "reference").rglob("*.nii.gz"):
        save((column() > 0).astype(np.uint8), path)
    content = json.loads(evaluate("--json").stdout)
    assert content["vertebrae"] == {} and len(content["cases"]) == 2


def test_a_reference_mask_of_c1_and_c2_has_two(tmp_path):
    save(column(labels=(1, 2)), tmp_path / "neck.nii.gz")
    scores = MaskScores("binary", trim_ends_mm=0)
    scores.add("neck", tmp_path / "neck.nii.gz", tmp_path / "neck.nii.gz")
    assert scores.vertebra_summary()["found"]["count"] == 2


# Other tools' numbers of T12, L1 and L2, and others that they write beside them.
TOTAL = {19: 32, 20: 31, 21: 30}
TOTAL_V1 = {19: 23, 20: 22, 21: 21}


def renumbered(numbers, beside=0):
    """The reference's mask in the numbers of another tool, with another structure beside it."""
    mask = np.zeros(SHAPE, np.uint16)
    for label, number in numbers.items():
        mask[column() == label] = number
    mask[0, 0] = beside
    return mask


SPINEPS = renumbered({19: 19, 20: 20, 21: 21}, beside=60)
SPINEPS[1, :6, 0], SPINEPS[1, 6:9, 0] = 119, 220
OTHERS = {
    "totalsegmentator": renumbered(TOTAL, beside=51),
    "totalsegmentator_v1": renumbered(TOTAL_V1, beside=7),
    "spineps": SPINEPS,
    "verse": renumbered({19: 19, 20: 20, 21: 21}, beside=26),
}


@pytest.mark.parametrize("labels", ["binary", "vertebrae"])
@pytest.mark.parametrize("tool", OTHERS)
def test_masks_of_other_tools_are_scored_by_their_numbers(evaluate, masks, tool, labels):
    save(OTHERS[tool], masks / "found" / "sub-b.nii.gz")
    save(OTHERS[tool].astype(np.float64), masks / "found" / "sub-a_ct_vertebrae.nii.gz")
    result = evaluate("--prediction_labels", tool, "--labels", labels, "--json")
    assert result.returncode == 0, result.stderr
    content = json.loads(result.stdout)
    assert content["settings"]["prediction_labels"] == tool
    name = "dice" if labels == "binary" else "dice_L1"
    assert [row[name] for row in content["cases"]] == [1, 1]


@pytest.mark.parametrize("number", [1, 20, 100, 255])
def test_a_binary_mask_may_hold_any_number(evaluate, masks, number):
    for name in ("sub-a_ct_vertebrae", "sub-b"):
        save((column() > 0) * np.uint8(number), masks / "found" / f"{name}.nii.gz")
    content = json.loads(evaluate("--prediction_labels", "binary", "--json").stdout)
    assert content["summary"]["dice"]["mean"] == 1


@pytest.mark.parametrize(
    ("mask", "words"),
    [  # nothing is said of the numbers
        (renumbered(TOTAL), ("labels 0 to 32 leave VerSe's", "totalsegmentator or totalsegmentator_v1")),
        (renumbered({20: 27, 21: 28}), ("labels 27, 28 fit verse and totalsegmentator", "--prediction_labels")),
        (SPINEPS, ("labels 0 to 220 leave VerSe's", "if they are of spineps")),
        ((column() > 0) * np.uint8(255), ("labels 0 to 255 leave VerSe's", "if they are of binary")),
        (renumbered({19: 3, 20: 250}), ("labels 0 to 250 leave VerSe's", "no table that is known")),
    ],
)
def test_numbers_that_may_be_of_another_tool_are_not_scored_as_verses(evaluate, masks, mask, words):
    if mask.max() == 28:  # L5 and L4 of TotalSegmentator, coccyx and T13 of VerSe
        for path in (masks / "reference").rglob("sub-b*.nii.gz"):
            save(column(labels=(0, 24, 23)), path)
    save(mask, masks / "found" / "sub-b.nii.gz")
    result = evaluate()
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
    assert "sub-b.nii.gz" in line and all(word in line for word in words), line


def test_names_decide_what_binary_masks_leave_open(evaluate, masks):
    """As vertebra or not, VerSe's L1 and TotalSegmentator's (version 1) are the same; by name they are not."""
    save(renumbered(TOTAL_V1), masks / "found" / "sub-b.nii.gz")
    assert json.loads(evaluate("--json").stdout)["cases"][1]["dice"] == 1
    result = evaluate("--labels", "vertebrae")
    assert result.returncode == 1 and "fit verse and totalsegmentator_v1; say which" in result.stderr


@pytest.mark.parametrize(
    ("tool", "mask", "words"),
    [
        ("totalsegmentator", column(), "if they are of verse or totalsegmentator_v1 or spineps"),
        ("verse", renumbered(TOTAL), "if they are of totalsegmentator or totalsegmentator_v1"),
        ("binary", column(), "not of --prediction_labels binary; if they are of verse"),
        ("spineps", renumbered({19: 41}, beside=250), "not of --prediction_labels spineps; they fit no table"),
    ],
)
def test_numbers_that_are_not_what_is_said(evaluate, masks, tool, mask, words):
    save(mask, masks / "found" / "sub-b.nii.gz")
    result = evaluate("--prediction_labels", tool)
    assert result.returncode == 1 and words in result.stderr, result.stderr


def _other_shape(masks):
    save(column()[:, :-1], masks / "found" / "sub-b.nii.gz")


def _other_grid(masks):
    save(column(), masks / "found" / "sub-b.nii.gz", AFFINE + np.diag([0.0, 0, 3], 1))


def _label_29(masks):
    save(column(labels=(19, 20, 29)), masks / "found" / "sub-b.nii.gz")


def _fractions(masks):
    save(column() / np.float32(40), masks / "found" / "sub-b.nii.gz")


def _no_image(masks):
    (masks / "found" / "sub-b.nii.gz").write_bytes(b"no image")


def _no_reference_mask(masks):
    next((masks / "reference").rglob("sub-b_seg*")).unlink()


def _no_prediction(masks):
    (masks / "found" / "sub-b.nii.gz").unlink()


def _two_predictions(masks):
    save(column(), masks / "found" / "sub-b_seg.nii.gz")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (_other_shape, ("sub-b.nii.gz", "shape (20, 59, 12)", "reference mask", "resample")),
        (_other_grid, ("sub-b.nii.gz", "3.0 mm off that of the reference mask", "give --resample")),
        (_label_29, ("sub-b.nii.gz", "labels 0 to 29 leave VerSe's 0 to 28")),
        (_fractions, ("sub-b.nii.gz", "not whole numbers")),
        (_no_image, ("sub-b.nii.gz", "can't be read")),
        (_no_reference_mask, ("sub-b.nii.gz", "no reference mask of sub-b")),
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


def test_the_same_voxels_in_another_order_are_compared(evaluate, masks):
    """As tools store them that turn scans: here to axes S, L, A."""
    mask = nib.load(masks / "found" / "sub-b.nii.gz")
    before = json.loads(evaluate("--json", "--labels", "vertebrae").stdout)
    turn = nib.orientations.ornt_transform(nib.io_orientation(mask.affine), nib.orientations.axcodes2ornt("SLA"))
    nib.save(mask.as_reoriented(turn), masks / "found" / "sub-b.nii.gz")
    result = evaluate("--json", "--labels", "vertebrae")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["cases"] == before["cases"]


def test_another_grid_is_resampled_where_told(evaluate, masks):
    """Of half the spacing, and of a smaller field of view: what lies outside of it isn't found."""
    mask = nib.load(masks / "found" / "sub-b.nii.gz")
    before = json.loads(evaluate("--json").stdout)
    halved = nib.affines.from_matvec(mask.affine[:3, :3] / 2, (mask.affine @ [-0.25, -0.25, -0.25, 1])[:3])
    fine = np.asarray(mask.dataobj).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    save(fine, masks / "found" / "sub-b.nii.gz", halved)
    result = evaluate("--json")
    assert result.returncode == 1 and "give --resample" in result.stderr
    result = evaluate("--json", "--resample")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["cases"] == before["cases"]
    save(fine[:, :, : fine.shape[2] // 2], masks / "found" / "sub-b.nii.gz", halved)
    half = json.loads(evaluate("--json", "--resample").stdout)["cases"]
    assert half[1]["recall"] < 0.8 * before["cases"][1]["recall"]
    save(fine, masks / "found" / "sub-b.nii.gz", nib.affines.from_matvec(np.eye(3), [1e4, 0, 0]))
    result = evaluate("--resample")
    assert result.returncode == 1 and "shares no space" in result.stderr


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
        (("empty", "reference"), ("empty", "no masks here")),
        (("found", "reference", "--trim_ends_mm", "-1"), ("--trim_ends_mm -1",)),
        (("found", "reference", "--trim_ends_mm", "nan"), ("--trim_ends_mm nan",)),
        (("found", "reference", "--labels", "ribs"), ("ribs",)),
        (("found", "reference", "--output", "found/sub-b.nii.gz"), ("is a file",)),
    ],
)
def test_a_wrong_call_is_one_line(run_script, assert_one_line_error, masks, arguments, words):
    (masks / "empty").mkdir()
    assert_one_line_error(run_script("metrics/evaluate.py", *arguments, cwd=masks), *words)
