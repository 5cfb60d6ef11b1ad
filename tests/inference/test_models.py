"""Checkpoints, and the processes that use them."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import inference
from prediction.checkpoints import NetworkSpec
from prediction.whole_scans import check_checkpoints

pytestmark = pytest.mark.usefixtures("blank_pictures")  # but in processes of their own


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


def test_each_checkpoint_is_read_once(infer, scans, monkeypatch):
    """One read serves the check before the work, the hash in the summary, and the network."""
    reads = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path.name) or read_bytes(path))
    result = infer([scans])
    assert result.returncode == 0, result.stderr
    assert reads.count("best.pt") == 2  # the localiser's and the segmenter's


def test_models_of_other_processes_are_checked_by_their_checkpoints(
    infer, runs, names_models, scans, monkeypatch, assert_one_line_error
):
    """No network is built where none is used, and what can't work is refused before a scheduler is asked for."""

    def build(self):
        raise AssertionError("a network was built")

    monkeypatch.setattr(NetworkSpec, "build", build)
    path = runs / "segmentation" / "best.pt"
    job = SimpleNamespace(workers=2)
    inference._tell_of_ensemble(check_checkpoints([path, path], runs / "heatmap" / "best.pt", "classes"), job)
    for arguments, models, told in (
        (["--labels", "vertebrae"], ("single", "heatmap"), "finds the spine alone"),
        (["--labels", "vertebrae"], ("single",), "there is none"),
        (["--labels", "vertebrae"], ("segmentation", "names"), "can't find vertebrae one by one"),
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
