from pathlib import Path

import pytest

from verse_utils.names import is_same_scan, parse_dataset_folder, parse_file_name


@pytest.mark.parametrize(
    ("name", "case_id", "kind"),
    [
        ("sub-verse004_ct.nii.gz", "sub-verse004", "ct"),
        ("sub-gl003_dir-ax_ct.nii.gz", "sub-gl003_dir-ax", "ct"),
        ("sub-verse500_split-verse416_seg-vert_msk.nii.gz", "sub-verse500_split-verse416", "seg-vert_msk"),
        ("sub-verse500_split-verse416_dir-sag_ct.nii", "sub-verse500_split-verse416_dir-sag", "ct"),
        ("sub-verse004_seg-subreg_ctd.json", "sub-verse004", "seg-subreg_ctd"),
        ("sub-verse004_seg-vb_ctd.json", "sub-verse004", "seg-vb_ctd"),
        # The MICCAI layout.
        ("verse014.nii.gz", "sub-verse014", "ct"),
        ("verse512_CT-iso.nii.gz", "sub-verse512_dir-iso", "ct"),
        ("verse512_CT-iso_seg.nii.gz", "sub-verse512_dir-iso", "seg-vert_msk"),
        ("verse123_seg.nii", "sub-verse123", "seg-vert_msk"),
        ("verse512_CT-iso_iso-ctd.json", "sub-verse512_dir-iso", "seg-subreg_ctd"),
        ("verse014_ctd.json", "sub-verse014", "seg-subreg_ctd"),
        ("verse400_verse090_CT-sag.nii.gz", "sub-verse400_split-verse090_dir-sag", "ct"),
        ("GL017_CT_ax.nii.gz", "sub-gl017_dir-ax", "ct"),
        ("GL018-GL016_iso-ctd.json", "sub-gl018_split-gl016", "seg-subreg_ctd"),
        ("GL124_CT_ax-iso-ctd.json", "sub-gl124_dir-ax", "seg-subreg_ctd"),
    ],
)
def test_names_of_verse_are_taken_apart(name, case_id, kind):
    parsed = parse_file_name(name)
    assert (parsed.case_id(), parsed.kind) == (case_id, kind)


@pytest.mark.parametrize(
    "name",
    [
        "._sub-verse004_ct.nii.gz",
        ".sub-verse004_ct.nii.gz",
        "sub-verse004_ct.json",
        "sub-verse004_seg-vert_snp.png",
        "sub-verse004_seg-subreg_msk.nii.gz",
        "verse004_ct.nii.gz",
        "verse512_CT-iso.png",
        "verse512_CT-iso-w.png",
        "verse512_CT-iso_seg.json",
        "myverse512.nii.gz",
        "verse512_cropped.nii.gz",
        "sub-verse004_dir-up_ct.nii.gz",
    ],
)
def test_other_files_are_left_alone(name):
    assert parse_file_name(name) is None


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("dataset-verse19training/rawdata", ("training", 19)),
        ("dataset-verse20test/dataset-verse20test/rawdata/sub-gl1", ("test", 20)),
        ("dataset-02validation", ("validation", 20)),
        ("01_training/rawdata", ("training", 20)),
        ("dataset-03test (1)/derivatives", ("test", 20)),
        ("home/u/latest/my_training/dataset-02validation/rawdata", ("validation", 20)),
        ("latest/my_training", None),
    ],
)
def test_split_comes_from_the_nearest_dataset_folder(folder, expected):
    assert parse_dataset_folder(Path("/") / folder) == expected


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("sub-verse012", "sub-verse012_dir-iso", True),  # VerSe19, and MICCAI's VerSe20
        ("sub-verse090_dir-iso", "sub-verse400_split-verse090", True),
        ("sub-verse400_split-verse155", "sub-verse400_split-verse090", False),
        ("sub-gl003_dir-ax", "sub-gl003_dir-sag", False),
        ("sub-verse012", "sub-verse013", False),
        ("anna", "anna", True),
        ("anna", "sub-verse012", False),
    ],
)
def test_ids_of_one_scan(first, second, same):
    assert is_same_scan(first, second) == is_same_scan(second, first) == same
