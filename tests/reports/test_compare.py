import json

import numpy as np
import pytest
from matplotlib.image import imread
from scipy import stats

from metrics.intervals import mean_interval
from reports import compare as script
from reports.compare import compare, print_comparison
from reports.comparison_figure import RUN_STYLES, draw_pairs
from utils.visualize import save_figure
from verse_utils.errors import UserError

FIRST = [0.90, 0.80, 0.85, 0.70, 0.95, 0.60, 0.75, 0.88]
OTHER = [0.92, 0.83, 0.84, 0.78, 0.96, 0.71, 0.79, 0.93]


def cases(values, metric="dice"):
    return {f"c{number}": {metric: value, "hd95_mm": 10 * (1 - value)} for number, value in enumerate(values)}


def test_numbers_are_those_of_numpy_and_scipy(make_run):
    content = compare([make_run("first", cases(FIRST)), make_run("other", cases(OTHER))])
    found = content["metrics"]["dice"]
    assert found["runs"]["first"]["mean"] == pytest.approx(np.mean(FIRST))
    assert found["runs"]["other"]["ci95"] == mean_interval(OTHER)
    difference = found["differences"]["other"]
    assert difference["mean"] == pytest.approx(np.mean(OTHER) - np.mean(FIRST))
    assert difference["wilcoxon_p"] == pytest.approx(stats.wilcoxon(OTHER, FIRST).pvalue)
    bootstrap = stats.bootstrap(
        (np.subtract(OTHER, FIRST),), np.mean, method="BCa", n_resamples=20_000, rng=1
    ).confidence_interval
    assert difference["ci95"] == pytest.approx(bootstrap, abs=0.002)
    assert content["worst"] == {"first": ["c5", "c3", "c6"], "other": ["c5", "c3", "c6"]}
    assert content["metrics"]["hd95_mm"]["differences"]["other"]["mean"] == pytest.approx(-10 * difference["mean"])


def test_only_common_cases_count_and_the_others_are_named(make_run, capsys):
    other = {case: row for case, row in cases(OTHER).items() if case != "c5"} | {"new": {"dice": 0.0, "hd95_mm": 99}}
    content = compare([make_run("first", cases(FIRST)), make_run("other", other)])
    assert content["left_out"] == {"c5": ["first"], "new": ["other"]} and "c5" not in content["cases"]
    assert content["metrics"]["dice"]["runs"]["first"]["mean"] == pytest.approx(np.mean(np.delete(FIRST, 5)))
    print_comparison(content)
    assert "left out: c5, tested only by first" in capsys.readouterr().out


def test_a_class_that_one_run_lacks_in_a_case_is_no_pair(make_run, capsys):
    first, other = cases(FIRST), cases(OTHER)
    for number in range(3):
        first[f"c{number}"]["dice_L1"] = 0.5
    other["c0"]["dice_L1"] = 0.7
    content = compare([make_run("first", first), make_run("other", other)])
    assert content["metrics"]["dice_L1"]["differences"]["other"]["cases"] == 1
    print_comparison(content)
    assert "L1" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("other", "note"), [(FIRST, "no case differs"), ([*OTHER[:5], *FIRST[5:]], "too few pairs (5 of at least 6)")]
)
def test_no_p_value_without_enough_pairs(make_run, capsys, other, note):
    content = compare([make_run("first", cases(FIRST)), make_run("other", cases(other))])
    difference = content["metrics"]["dice"]["differences"]["other"]
    assert difference["wilcoxon_p"] is None and difference["note"] == note
    print_comparison(content)
    assert note in capsys.readouterr().out


def test_runs_of_one_name_are_told_apart(make_run):
    folders = [make_run("a/run", cases(FIRST)), make_run("b/run", cases(OTHER))]
    assert list(compare(folders)["runs"]) == [str(folder) for folder in folders]


def test_folds_of_the_same_settings_are_one_run(make_run, capsys, tmp_path):
    folds = [
        make_run(f"net_{k}", cases(np.array(FIRST) - 0.03 * k), fold=f"{k}/3", model_name=f"net_{k}") for k in (1, 2, 3)
    ]
    other = make_run("other", cases(OTHER), fold="1/3", lr=2)
    content = compare([folds[0], other, *folds[1:]])
    assert list(content["runs"]) == ["net (3 folds)", "other"]
    assert content["runs"]["net (3 folds)"] == [str(folder) for folder in folds]
    found = content["metrics"]["dice"]["runs"]["net (3 folds)"]
    assert found["mean"] == pytest.approx(np.mean(FIRST) - 0.06) and found["cases"] == 8
    assert found["fold_sd"] == pytest.approx(0.03) and list(found["fold_means"]) == ["1/3", "2/3", "3/3"]
    assert found["ci95"] == mean_interval([row["net (3 folds)"] for row in content["values"]["dice"].values()])
    print_comparison(content)
    out = capsys.readouterr().out
    assert "0.744 ± 0.030" in out and "mean over the folds" in out
    save_figure(draw_pairs(content), tmp_path / "compare.png")
    assert list(compare([other, *folds[:2]])["runs"]) == ["other", "net (2 of 3 folds)"]


def test_each_fold_tests_its_own_validation_cases(make_run):
    parts = [{f"c{n}": {"dice": FIRST[n]} for n in range(start, 8, 2)} for start in (0, 1)]
    folds = [make_run(f"net{k + 1}", part, fold=f"{k + 1}/2", test_split="validation") for k, part in enumerate(parts)]
    content = compare(folds)
    found = content["metrics"]["dice"]["runs"]["net (2 folds)"]
    assert found["cases"] == 8 and found["mean"] == pytest.approx(np.mean(FIRST))
    assert list(found["fold_means"].values()) == pytest.approx([np.mean(FIRST[::2]), np.mean(FIRST[1::2])])


def test_a_case_that_a_fold_did_not_test_is_left_out(make_run):
    whole, part = cases(FIRST), {case: row for case, row in cases(OTHER).items() if case != "c5"}
    folds = [make_run("net1", whole, fold="1/2"), make_run("net2", part, fold="2/2")]
    with pytest.warns(UserWarning, match="net .2 folds.: fold 2/2 lacks c5, which is left out"):
        assert "c5" not in compare(folds)["cases"]


def test_a_picture_of_every_run(make_run, tmp_path):
    folders = [make_run(f"run{n}", cases(np.array(FIRST) - n / 50)) for n in range(3)]
    save_figure(draw_pairs(compare(folders)), tmp_path / "compare.png")
    pixels = imread(tmp_path / "compare.png")[..., :3]
    for colour, _ in RUN_STYLES[:3]:
        wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        assert (np.abs(pixels - wanted).max(axis=2) < 0.02).sum() > 200


def test_mistakes(make_run, tmp_path):
    first = make_run("first", cases(FIRST))
    localiser = make_run("localiser", cases(FIRST, "box_iou"), task="heatmap")
    regions = make_run("regions", cases(FIRST), labels="regions")
    elsewhere = make_run("elsewhere", {"x": {"dice": 0.5}})
    for folders, words in (
        ([first], "two or more"),
        ([first, first], "given twice"),
        ([first, localiser], "different tasks, heatmap and segmentation"),
        ([first, regions], "--labels, regions and None"),
        ([first, elsewhere], "no common test case"),
        ([first, tmp_path / "absent"], "absent: no such run"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            compare(folders)
        assert "\n" not in str(caught.value)


def test_localisers_of_other_heatmaps_are_compared_with_a_warning(make_run):
    runs = [
        make_run(mode, cases(FIRST, "box_iou"), task="heatmap", heatmap_mode=mode) for mode in ("distance", "gaussian")
    ]
    with pytest.warns(UserWarning, match="heatmap_mode, gaussian and distance"):
        assert compare(runs)["task"] == "heatmap"


def test_the_command_writes_table_numbers_and_picture(make_run, tmp_path, monkeypatch, capsys):
    runs = [make_run("first", cases(FIRST)), make_run("other", cases(OTHER))]
    monkeypatch.setattr("sys.argv", ["compare", *map(str, runs), "--output", str(tmp_path / "out")])
    script.main()
    out = capsys.readouterr().out
    assert "Dice ↑" in out and "minus first" in out and "On 8 test cases" in out
    written = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))
    assert written["values"]["dice"]["c1"] == {"first": 0.8, "other": 0.83}
    assert (tmp_path / "out" / "compare.png").stat().st_size > 10_000
