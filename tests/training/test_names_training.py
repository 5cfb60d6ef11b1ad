"""The localiser that names vertebrae: targets, scores, and a run of it."""

import json

import numpy as np
import pytest
import torch

from prediction.names.column import Steps
from training.arguments import parse_arguments
from training.tasks import build_task
from training.tasks.names import NamesTraining
from utils.tasks import HEATMAP
from verse_utils.labels import ANATOMICAL_ORDER

LABELS = ["--labels", "vertebrae"]


def settings_of(h5, *arguments):
    return parse_arguments(HEATMAP, ["--data_path", str(h5), "--model_name", "names", *LABELS, *arguments])


@pytest.fixture(scope="module")
def task(heatmap_h5):
    return NamesTraining(settings_of(heatmap_h5))


@pytest.fixture(scope="module")
def test_case(task, heatmap_h5):
    return task.dataset(heatmap_h5, "test")[0]


def channels(heatmap_KXYZ):
    """Labels whose heatmap isn't empty."""
    return [label for label, heatmap in zip(ANATOMICAL_ORDER, heatmap_KXYZ[1:], strict=True) if heatmap.any()]


def test_the_target_has_a_heatmap_for_each_vertebra_that_is_shown(test_case):
    heatmap, label = test_case["heatmap"].data, test_case["label"].data[0]
    assert heatmap.shape == (27, *label.shape) and heatmap.dtype == torch.float32
    torch.testing.assert_close(heatmap.sum(dim=0), torch.ones_like(heatmap[0]))
    shown = [number for number in ANATOMICAL_ORDER if (label == number).any()]
    assert channels(heatmap) == shown and len(shown) >= 4
    for number in shown:
        highest = np.unravel_index(heatmap[1 + ANATOMICAL_ORDER.index(number)].argmax().item(), label.shape)
        near = tuple(slice(max(v - 2, 0), v + 3) for v in highest)
        assert (label[near] == number).any()


def test_a_flip_swaps_no_names(task, heatmap_h5):
    """All training subjects that chance makes of a case show a run of its names, from head to foot."""
    dataset = task.dataset(heatmap_h5, "training")
    _, label = dataset.store.read(*dataset.places[0])
    names = [number for number in ANATOMICAL_ORDER if (label == number).any()]
    seen = set()
    for epoch in range(8):
        heatmap = dataset[epoch, 0]["heatmap"].data
        shown = channels(heatmap)
        first = names.index(shown[0])
        assert shown == names[first : first + len(shown)]
        seen.add(tuple(shown))
        heights = [heatmap[1 + ANATOMICAL_ORDER.index(label)].sum(dim=(0, 1)).argmax() for label in channels(heatmap)]
        assert heights == sorted(heights, reverse=True)
    assert tuple(names) in seen and len(seen) > 1


def test_a_perfect_heatmap_is_a_perfect_score(task, test_case):
    handler = task.metric_handler()
    task.measure(handler, test_case, test_case["heatmap"].data)
    (row,) = handler.rows
    assert row["identification_rate"] == 1 and row["localisation_error_mm"] < 2
    regions = {name.rpartition("_")[2] for name in row if name.startswith("identification_rate_")}
    assert regions and regions <= {"cervical", "thoracic", "lumbar"}
    nothing = torch.zeros_like(test_case["heatmap"].data)
    task.measure(handler, test_case, nothing)
    assert handler.rows[1]["identification_rate"] == 0 and handler.rows[1]["localisation_error_mm"] > 100
    assert handler.summary()["identification_rate"]["mean"] == 0.5


def test_the_validation_score_tells_names_and_distances(task, test_case):
    target = test_case["heatmap"].data[None]
    logits = torch.log(target.clamp(min=1e-6))
    shifted = torch.cat([logits[:, :1], logits[:, 1:].roll(1, dims=1)], dim=1)  # every vertebra called as the one below
    spacing_mm = test_case["image"].spacing
    right, wrong = (task.score_terms(answer, target, spacing_mm) for answer in (logits, shifted))
    assert task.score(right) > 0.99 > 0.1 > task.score(wrong)
    assert task.further_scores(right)["validation_identification_rate"] == 1
    assert task.further_scores(wrong)["validation_identification_rate"] < 0.3
    assert task.further_scores(right)["validation_localisation_error_mm"] < 0.5
    both = task.further_scores(right + wrong)
    assert 0.5 <= both["validation_identification_rate"] < 0.65


def test_steps_are_those_of_the_training_cases(task, heatmap_h5):
    learnt = task.learn(task.dataset(heatmap_h5, "training"))["steps_mm"]
    usual = Steps.learn([]).as_json()
    differing = [name for name in usual if usual[name] != learnt[name]]
    assert len(differing) >= 4 and all(10 < learnt[name][0] < 60 for name in differing)
    task.recall({"steps_mm": {"C2": [11, 2]}})
    assert task.steps.expected(2) == (11, 2)
    task.recall({})


def test_a_run_learns_names_and_says_how_well(run_script, heatmap_h5, tmp_path, rows_of, with_reports):
    common = ["--data_path", heatmap_h5, "--model_name", "names", *LABELS, "--epochs", 2, "--workers", 0]
    with with_reports(True):
        result = run_script("training/train_heatmap.py", *common, "--model_args", "channels=4,8", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    run = tmp_path / "trained_models" / "names"
    assert {"validation_r2", "validation_identification_rate"} <= set(rows_of(run)[0])
    metrics = json.loads((run / "test_metrics.json").read_text(encoding="utf-8"))
    assert {"identification_rate", "localisation_error_mm"} <= set(metrics["summary"])
    assert "Identification rate" in (run / "report.html").read_text(encoding="utf-8")
    stored = torch.load(run / "best.pt", weights_only=True)
    assert stored["settings"]["labels"] == "vertebrae" and stored["settings"]["loss"] == "HeatmapCE"
    assert stored["network"]["out_channels"] == 27 and set(stored["input"]["steps_mm"]) >= {"C2", "T13", "L6"}
    with with_reports(False):
        again = run_script("training/train_heatmap.py", *common, "--test_only", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads((run / "test_metrics.json").read_text(encoding="utf-8"))["cases"] == metrics["cases"]


def test_losses_of_one_heatmap_are_refused(run_script, heatmap_h5, tmp_path, assert_one_line_error):
    common = ["--data_path", heatmap_h5, "--model_name", "names", *LABELS, "--loss", "Wing"]
    assert_one_line_error(run_script("training/train_heatmap.py", *common, cwd=tmp_path), "--loss Wing", "leave it out")
    binary = parse_arguments(HEATMAP, ["--data_path", str(heatmap_h5), "--model_name", "one"])
    assert (binary.labels, binary.loss) == ("binary", "MSE") and build_task(binary).out_channels == 1
