"""Vertebrae by their names."""

import json

import nibabel as nib
import numpy as np
import pytest

from prediction import localisation
from prediction.names.column import Candidate, Steps, name_vertebrae
from prediction.names.spine import Spine
from prediction.trained_model import TrainedModel
from utils.constants import SHOWN_SIGMA_MM
from verse_utils.centroids import read_centroids

pytestmark = pytest.mark.usefixtures("blank_pictures")  # but in processes of their own


predict_window = TrainedModel.predict_window


def seen_around(model, window_CXYZ, mirror=False, **options):
    """A segmenter that finds what is dense and near the centre that it is shown; the localiser is as it is."""
    if model.names_vertebrae:
        return predict_window(model, window_CXYZ, mirror, **options)
    image, shown = window_CXYZ
    is_near = shown > np.exp(-0.5 * (14 / SHOWN_SIGMA_MM) ** 2)
    return (is_near & (image > 0.1)).float()[None]


def test_vertebrae_are_named(infer, scans, tmp_path, names_models, monkeypatch, phantom_root):
    """With the true centres, and what is dense around them, in place of what networks learn in a moment."""
    paths = {path.name.removesuffix("_ct.nii.gz"): path for path in sorted(scans.iterdir())}
    centres_mm = {}
    for case, path in paths.items():
        image = nib.load(path)
        listed = read_centroids(next(phantom_root.rglob(f"{case}*ctd.json")))
        centres_mm[image.shape] = listed.to_world(image.affine, image.shape)

    def know(view, *_):
        candidates = [Candidate(label, place, 0.8) for label, place in centres_mm[view.source_shape].items()]
        steps = Steps.learn([])
        return Spine(view, np.ones(view.shape, bool), candidates, name_vertebrae(candidates, steps), steps)

    monkeypatch.setattr(TrainedModel, "predict_window", seen_around)
    monkeypatch.setattr(localisation, "spine_of_names", know)
    options = ("--labels", "vertebrae", "--json")
    result = infer([scans], *options, models=names_models)
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
    kept = infer([scans], *options, models=names_models)
    assert all(row["kept"] for row in json.loads(kept.stdout))
    without = infer([scans], "--postprocess", "none", "--json", models=("segmentation", "names"))
    assert not any("kept" in row or row["vertebrae"] for row in json.loads(without.stdout))
    assert not [*out.glob("*_ctd.json"), *out.glob("vertebrae.csv")]


def test_names_need_both_networks_that_learnt_them(infer, scans, names_models, assert_one_line_error):
    single, names = names_models
    labels = ("--labels", "vertebrae")
    for models, told in (
        ((single, "heatmap"), "finds the spine alone"),
        ((single,), "there is none"),
        (("segmentation", names), "segmentation can't find vertebrae one by one"),
    ):
        remedy = "--segmentation_model" if models[0] != single else "--heatmap_model"
        assert_one_line_error(infer([scans], *labels, models=models), told, remedy)
    assert_one_line_error(infer([scans], models=names_models), "finds single vertebrae", "add --labels vertebrae")
