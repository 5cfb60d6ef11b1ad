import numpy as np
import pytest

from verse_utils.hounsfield import count_hu, why_no_air, why_not_hu, why_unlike_ct
from verse_utils.images import to_hu
from verse_utils.phantom.dataset import make_phantom


@pytest.fixture(scope="module")
def scan_hu():
    return make_phantom(5, "tiny").image_hu.astype(np.float64)


def counts_of(values):
    return count_hu(to_hu(values, "ct.nii.gz"))


def test_counts_are_those_of_each_value():
    counts = count_hu(np.array([[-32768, 0], [0, 32767]], np.int16))
    assert (counts[0], counts[32768], counts[65535], counts.sum()) == (1, 2, 1, 4)


def test_a_ct_is_hu(scan_hu):
    assert why_not_hu(counts_of(scan_hu)) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda hu: hu + 1024, "without its intercept"),
        (lambda hu: np.where(hu < -900, -2000, hu + 1000), "without its intercept"),
        (lambda hu: (hu - hu.min()) / np.ptp(hu), "scaled"),
        (lambda hu: 2 * (hu - hu.min()) / np.ptp(hu) - 1, "scaled"),
        (lambda hu: (hu - hu.mean()) / hu.std(), "scaled"),
        (lambda hu: np.clip((hu + 160) / 400 * 255, 0, 255), "windowed"),
        (lambda hu: np.clip(hu, -150, 150), "windowed"),
    ],
    ids=["shifted", "shifted with padding", "0 to 1", "-1 to 1", "normalised", "8 bits", "narrow window"],
)
def test_what_is_not_hu(scan_hu, change, words):
    assert words in why_not_hu(counts_of(change(scan_hu)))


def test_a_window_that_keeps_hu_is_worth_a_look(scan_hu):
    counts = counts_of(np.clip(scan_hu, -1000, 250))
    assert why_not_hu(counts) is None
    assert "the greatest value, 250 HU: windowed" in why_unlike_ct(counts)


def test_no_air_is_worth_a_look():
    assert why_no_air(-500) is None
    assert why_no_air(-499) == "least HU is -499, over -500: no air, unlike CT"


@pytest.mark.real_scans
def test_real_scans_are_hu_and_are_not_once_they_are_shifted(real_scans):
    import nibabel as nib

    paths = [path for path in real_scans.rglob("*_ct.nii.gz")]
    assert len(paths) == 8
    for path in paths:
        values = np.asarray(nib.load(path).dataobj)[::3, ::3, ::2]
        assert why_not_hu(counts_of(values)) is None, path
        assert "intercept" in why_not_hu(counts_of(values + 1024.0)), path
