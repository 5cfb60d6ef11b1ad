import nibabel as nib
import numpy as np
import pytest

OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.3, 0, 0.2) @ np.diag([-1.0, 1.5, 2.5]), [30.0, -20.0, 700.0]
)


@pytest.fixture
def masks(tmp_path):
    mask = np.zeros((30, 25, 20), bool)
    mask[8:22, 6:19, 4:16] = True
    for name, array, affine in (
        ("found.nii.gz", np.roll(mask, 1, axis=0), OBLIQUE),
        ("reference.nii.gz", mask, OBLIQUE),
        ("empty.nii.gz", mask & False, OBLIQUE),
        ("moved.nii.gz", mask, OBLIQUE + 5 * np.outer(np.eye(4)[0], np.eye(4)[3])),
        ("smaller.nii.gz", mask[1:], OBLIQUE),
    ):
        nib.save(nib.Nifti1Image(array.astype(np.uint8), affine), tmp_path / name)
    (tmp_path / "text.nii.gz").write_text("no image", encoding="utf-8")
    return tmp_path


def test_the_command_writes_page_and_stl(masks, run_script):
    result = run_script(
        "reports/surfaces.py", "found.nii.gz", "--truth", "reference.nii.gz", "--output", "out", cwd=masks
    )
    assert result.returncode == 0 and result.stderr == ""
    assert sorted(path.name for path in (masks / "out").iterdir()) == ["found.html", "found.stl"]
    assert "the reference (mm)" in (masks / "out" / "found.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent.nii.gz"], ["absent.nii.gz", "no such file"]),
        (["text.nii.gz"], ["text.nii.gz"]),
        (["empty.nii.gz"], ["empty.nii.gz", "no voxel"]),
        (["found.nii.gz", "--truth", "empty.nii.gz"], ["empty.nii.gz", "no voxel"]),
        (["found.nii.gz", "--truth", "smaller.nii.gz"], ["smaller.nii.gz", "found.nii.gz", "another grid"]),
        (["found.nii.gz", "--truth", "moved.nii.gz"], ["moved.nii.gz", "found.nii.gz", "another grid"]),
    ],
)
def test_a_users_mistake_is_one_line(masks, run_script, assert_one_line_error, arguments, words):
    result = run_script("reports/surfaces.py", *arguments, "--output", "out", cwd=masks)
    assert_one_line_error(result, *words)
    assert not (masks / "out").exists()
