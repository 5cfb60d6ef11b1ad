"""Both editions as one data set, from folders shaped like VerSe's."""

import argparse
from collections import Counter
from pathlib import Path

import pytest

from verse_utils.catalogue import list_cases
from verse_utils.editions import EXPECTED_COUNTS, add_edition_argument, as_editions, describe_counts, edition_name
from verse_utils.errors import UserError
from verse_utils.names import SPLITS

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of counts, and of scans that repeat

# As they are published: VerSe20's dataset folders tell the edition by their number.
FOLDERS = {(19, split): f"dataset-verse19{split}" for split in SPLITS}
FOLDERS |= {(20, split): f"dataset-0{number}{split}" for number, split in enumerate(SPLITS, 1)}


def touch(root: Path, folder: str, *case_ids: str) -> None:
    for case_id in case_ids:
        subject = case_id.split("_")[0]
        for kind, name in (("rawdata", "ct"), ("derivatives", "seg-vert_msk")):
            path = root / folder / kind / subject / f"{case_id}_{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


@pytest.fixture
def verse(tmp_path):
    """Trees with the published counts. VerSe19 has 19 patients with a second scan; VerSe20 has a scan a patient."""
    subjects = (f"sub-verse{number:03d}" for number in range(1, 900))
    scans = (f"verse{number}" for number in range(1000, 2000))
    seconds = 19
    for (edition, split), folder in FOLDERS.items():
        count = EXPECTED_COUNTS[edition][split]
        while count:
            subject = next(subjects)
            if edition == 19 and seconds and count >= 2:
                touch(tmp_path, folder, f"{subject}_split-{next(scans)}", f"{subject}_split-{next(scans)}")
                seconds, count = seconds - 1, count - 2
            else:
                touch(tmp_path, folder, subject)
                count -= 1
    return tmp_path


def counts(cases) -> dict[str, int]:
    return {**Counter(case.split for case in cases), "patients": len({case.patient for case in cases})}


def test_both_editions_have_the_published_counts(verse):
    cases = list_cases([verse], (19, 20))
    assert counts(cases) == {"training": 141, "validation": 120, "test": 113, "patients": 355}
    assert counts(list_cases([verse], 19)) == {"training": 80, "validation": 40, "test": 40, "patients": 141}
    assert counts(list_cases([verse], 20)) == {"training": 61, "validation": 80, "test": 73, "patients": 214}


def test_copies_of_verse19_in_verse20_change_nothing(verse):
    """As in circulation: scans of VerSe19 again, some in another split."""
    before = list_cases([verse], (19, 20))
    for number, case in enumerate(list_cases([verse], 19)[::3]):
        touch(verse, FOLDERS[20, SPLITS[number % 3]], case.case_id)
    assert list_cases([verse], (20, 19)) == before


def test_another_scan_of_a_patient_follows_the_patient(verse):
    for case in [case for case in list_cases([verse], 19) if case.split != "test" and "split" not in case.case_id][::9]:
        touch(verse, FOLDERS[20, "test"], f"{case.patient}_split-verse9{case.patient[-3:]}")
    cases = list_cases([verse], (19, 20))
    assert len(cases) > 374
    assert len({(case.patient, case.split) for case in cases}) == len({case.patient for case in cases}) == 355


def test_a_folder_that_tells_no_edition_is_refused_when_both_are_wanted(verse):
    touch(verse, "more/training", "sub-gl001")
    assert "sub-gl001" in {case.case_id for case in list_cases([verse], 19)}
    with pytest.raises(UserError, match=r"sub-gl001_ct\.nii\.gz: no folder above it tells the edition"):
        list_cases([verse], (19, 20))


def test_an_edition_that_is_not_there_is_named(tmp_path):
    touch(tmp_path, FOLDERS[19, "training"], "sub-verse001")
    with pytest.raises(UserError, match=r"no case of VerSe20 .* it holds VerSe19"):
        list_cases([tmp_path], (19, 20))


def test_the_counts_say_why_verse20_has_61_training_scans(verse):
    text = describe_counts([case.split for case in list_cases([verse], 20)], 20)
    assert text.startswith("verse20: 61 training, 80 validation, 73 test cases. The paper of VerSe20 counts more")
    both = describe_counts([case.split for case in list_cases([verse], (19, 20))], (19, 20))
    assert both == "verse19+20: 141 training, 120 validation, 113 test cases"


@pytest.mark.parametrize(
    ("words", "edition"), [([], 19), (["20"], 20), (["20", "19"], (19, 20)), (["both"], (19, 20)), (["19", "19"], 19)]
)
def test_editions_as_they_are_written(words, edition):
    parser = argparse.ArgumentParser()
    add_edition_argument(parser, "")
    assert parser.parse_args(["--dataset_edition", *words] if words else []).dataset_edition == edition


def test_other_editions():
    assert edition_name((20, 19)) == "verse19+20" and edition_name(20) == "verse20"
    for nothing in ((), (21,), 18):
        with pytest.raises(ValueError, match="19 and 20"):
            as_editions(nothing)
