import json

import pytest

from training.arguments import parse_arguments
from training.run.state import Progress, check_run_folder
from utils.tasks import HEATMAP
from verse_utils.errors import UserError


def settings_of(folder, *arguments):
    return parse_arguments(HEATMAP, ["--data_path", "a.h5", "--model_name", "run", "--output", str(folder), *arguments])


def test_training_is_over_after_epochs_without_a_better_score(tmp_path):
    """An equal score is no better one."""
    settings = settings_of(tmp_path, "--epochs", "10", "--early_stopping", "2")
    progress = Progress()
    expected = [(0.1, 0, False), (0.3, 0, False), (0.3, 1, False), (0.4, 0, False), (0.2, 1, False), (0.1, 2, True)]
    for epoch, (score, since_best, over) in enumerate(expected, start=1):
        assert progress.is_last(score, settings) == over
        progress.finish_epoch({"epoch": epoch}, score)
        assert (progress.epochs_since_best, progress.is_over(settings)) == (since_best, over)
    assert progress.best_score == 0.4
    assert [row["epoch"] for row in progress.history] == [1, 2, 3, 4, 5, 6]


def test_training_is_over_after_all_epochs(tmp_path):
    settings = settings_of(tmp_path, "--epochs", "2")
    assert [Progress(epoch).is_over(settings) for epoch in (0, 1, 2)] == [False, False, True]


def test_only_what_changes_the_result_must_be_the_same(tmp_path):
    settings = settings_of(tmp_path)
    check_run_folder(settings)  # there is none yet
    settings.run_folder.path.mkdir()
    check_run_folder(settings)  # nor here
    (settings.run_folder.path / "photo.jpg").touch()
    with pytest.raises(UserError, match=r"holds no run \(config\.json\)"):
        check_run_folder(settings)
    settings.run_folder.config.write_text(json.dumps({"settings": settings.as_dict()}), encoding="utf-8")
    check_run_folder(settings_of(tmp_path, "--workers", "3", "--device", "cuda", "--use_wandb"))
    with pytest.raises(UserError, match="made with --seed 0, which can't change to 1"):
        check_run_folder(settings_of(tmp_path, "--seed", "1"))


def test_a_setting_that_an_older_run_lacks_is_told(tmp_path):
    settings = settings_of(tmp_path)
    settings.run_folder.path.mkdir()
    older = {key: value for key, value in settings.as_dict().items() if key != "clip"}
    settings.run_folder.config.write_text(json.dumps({"settings": older}), encoding="utf-8")
    with pytest.warns(UserWarning, match="begun by a version without --clip; it goes on with --clip 12"):
        check_run_folder(settings, data="any")
