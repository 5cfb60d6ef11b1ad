"""The networks that come with the project, and how they are made of runs."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from networks import build_network
from prediction.checkpoints import NetworkSpec, find_checkpoint, load_checkpoint, load_checkpoint_of, save_checkpoint
from prediction.options import LABELS
from prediction.pretrained import FOLDER, is_pretrained, pretrained_checkpoint
from prediction.pretrained.__main__ import main, make_pretrained
from utils.files.run_folder import PLACE_AND_MACHINE
from utils.tasks import HEATMAP, SEGMENTATION, TASKS, Task
from verse_utils.errors import UserError

FILES = [(task, pretrained_checkpoint(task, labels)) for labels in LABELS for task in (SEGMENTATION, HEATMAP)]


@pytest.mark.parametrize(("task", "path"), FILES, ids=[path.stem for _, path in FILES])
def test_what_comes_with_the_project_is_whole_and_says_nothing_of_who_made_it(task, path):
    content = load_checkpoint_of(task, path)
    content["network"].build().load_state_dict(content["weights"])
    assert content["settings"]["model_name"] == "pretrained"
    assert not {*content["settings"]} & ({*PLACE_AND_MACHINE, "init_from"} - {"model_name"})
    assert content["sha256"] in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_what_comes_with_the_project_is_small():
    segmenter, localiser, single, names = (path.stat().st_size for _, path in FILES)
    assert segmenter + localiser <= 6e6 and single + names <= 6e6


def test_the_name_stands_for_the_network_of_the_task(tmp_path):
    for task in TASKS.values():
        assert is_pretrained(find_checkpoint("pretrained", tmp_path, task))
    assert not is_pretrained(tmp_path / "segmenter.pt")


def write_run(
    runs: Path,
    name: str,
    task: Task = SEGMENTATION,
    labels: str = "binary",
    channels=(4, 8, 16),
    spacing_mm: float = 1.0,
) -> dict[str, Tensor]:
    """Write a run's best network with random weights, as a training does; returns the weights."""
    spec = NetworkSpec("UNet", 1, 1, (16, 16, 16), {"channels": channels})
    weights = spec.build().state_dict()
    settings = {"task": task.name, "model_name": name, "labels": labels, "data_path": ["/home/me/secret"]}
    seen = {"spacing_mm": spacing_mm}
    save_checkpoint(runs / name / "best.pt", spec, weights, settings, input=seen, epoch=3, optimizer={})
    return weights


def assert_rounded(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor.float(), expected[name], rtol=2**-11, atol=1e-7)


def test_weights_in_16_bit_are_those_of_the_run(tmp_path):
    """Rounded to 11 bits, and loaded into a network of 32 bit."""
    weights = write_run(tmp_path, "mine")
    made = make_pretrained(SEGMENTATION, [Path("mine")], tmp_path, tmp_path / "new")
    assert made == tmp_path / "new" / "segmenter.pt"
    content = load_checkpoint(made)
    assert content["settings"] == {"task": "segmentation", "model_name": "pretrained", "labels": "binary"}
    assert content["input"] == {"spacing_mm": 1.0} and "optimizer" not in content
    other = build_network("UNet", 1, 1, (16, 16, 16), channels=(4, 8, 16))
    other.load_state_dict(content["weights"])
    assert_rounded(other.state_dict(), weights)
    with pytest.raises(UserError, match="is a segmenter"):
        make_pretrained(HEATMAP, [Path("mine")], tmp_path, tmp_path / "new")


def test_of_several_runs_the_mean_of_their_weights_is_written(tmp_path):
    first, second = (write_run(tmp_path, name) for name in ("first", "second"))
    made = make_pretrained(SEGMENTATION, [Path("first"), Path("second")], tmp_path, tmp_path / "new")
    assert_rounded(load_checkpoint(made)["weights"], {name: (first[name] + second[name]) / 2 for name in first})


@pytest.mark.parametrize("other", [{"channels": (4, 8, 32)}, {"spacing_mm": 2.0}], ids=["network", "input"])
def test_runs_that_do_not_belong_together_have_no_mean(tmp_path, other):
    write_run(tmp_path, "first", **other)
    write_run(tmp_path, "second")
    with pytest.raises(UserError, match="first: has another network or input than second; give runs"):
        make_pretrained(SEGMENTATION, [Path("first"), Path("second")], tmp_path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_command_needs_a_run_and_a_folder_that_it_can_write_to(tmp_path, monkeypatch, capsys):
    write_run(tmp_path, "mine")
    (tmp_path / "file").write_text("")
    for arguments, message in (
        (["--output", str(tmp_path / "new")], "name a run: --heatmap_model or"),
        (["--segmentation_model", "mine", "--output", str(tmp_path / "file" / "new")], "can't be written"),
    ):
        monkeypatch.setattr("sys.argv", ["pretrained", "--runs", str(tmp_path), *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code and message in capsys.readouterr().err


@pytest.mark.parametrize(("task", "trained"), [(HEATMAP, "vertebrae"), (SEGMENTATION, "single")])
def test_names_have_networks_of_their_own(tmp_path, task, trained):
    runs, new = tmp_path / "runs", tmp_path / "new"
    for labels in ("binary", trained):
        write_run(runs, labels, task, labels)
    run_of = {"segmenter": "binary", "vertebrae": trained}
    for labels, run in run_of.items():
        path = make_pretrained(task, [Path(run)], runs, new, labels)
        assert path == pretrained_checkpoint(task, labels, new)
        assert load_checkpoint(path)["settings"]["labels"] == run
        other = next(one for one in LABELS if one != labels)
        with pytest.raises(UserError, match=f"was trained with --labels {run}"):
            make_pretrained(task, [Path(run)], runs, new, other)
