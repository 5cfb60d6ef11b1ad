import json
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest

from utils.dataset_facts.case_facts import scan_facts
from utils.files.h5_packing import pack_cases
from utils.geometry.mask_facts import mask_facts
from utils.statistics import gather, summarise
from utils.tasks import HEATMAP
from verse_utils.cases import find_cases
from verse_utils.images import read_case
from verse_utils.labels import VERTEBRA_NAMES

pytestmark = pytest.mark.usefixtures("blank_pictures")

FILES = ["grids.png", "intensities.png", "statistics.json", "vertebrae.png"]


@pytest.fixture
def run(run_script, tmp_path):
    def run(data_path, *arguments, workers=1):
        command = ("--data_path", data_path, "--output", "out", "--workers", workers, *arguments)
        return run_script("utils/statistics.py", *command, cwd=tmp_path)

    return run


def content(tmp_path) -> dict:
    return json.loads((tmp_path / "out" / "statistics.json").read_text(encoding="utf-8"))


def test_a_folder(phantom_root, tmp_path, run):
    result = run(phantom_root)
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    assert all(f"out/{name}" in result.stdout for name in FILES)
    told = content(tmp_path)
    cases = [scan_facts(case) for case in find_cases(phantom_root, 19)]
    assert [row["case_id"] for row in told["cases"]] == [case.case_id for case in cases]
    vertebrae = sum(len(case.volume_ml) for case in cases)
    counts = told["summary"]["by_split"]
    assert counts["all"] == {"scans": 4, "patients": 4, "vertebrae": vertebrae, "scans_with_centroids": 4}
    assert [counts[split]["scans"] for split in ("training", "validation", "test")] == [2, 1, 1]
    spacings_z_mm = sorted(case.spacing_mm[2] for case in cases)
    spread = told["summary"]["spacing_mm"]["Z"]
    assert spread["median"] == pytest.approx((spacings_z_mm[1] + spacings_z_mm[2]) / 2, abs=1e-4)
    assert [spread["min"], spread["max"]] == spacings_z_mm[:: len(spacings_z_mm) - 1]
    bins = told["summary"]["hu_histogram"]
    voxels = sum(row["hu_in_bone"]["voxels"] + row["hu_outside"]["voxels"] for row in told["cases"])
    assert sum(map(sum, [*bins["voxels_in_bone"].values(), *bins["voxels_outside"].values()])) == voxels
    assert "spacing_mm X" in told["too_few_values_for_quartiles"] and "so not judged" in result.stdout


def test_a_patient_with_two_scans_counts_once(phantom_root):
    one, other, *_ = [scan_facts(case) for case in find_cases(phantom_root, 19)]
    other = replace(other, patient=one.patient, volume_ml={"L1": 30.0})
    summary = summarise([replace(one, volume_ml={"L1": 20.0, "L2": 21.0}), other])
    assert summary["by_split"]["training"] == {
        "scans": 2,
        "patients": 1,
        "vertebrae": 3,
        "scans_with_centroids": 2,
    }
    assert summary["levels"]["L1"] == {
        "scans": 2,
        "patients": 1,
        "volume_ml": {"mean": 25.0, "median": 25.0, "min": 20.0, "max": 30.0},
    }
    assert list(summary["levels"]) == ["L1", "L2"] and summary["levels"]["L2"]["scans"] == 1


def test_h5_files_of_both_tasks(segmentation_h5, heatmap_h5):
    for h5_path in (segmentation_h5, heatmap_h5):
        cases, failures = gather(h5_path, edition=19, workers=1)
        assert not failures and len(cases) == 4
        assert summarise(cases)["by_split"]["all"]["scans_with_centroids"] is None


def test_the_number_of_workers_changes_nothing(segmentation_h5, tmp_path, run):
    assert run(segmentation_h5).returncode == 0
    result = run(segmentation_h5, "--output", "two", workers=2)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "two/statistics.json").read_bytes() == (tmp_path / "out/statistics.json").read_bytes()


def test_a_broken_case_is_one_line_and_the_others_go_on(phantom_root, tmp_path, run):
    root = shutil.copytree(phantom_root, tmp_path / "verse")
    ct = sorted(root.rglob("*_ct.nii.gz"))[0]
    ct.write_bytes(ct.read_bytes()[:-5000])
    result = run(root)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert ct.name in line and "can't be read" in line
    told = content(tmp_path)
    assert len(told["cases"]) == 3
    assert [failed["case_id"] for failed in told["failed"]] == [ct.name.removesuffix("_ct.nii.gz")]


def test_where_no_case_can_be_read_nothing_is_written(phantom_root, tmp_path, run):
    root = shutil.copytree(phantom_root, tmp_path / "verse")
    for ct in root.rglob("*_ct.nii.gz"):
        ct.write_bytes(ct.read_bytes()[:-5000])
    result = run(root)
    assert result.returncode == 2 and "none of its 4 cases can be read" in result.stderr
    assert not (tmp_path / "out").exists()


def test_wrong_calls_are_one_line_and_write_nothing(phantom_root, tmp_path, run, assert_one_line_error):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.h5").write_text("no HDF5", encoding="utf-8")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["training/sub-a/image"] = [1]
    pack_cases(tmp_path / "bare.h5", HEATMAP, {"shape": [4, 4, 4]}, [])
    for data_path, words in (
        ("absent", ["absent", "no such file or folder"]),
        ("absent.h5", ["absent.h5", "no such file"]),
        ("empty", ["empty", "no case"]),
        ("text.h5", ["text.h5", "not an HDF5 file"]),
        ("other.h5", ["other.h5", "schema"]),
        ("bare.h5", ["bare.h5", "holds no case"]),
    ):
        assert_one_line_error(run(data_path), *words)
    assert_one_line_error(run(phantom_root, workers=0), "--workers")
    assert_one_line_error(run(phantom_root, "--output", "text.h5"), "text.h5", "is a file")
    assert_one_line_error(run("bare.h5", "--exclude", "sub-a"), "--exclude is for folders")
    assert_one_line_error(run(phantom_root, "--dataset_edition", 21), "--dataset_edition")
    assert not (tmp_path / "out").exists()


@pytest.mark.real_scans
def test_real_scans(real_scans):
    """The volumes of the VerSe sample are those that whole masks give."""
    root = real_scans / "verse_sample"
    facts, failures = gather(root, edition=19, workers=1)
    assert not failures
    for found, case in zip(facts, find_cases(root, 19), strict=True):
        images = read_case(case)
        volumes_ml = mask_facts(images.label, images.affine)["volume_ml_of_label"]
        assert found.volume_ml == {VERTEBRA_NAMES[int(label)]: ml for label, ml in volumes_ml.items()}
        assert found.hu_in_bone.median == pytest.approx(np.median(images.image_hu[images.label > 0]), abs=1)
