import pytest

from verse_utils.cases import Chosen
from verse_utils.errors import UserError

CASES = [("sub-gl003_dir-ax", "sub-gl003"), ("sub-gl017", "sub-gl017"), ("sub-verse009", "sub-verse009")]


def left(chosen: Chosen) -> list[str]:
    return [case_id for case_id, patient in CASES if not chosen.leaves_out(case_id, patient)]


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ([], [], ["sub-gl003_dir-ax", "sub-gl017", "sub-verse009"]),
        (["sub-gl*"], [], ["sub-gl003_dir-ax", "sub-gl017"]),
        ([], ["sub-gl003"], ["sub-gl017", "sub-verse009"]),  # a patient
        ([], ["*_dir-ax"], ["sub-gl017", "sub-verse009"]),
        (["sub-gl*", "sub-verse009"], ["sub-gl01?"], ["sub-gl003_dir-ax", "sub-verse009"]),
        (["sub-[!g]*"], [], ["sub-verse009"]),
        (["sub-gl003"], ["sub-gl*"], []),
    ],
)
def test_globs_of_ids_and_patients(include, exclude, expected):
    chosen = Chosen(include, exclude)
    assert left(chosen) == expected
    chosen.check_used("data")
    assert chosen.is_everything == (not include and not exclude)


@pytest.mark.parametrize(
    ("include", "exclude", "flag"), [(["sub-x"], [], "--include"), (["*"], ["sub-x"], "--exclude")]
)
def test_a_glob_that_matches_nothing_is_an_error(include, exclude, flag):
    chosen = Chosen(include, exclude)
    left(chosen)
    with pytest.raises(UserError, match=f"data: {flag} sub-x matches no case or patient; correct it or remove it"):
        chosen.check_used("data")


def test_problems_stop_or_are_kept():
    problems = {f"sub-{n}": f"{n}.nii.gz: no mask of this id" for n in range(7)}
    with pytest.raises(UserError, match=r"4\.nii\.gz: no mask of this id; and 2 more; add what is missing"):
        Chosen().tell(problems)
    chosen = Chosen(goes_on=True)
    chosen.tell(problems)
    assert chosen.problems == problems
