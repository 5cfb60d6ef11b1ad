"""The networks that come with the project, and how they are made of runs."""

from pathlib import Path

import pytest
import torch

from networks import build_network
from prediction.checkpoints import NetworkSpec, find_checkpoint, load_checkpoint, load_checkpoint_of, save_checkpoint
from prediction.options import LABELS
from prediction.pretrained import FOLDER, is_pretrained, pretrained_checkpoint
from prediction.pretrained.__main__ import main, make_pretrained
from utils.files.run_folder import PLACE_AND_MACHINE
from utils.tasks import HEATMAP, SEGMENTATION, TASKS
from verse_utils.errors import UserError

CHANNELS = {"channels": (4, 8, 16)}


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


def test_weights_in_16_bit_are_those_of_the_run(tmp_path):
    """Rounded to 11 bits, and loaded into a network of 32 bit."""
    spec = NetworkSpec("UNet", 1, 1, (16, 16, 16), CHANNELS)
    torch.manual_seed(0)
    network = spec.build()
    settings = {"task": "segmentation", "model_name": "mine", "data_path": ["/home/me/secret"], "labels": "binary"}
    run = tmp_path / "best.pt"
    save_checkpoint(run, spec, network.state_dict(), settings, input={"spacing_mm": 1.0}, epoch=3, optimizer={})
    made = make_pretrained(SEGMENTATION, [run], tmp_path, tmp_path / "new")
    assert made == tmp_path / "new" / "segmenter.pt"
    content = load_checkpoint(made)
    assert content["settings"] == {"task": "segmentation", "model_name": "pretrained", "labels": "binary"}
    assert content["input"] == {"spacing_mm": 1.0} and "optimizer" not in content
    other = build_network("UNet", 1, 1, (16, 16, 16), **CHANNELS)
    other.load_state_dict(content["weights"])
    for mine, theirs in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(theirs, mine, rtol=2**-11, atol=1e-7)
    with pytest.raises(UserError, match="is a segmenter"):
        make_pretrained(HEATMAP, [run], tmp_path, tmp_path / "new")


def test_of_several_runs_the_mean_of_their_weights_is_written(tmp_path):
    spec = NetworkSpec("UNet", 1, 1, (16, 16, 16), CHANNELS)
    weights = []
    for name in ("first", "second"):
        weights.append(spec.build().state_dict())
        settings = {"task": "segmentation", "model_name": name, "epochs": name, "labels": "binary"}
        save_checkpoint(tmp_path / name / "best.pt", spec, weights[-1], settings, input={"spacing_mm": 1.0})
    content = load_checkpoint(
        make_pretrained(SEGMENTATION, [Path("first"), Path("second")], tmp_path, tmp_path / "new")
    )
    assert content["settings"]["epochs"] == "second"
    for name, mean in content["weights"].items():
        expected = (weights[0][name] + weights[1][name]) / 2
        torch.testing.assert_close(mean.float(), expected, rtol=2**-11, atol=1e-7)


@pytest.mark.parametrize(
    ("channels", "spacing_mm"), [((4, 8, 32), 1.0), ((4, 8, 16), 2.0)], ids=["another network", "another input"]
)
def test_runs_that_do_not_belong_together_have_no_mean(tmp_path, channels, spacing_mm):
    for name, width, seen in (
        ("first", channels, {"spacing_mm": spacing_mm}),
        ("second", (4, 8, 16), {"spacing_mm": 1.0}),
    ):
        spec = NetworkSpec("UNet", 1, 1, (16, 16, 16), {"channels": width})
        settings = {"task": "segmentation", "model_name": name, "labels": "binary"}
        save_checkpoint(tmp_path / name / "best.pt", spec, spec.build().state_dict(), settings, input=seen)
    with pytest.raises(UserError, match="first: has another network or input than second; give runs"):
        make_pretrained(SEGMENTATION, [Path("first"), Path("second")], tmp_path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_command_needs_a_run_and_a_folder_that_it_can_write_to(tmp_path, monkeypatch, capsys):
    save_checkpoint(
        tmp_path / "mine" / "best.pt",
        (spec := NetworkSpec("UNet", 1, 1, (16, 16, 16), CHANNELS)),
        spec.build().state_dict(),
        {"task": "segmentation", "model_name": "mine", "labels": "binary"},
        input={},
    )
    (tmp_path / "file").write_text("")
    for arguments, message in (
        ([], "name a run: --heatmap_model or"),
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
        spec = NetworkSpec("UNet", 1, 1, (16, 16, 16), CHANNELS)
        settings = {"task": task.name, "model_name": labels, "labels": labels}
        save_checkpoint(runs / labels / "best.pt", spec, spec.build().state_dict(), settings, input={})
    run_of = {"segmenter": runs / "binary" / "best.pt", "vertebrae": runs / trained / "best.pt"}
    for labels, run in run_of.items():
        path = make_pretrained(task, [run], runs, new, labels)
        assert path == pretrained_checkpoint(task, labels, new)
        assert load_checkpoint(path)["settings"]["labels"] == run.parent.name
        other = next(one for one in LABELS if one != labels)
        with pytest.raises(UserError, match=f"was trained with --labels {run.parent.name}"):
            make_pretrained(task, [run], runs, new, other)
