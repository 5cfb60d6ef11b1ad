import csv
import re
from itertools import pairwise
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from prediction.results.label_tables import write_label_tables
from prediction.results.named_centroids import write_names
from prediction.results.results_folder import write_results
from verse_utils.centroids import read_centroids
from verse_utils.labels import ANATOMICAL_ORDER, VERTEBRA_NAMES, label_colours

CENTRES_MM = {19: (12.0, -30.0, 400.0), 28: (11.0, -32.0, 372.0), 20: (10.0, -31.0, 340.0)}


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "ILP"])
def test_centres_are_read_back_where_they_were(tmp_path, codes):
    shape = (60, 50, 40)
    ras = np.diag([1.5, 2.0, 3.0, 1.0])
    turn = nib.orientations.ornt_transform(*map(nib.orientations.axcodes2ornt, ("RAS", codes)))
    affine = ras @ nib.orientations.inv_ornt_aff(turn, shape)
    path = tmp_path / "scan_ctd.json"
    write_names([SimpleNamespace(label=label, centre_mm=place) for label, place in CENTRES_MM.items()], affine, path)
    listed = read_centroids(path)
    assert "".join(listed.direction) == codes and list(listed.points_vox) == list(CENTRES_MM)
    stored = tuple(np.array(shape)[np.argsort(turn[:, 0])])
    for label, place_mm in listed.to_world(affine, stored).items():
        np.testing.assert_allclose(place_mm, CENTRES_MM[label], atol=0.2)


def test_label_tables_name_every_vertebra_in_a_colour_of_its_own(tmp_path):
    """3D Slicer: index, name, R, G, B, A. ITK-SNAP: IDX, R, G, B, A, VIS, MSH, "LABEL"."""
    write_label_tables(tmp_path)
    slicer = [line.split() for line in (tmp_path / "vertebrae.ctbl").read_text().splitlines() if line[0] != "#"]
    found = {int(index): name for index, name, *_ in slicer}
    assert found == {0: "background", **VERTEBRA_NAMES}
    assert all(len(row) == 6 and all(0 <= int(value) <= 255 for value in row[2:]) for row in slicer)
    snap = [line for line in (tmp_path / "vertebrae.label").read_text().splitlines() if line[0] != "#"]
    pattern = re.compile(r'\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([\d.]+)\s+([01])\s+([01])\s+"([^"]+)"')
    rows = [match.groups() for match in map(pattern.fullmatch, snap) if match]
    assert len(rows) == len(snap) == 27
    assert {int(row[0]): row[7] for row in rows} == {0: "Clear Label", **VERTEBRA_NAMES}
    colours = label_colours()
    assert len(set(colours.values())) == 26
    assert all(
        np.abs(np.subtract(colours[one], colours[other])).max() > 80 for one, other in pairwise(ANATOMICAL_ORDER)
    )


def test_all_vertebrae_of_all_scans_stand_in_one_table(tmp_path):
    vertebra = {"label": 20, "name": "L1", "volume_ml": 50.5, "centre_mm": [1.0, -2.0, 3.0], "height_mm": 27.0}
    rows = [{"name": "a", "scan": "/a", "vertebrae": [vertebra]}, {"name": "b", "scan": "/b", "error": "no CT"}]
    write_results(rows, tmp_path / "results.csv")
    with (tmp_path / "vertebrae.csv").open(encoding="utf-8") as file:
        (line,) = csv.DictReader(file)
    assert (line["scan"], line["name"], line["centre_Y_mm"], line["volume_ml"]) == ("a", "L1", "-2.0", "50.5")
    assert (tmp_path / "vertebrae.ctbl").exists()
    write_results(rows[1:], tmp_path / "other.csv")
    assert len((tmp_path / "vertebrae.csv").read_text(encoding="utf-8").splitlines()) == 2
