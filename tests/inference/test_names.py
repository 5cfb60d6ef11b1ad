"""Vertebrae by their names."""

import json

import nibabel as nib
import numpy as np
import pytest

from prediction import localisation
from prediction.localisation import Spine
from prediction.names.column import Vertebra
from training.arguments import parse_arguments
from training.scripts import train_and_test
from utils.tasks import HEATMAP
from verse_utils.centroids import read_centroids

pytestmark = pytest.mark.usefixtures("blank_pictures")  # but in processes of their own


@pytest.fixture(scope="module")
def names_run(runs, heatmap_h5) -> str:
    """A localiser that names vertebrae, trained for a moment."""
    common = f"--data_path {heatmap_h5} --model_name names --epochs 2 --workers 0 --output {runs} --labels vertebrae"
    train_and_test(parse_arguments(HEATMAP, [*common.split(), "--model_args", "channels=4,8,16"]))
    return "names"


def test_vertebrae_are_named(infer, scans, tmp_path, names_run, monkeypatch, phantom_root):
    """With the true centres in place of what a network learns in a moment: names, numbers and files."""
    paths = {path.name.removesuffix("_ct.nii.gz"): path for path in sorted(scans.iterdir())}
    centres_mm = {}
    for case, path in paths.items():
        image = nib.load(path)
        listed = read_centroids(next(phantom_root.rglob(f"{case}*ctd.json")))
        centres_mm[image.shape] = listed.to_world(image.affine, image.shape)

    def know(view, *_):
        vertebrae = [Vertebra(label, place, 0.8) for label, place in centres_mm[view.source_shape].items()]
        return Spine(view, np.ones(view.shape, bool), vertebrae)

    monkeypatch.setattr(localisation, "_locate_by_names", know)
    options = ("--labels", "vertebrae", "--postprocess", "none", "--json")
    result = infer([scans], *options, models=("segmentation", names_run))
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
    kept = infer([scans], *options, models=("segmentation", names_run))
    assert all(row["kept"] for row in json.loads(kept.stdout))
    without = infer([scans], "--postprocess", "none", "--json", models=("segmentation", names_run))
    assert not any("kept" in row or row["vertebrae"] for row in json.loads(without.stdout))
    assert not [*out.glob("*_ctd.json"), *out.glob("vertebrae.csv")]


def test_names_need_a_localiser_that_learnt_them(infer, scans, assert_one_line_error):
    for models, told in ((("segmentation", "heatmap"), "finds the spine alone"), (("segmentation",), "there is none")):
        assert_one_line_error(infer([scans], "--labels", "vertebrae", models=models), told, "--heatmap_model")
