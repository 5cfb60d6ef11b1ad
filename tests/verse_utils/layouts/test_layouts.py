"""Each layout: the phantoms written in it give the same cases and the same H5; and what its files may lack."""

import json
import os
import shutil
import warnings
from collections import Counter
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest

from preprocessing import IsotropicSettings, preprocess
from utils.files.h5_cases import H5Cases
from verse_utils.cases import Chosen, find_cases
from verse_utils.catalogue import known_layouts, list_cases
from verse_utils.centroids import read_centroids
from verse_utils.errors import UserError

LAYOUTS = ("MICCAI", "nnU-Net", "TotalSegmentator", "CTSpine1K", "CSV")


def edition_of(layout):
    return 20 if layout == "MICCAI" else 19


def quiet_cases(*roots, edition=19, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*(not all of VerSe|taken for background)")
        return list_cases(roots, edition, **options)


def test_every_layout_is_tried_here():
    assert {layout.title for layout in known_layouts()} | {"MICCAI"} == set(LAYOUTS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_scans_in_each_layout_give_the_same_h5(layout, write_tree, verse_cases, segmentation_h5, tmp_path):
    tree = write_tree(layout)
    settings = IsotropicSettings(spacing_mm=6.0)  # those of ``segmentation_h5``
    path = preprocess([tree.path], edition_of(layout), settings, tmp_path / "out", workers=1, pictures=False)
    expected, store = H5Cases(segmentation_h5), H5Cases(path)
    for split in ("training", "validation", "test"):
        assert sorted(store.case_ids(split)) == sorted(tree.id_of[case_id] for case_id in expected.case_ids(split))
    for case in verse_cases:
        case_id = tree.id_of[case.case_id]
        for mine, its in zip(store.read(case.split, case_id), expected.read(case.split, case.case_id), strict=True):
            np.testing.assert_array_equal(mine, its)
        mine, its = store.case(case.split, case_id), expected.case(case.split, case.case_id)
        assert mine.data_set and mine.licence and (its.data_set, its.licence) == ("VerSe19", "CC BY-SA 4.0")
        np.testing.assert_array_equal(mine.grid.affine, its.grid.affine)
        np.testing.assert_array_equal(mine.grid.source_affine, its.grid.source_affine)


@pytest.mark.parametrize(
    ("layout", "data_set", "licence"),
    [
        ("MICCAI", "VerSe20", "CC BY-SA 4.0"),
        ("nnU-Net", "nnU-Net Dataset777_Spine", "CC0"),
        ("TotalSegmentator", "TotalSegmentator", "CC BY 4.0"),
        ("CTSpine1K", "CTSpine1K", "CC BY-NC-SA"),
        ("CSV", "mine", "not stated"),
    ],
)
def test_where_cases_come_from_and_who_they_are(layout, data_set, licence, write_tree, verse_cases):
    tree = write_tree(layout)
    cases = quiet_cases(tree.path, edition=edition_of(layout))
    assert {case.data_set for case in cases} == {data_set}
    assert {case.licence for case in cases} == {licence}
    assert {case.case_id: case.split for case in cases} == {
        tree.id_of[case.case_id]: case.split for case in verse_cases
    }
    excluded = cases[0]
    left = quiet_cases(tree.path, edition=edition_of(layout), chosen=Chosen(exclude=[excluded.patient]))
    assert excluded.case_id not in [case.case_id for case in left] and len(left) == len(cases) - 1


def test_miccai_centroids_are_at_the_same_places(write_tree, verse_cases):
    cases = {case.case_id: case for case in quiet_cases(write_tree("MICCAI").path, edition=20)}
    for number, case in enumerate(verse_cases, start=501):
        image = nib.load(case.image_path)
        expected = read_centroids(case.centroid_path).to_world(image.affine, image.shape)
        found = read_centroids(cases[f"sub-verse{number}_dir-iso"].centroid_path).to_world(image.affine, image.shape)
        assert list(found) == list(expected)
        for label in expected:
            np.testing.assert_allclose(found[label], expected[label], atol=1e-3)


@pytest.mark.parametrize(
    ("layout", "file"),
    [
        ("nnU-Net", "Dataset777_Spine/splits_final.json"),
        ("TotalSegmentator", "meta.csv"),
        ("CTSpine1K", "raw_data/data_split.txt"),
    ],
)
def test_splits_that_nobody_tells_are_drawn_by_patient_and_said(layout, file, write_tree):
    tree = write_tree(layout)
    (tree.path / file).unlink()
    with pytest.warns(UserWarning, match=r"tells no split of .*drawn with seed 0: .* training, 1 validation"):
        first = list_cases([tree.path], 19)
    with pytest.warns(UserWarning, match="drawn with seed 0"):
        again = list_cases([tree.path], 19)
    assert first == again
    assert {case.split for case in first} == {"training", "validation", "test"}
    with pytest.warns(UserWarning, match="drawn with seed"):
        others = [list_cases([tree.path], 19, seed=seed) for seed in (1, 2, 3)]
    assert any(other != first for other in others)


@pytest.mark.parametrize(
    ("layout", "file"),
    [
        ("nnU-Net", "Dataset777_Spine/dataset.json"),
        ("nnU-Net", "Dataset777_Spine/splits_final.json"),
        ("TotalSegmentator", "meta.csv"),
    ],
)
def test_a_pipe_in_place_of_a_list_is_refused(layout, file, write_tree):
    path = write_tree(layout).path / file
    path.unlink()
    os.mkfifo(path)  # whoever opened it would wait without end
    with pytest.raises(UserError, match=rf"{path.name}: .*a folder, a pipe or a device"):
        list_cases([path.parent], 19)


def test_files_without_partners_are_named(write_tree):
    total = write_tree("TotalSegmentator").path
    shutil.rmtree(total / "s0001" / "segmentations")
    with pytest.raises(UserError, match=r"s0001/ct\.nii\.gz: no mask of this id"):
        list_cases([total], 19)
    assert len(quiet_cases(total, chosen=Chosen(exclude=["s0001"]))) == 3
    spine = write_tree("CTSpine1K").path
    next(spine.rglob("*0002.nii.gz")).unlink()
    with pytest.raises(UserError, match=r"0002_seg\.nii\.gz: a mask without its CT"):
        list_cases([spine], 19)
    nnunet = write_tree("nnU-Net").path / "Dataset777_Spine"
    next((nnunet / "labelsTr").iterdir()).unlink()
    with pytest.raises(UserError, match=r"_0000\.nii\.gz: no mask of this id"):
        list_cases([nnunet], 19)


def _nnunet_labels(tree, change):
    path = tree.path / "Dataset777_Spine" / "dataset.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_folders_and_tables_of_copies_may_differ(write_tree, verse_cases):
    splits = {case.split for case in verse_cases}
    total = write_tree("TotalSegmentator").path
    text = (total / "meta.csv").read_text(encoding="utf-8-sig")
    (total / "meta.csv").write_text(text.replace(";", ","), encoding="utf-8")
    assert {case.split for case in list_cases([total], 19)} == splits
    spine = write_tree("CTSpine1K").path / "raw_data"
    (spine / "volumes").rename(spine / "images")
    (spine / "metadata").mkdir()
    (spine / "data_split.txt").rename(spine / "metadata" / "data_split.txt")
    cases = list_cases([spine.parent], 19)
    assert len(cases) == 4 and {case.split for case in cases} == splits


def test_labels_of_nnunet_by_their_names(write_tree, verse_cases):
    tree = write_tree("nnU-Net")
    _nnunet_labels(tree, lambda content: content["labels"].update(liver=26, whole=[1, 2]))
    with pytest.warns(UserWarning, match="taken for background: sacrum, liver"):
        (numbering,) = {case.numbering for case in list_cases([tree.path], 19)}
    assert numbering.label_of[1] == 24 and numbering.label_of[24] == 1 and numbering.label_of[26] == 0
    _nnunet_labels(tree, lambda content: content.update(labels={"0": "background", "1": "vertebra"}))
    (numbering,) = {case.numbering for case in list_cases([tree.path], 19)}
    assert dict(numbering.label_of) == {1: 1}
    for change, words in (
        ({"file_ending": ".nrrd"}, "only NIfTI is read"),
        ({"channel_names": {"0": "T1", "1": "T2"}}, "of its 2 channels, 0 are named CT"),
        ({"channel_names": ["CT"]}, "don't map numbers to names"),
    ):
        _nnunet_labels(tree, lambda content, change=change: content.update({"file_ending": ".nii.gz"} | change))
        with pytest.raises(UserError, match=rf"dataset\.json.*{words}"):
            list_cases([tree.path], 19)
    _nnunet_labels(tree, lambda content: content.update(channel_names={"0": "PET", "1": "CT"}))
    with pytest.raises(UserError, match="a mask without its CT"):
        list_cases([tree.path], 19)  # all images are of channel 0000
    for labels, words in (
        ({"liver": 1}, "none of its labels"),
        ({"L1": 300}, "not a number"),
        ({"L1": "9" * 5000}, "not a number"),
        ({"L1": 1, "L2": 1}, "has the name or the number of another"),
        ({"1": "L1", "2": "L1"}, "has the name or the number of another"),
        (None, 'no "labels"'),
    ):
        _nnunet_labels(tree, lambda content, labels=labels: content.update(labels=labels))
        with pytest.raises(UserError, match=words):
            list_cases([tree.path], 19)


def test_images_without_masks_are_no_cases_of_nnunet(write_tree):
    tree = write_tree("nnU-Net")
    shutil.rmtree(tree.path / "Dataset777_Spine" / "labelsTs")
    with pytest.warns(UserWarning, match="sacrum"):
        assert {case.split for case in list_cases([tree.path], 19)} == {"training", "validation"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("image,mask", "picture,mask"), "must name the columns image, mask"),
        (lambda text: text.replace("centroids", "centres"), "unknown column 'centres'"),
        (lambda text: text.replace(",test,", ",exam,"), "line 5: split 'exam' is none of"),
        (lambda text: text.replace("scans/", "nowhere/", 1), "line 2: .*nowhere.*no such file"),
        (lambda text: text + text.splitlines()[1] + "\n", "line 6: the case .* is in line 2 too"),
        (lambda text: "\ufffe" + text, "must name the columns"),
    ],
)
def test_mistakes_in_a_table_are_named_by_their_line(write_tree, change, words):
    path = write_tree("CSV").path
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(UserError, match=rf"mine\.csv.*{words}"):
        list_cases([path], 19)


def test_a_table_may_name_more(write_tree, verse_cases):
    path = write_tree("CSV").path
    case = verse_cases[0]
    path.write_text(
        f"image;mask;case;labels;licence;data_set\n{case.image_path};{case.mask_path};a b;spineps;CC0;my spines\n",
        encoding="utf-8",
    )
    with pytest.warns(UserWarning, match="drawn with seed 0: 1 training"):
        (found,) = list_cases([path], 19)
    assert (found.case_id, found.patient, found.split) == ("a b", "a b", "training")
    assert (found.numbering.name, found.licence, found.data_set) == ("spineps", "CC0", "my spines")


def test_several_roots_are_one_list_of_unique_cases(write_tree, phantom_root, verse_cases):
    total, spine = write_tree("TotalSegmentator"), write_tree("CTSpine1K")
    cases = quiet_cases(phantom_root, total.path, spine.path)
    assert len({case.case_id for case in cases}) == len(cases) == 12


def test_files_that_a_table_lists_again_count_once(write_tree, phantom_root, verse_cases):
    table = write_tree("CSV").path
    rows = "".join(f"{case.image_path},{case.mask_path}\n" for case in verse_cases)
    table.write_text(f"image,mask\n{rows}", encoding="utf-8")  # splits that were drawn give way
    with pytest.warns(UserWarning, match=r"mine\.csv: 4 of its scans are .* again"):
        assert list_cases([phantom_root, table], 19) == verse_cases


def test_a_scan_that_is_to_be_in_two_splits_is_refused(write_tree, phantom_root, verse_cases, tmp_path):
    test, table = verse_cases[-1], write_tree("CSV").path
    name = test.image_path.name
    row = f"image,mask,split,case\n{test.image_path},{test.mask_path}"
    table.write_text(f"{row},training,a\n", encoding="utf-8")
    for roots in ([phantom_root, table], [table, phantom_root]):
        with pytest.raises(UserError, match=rf"{name} \(of .*\): is in .*{name} \(of .*\), the same scan"):
            quiet_cases(*roots)
    table.write_text(f"{row},training,a\n{row.splitlines()[1]},test,b\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"is in test, and .*, the same scan, in training; give both one split, or"):
        quiet_cases(table)
    table.write_text(f"{row},test,a\n{row.splitlines()[1]},test,b\n", encoding="utf-8")  # masks of two readers
    assert [case.case_id for case in quiet_cases(table)] == ["a", "b"]
    copy = shutil.copytree(phantom_root, tmp_path / "copy")
    (copy / "more").mkdir()
    (copy / "dataset-verse19test").rename(copy / "more" / "dataset-verse19training")
    with pytest.raises(UserError, match="the same scan, in test"):
        quiet_cases(phantom_root, copy)


@pytest.mark.parametrize(
    ("layout", "file", "change"),
    [
        ("nnU-Net", "Dataset777_Spine/splits_final.json", lambda text: text.replace('"val": [', '"val": ["CASE", ')),
        ("TotalSegmentator", "meta.csv", lambda text: text + "s0000;50;test\n"),
        ("CTSpine1K", "raw_data/data_split.txt", lambda text: text + "test_private:\nCASE.nii.gz\n"),
    ],
)
def test_a_list_that_has_a_case_in_two_splits_is_refused(layout, file, change, write_tree):
    tree = write_tree(layout)
    name = min(tree.id_of.values())
    path = tree.path / file
    path.write_text(change(path.read_text(encoding="utf-8")).replace("CASE", name), encoding="utf-8")
    with pytest.raises(UserError, match=rf"{path.name}: {name} is in training and in (validation|test); keep it in"):
        quiet_cases(tree.path)


def test_an_id_of_nnunet_in_training_and_test_is_refused(write_tree):
    folder = write_tree("nnU-Net").path / "Dataset777_Spine"
    for kind in ("images", "labels"):
        path = min((folder / f"{kind}Tr").iterdir())
        shutil.copyfile(path, folder / f"{kind}Ts" / path.name)
    with pytest.raises(UserError, match=r"imagesTs.*: imagesTr has a case .* too; remove one of them, or rename it"):
        quiet_cases(folder)


HEATMAP = ("--task", "heatmap", "--input_shape", 16, 16, 32, "--workers", 1)


def test_the_command_takes_several_data_sets(write_tree, phantom_root, tmp_path, run_script, assert_one_line_error):
    tree = write_tree("TotalSegmentator")
    result = run_script("preprocessing.py", "--data_path", phantom_root, tree.path, *HEATMAP, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    path = tmp_path / result.stdout.strip()
    assert path.name == f"{phantom_root.name}+TotalSegmentator_verse19_heatmap_16x16x32.h5"
    with h5py.File(path) as file:
        cases = [case for split in file.values() for case in split.values()]
        assert Counter((case.attrs["data_set"], case.attrs["licence"]) for case in cases) == {
            ("VerSe19", "CC BY-SA 4.0"): 4,
            ("TotalSegmentator", "CC BY 4.0"): 4,
        }
    for arguments, words in (
        (("absent",), ("absent", "no such file or folder")),
        ((tree.path, "--download"), ("--download", "one --data_path")),
    ):
        result = run_script("preprocessing.py", "--data_path", phantom_root, *arguments, *HEATMAP, cwd=tmp_path)
        assert_one_line_error(result, *words)


def test_an_h5_without_verse_is_not_named_by_an_edition(write_tree, tmp_path, run_script):
    tree = write_tree("CSV")
    result = run_script("preprocessing.py", "--data_path", tree.path, *HEATMAP, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).name == "mine_heatmap_16x16x32.h5"


def test_the_same_id_in_two_data_sets_gets_the_later_roots_name(write_tree, tmp_path):
    total = write_tree("TotalSegmentator").path
    other = shutil.copytree(total, tmp_path / "elsewhere")
    cases = quiet_cases(total, other)
    assert sorted(case.case_id for case in cases if case.split == "test") == ["elsewhere_s0003", "s0003"]
    assert {case.patient for case in cases} == {case.case_id for case in cases}


def test_a_scan_in_two_roots_counts_once(phantom_root, tmp_path, verse_cases):
    copy = shutil.copytree(phantom_root, tmp_path / "copy")
    with pytest.warns(UserWarning, match=r"copy: 4 of its scans are .* again"):
        cases = list_cases([phantom_root, copy], 19)
    assert cases == find_cases(phantom_root, 19)


def test_scans_of_verse19_that_verse20_repeats_count_once(tmp_path):
    """The MICCAI layout of VerSe20 has scans of VerSe19 again, with "CT-iso" in their names and other splits."""
    names = ("sub-verse012_ct.nii.gz", "sub-verse400_split-verse090_ct.nii.gz")
    for name in (*names, *(name.replace("_ct", "_seg-vert_msk") for name in names)):
        path = tmp_path / "verse19" / "dataset-verse19training" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    stems = ("verse012_CT-iso", "verse400_verse090_CT-sag", "verse512_CT-iso", "GL017_CT_ax", "verse400_verse501")
    for stem in stems:
        for ending in (".nii.gz", "_seg.nii.gz", "_iso-ctd.json"):
            path = tmp_path / "miccai" / "test" / stem / f"{stem}{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    with pytest.warns(UserWarning, match="miccai: 2 of its scans are .* again"):
        cases = list_cases([tmp_path / "verse19", tmp_path / "miccai"], 19)
    assert [(case.case_id, case.split) for case in cases] == [
        ("sub-verse012", "training"),
        ("sub-verse400_split-verse090", "training"),
        ("sub-verse400_split-verse501", "training"),  # with the patient's other scan
        ("sub-gl017_dir-ax", "test"),
        ("sub-verse512_dir-iso", "test"),
    ]
    (tmp_path / "miccai" / "test").rename(tmp_path / "miccai" / "03_test")
    with pytest.warns(UserWarning, match="2 of its VerSe20 scans have numbers under 500"):
        assert len(list_cases([tmp_path / "miccai"], 20)) == 5


def test_two_layouts_of_verse_in_one_folder_count_once(tmp_path):
    for stem, image, mask in (
        ("verse012_CT-iso", ".nii.gz", "_seg.nii.gz"),
        ("sub-verse012", "_ct.nii.gz", "_seg-vert_msk.nii.gz"),
    ):
        (tmp_path / stem / "training").mkdir(parents=True)
        for ending in (image, mask):
            (tmp_path / stem / "training" / f"{stem}{ending}").touch()
    with pytest.warns(UserWarning, match="1 of its scans are here or"):
        assert [case.case_id for case in list_cases([tmp_path], 19)] == ["sub-verse012"]


def test_two_layouts_in_one_root_are_refused(write_tree, phantom_root, tmp_path):
    write_tree("TotalSegmentator")
    shutil.copytree(phantom_root, tmp_path / "verse")
    with pytest.raises(UserError, match=r"2 layouts: TotalSegmentator \(.*\), VerSe \(.*\); pass each folder"):
        list_cases([tmp_path], 19)
