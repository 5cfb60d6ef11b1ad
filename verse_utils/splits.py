"""Splits of patients: for data that tells none, folds for cross-validation, and those of several data sets as one."""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from verse_utils.errors import UserError
from verse_utils.names import is_same_scan

# Everyone has the same folds.
_FOLD_SEED = 0


@dataclass(frozen=True)
class Fold:
    """A fold of a cross-validation: the part ``number``, from 1, of ``count`` is validated on, all others train."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Fold:
        """Read ``2/5``. Raises ValueError."""
        number, count = (int(part) for part in text.split("/"))
        if not 1 <= number <= count or count < 2:
            raise ValueError(f"{text}: the first number is at least 1 and at most the second, which is at least 2")
        return cls(number, count)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def split_patients(patients: Iterable[str], shares: Mapping[str, float], seed: int = 0) -> dict[str, str]:
    """Draw splits; all scans of a patient go with the patient.

    The order of the draw is that of a hash of seed and name. So it is the same in any order of the patients and on any
    machine, and a patient more changes the split of few others.

    Args:
        patients: their names; repeated ones count once.
        shares: split -> share of the patients, 0 to 1, rounded; at least one patient as long as one stays for training.
        seed: another one gives other splits.

    Returns:
        patient -> split; who is in no share is in training.

    Raises:
        ValueError: a share below 0, or together more than 1.
    """
    if min(shares.values(), default=0) < 0 or sum(shares.values()) > 1:
        raise ValueError(f"shares of patients lie between 0 and 1, together too, got {dict(shares)}")
    drawn = _drawn(patients, seed)
    split_of = dict.fromkeys(drawn, "training")
    total, taken = len(drawn), 0
    for split, share in shares.items():
        count = min(max(1, round(share * total)), max(0, total - 1 - taken)) if share else 0
        split_of.update(dict.fromkeys(drawn[taken : taken + count], split))
        taken += count
    return split_of


def validation_patients(patients: Iterable[str], fold: Fold) -> set[str]:
    """The patients of a fold that are validated on; those of all folds are all patients, each once.

    The draw doesn't depend on the order of the patients, and is the same for everyone.

    Args:
        patients: their names; repeated ones count once.
        fold: which one. Folds differ by at most one patient in size.

    Raises:
        ValueError: more folds than patients.
    """
    drawn = _drawn(patients, _FOLD_SEED)
    if fold.count > len(drawn):
        raise ValueError(f"{len(drawn)} patients can't be split into {fold.count} folds")
    return set(drawn[fold.number - 1 :: fold.count])


def _drawn(patients: Iterable[str], seed: int) -> list[str]:
    """Patients in an order of chance: that of a hash of seed and name."""
    return sorted(set(patients), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())


@dataclass(frozen=True)
class Member:
    """What has to be known of a case to join its data set with others.

    Attributes:
        case_id: unique in its data set.
        patient: a name that stands for one person in its data set.
        split: training, validation or test.
        scan: equal for copies of one CT.
        person: equal for one person; ``patient`` may not be, beside other data sets.
        is_verse: whether the id is VerSe's, so that it tells copies of a scan, too.
        data_set: that the case is of, such as "VerSe19".
        place: of its CT and of its data set, for messages.
        is_told: whether the data set tells the split; else it was drawn.
    """

    case_id: str
    patient: str
    split: str
    scan: Hashable
    person: Hashable
    is_verse: bool
    data_set: str
    place: str
    is_told: bool = True

    def contradicts(self, copy: Member) -> bool:
        """Whether another split is told of a copy. VerSe20 has scans of VerSe19 in other splits; those aren't meant."""
        are_editions = self.is_verse and copy.is_verse and self.data_set != copy.data_set
        return self.split != copy.split and self.is_told and not are_editions


def join(before: Sequence[Member], more: Sequence[Member], name: str, place: str) -> list[Member | None]:
    """Join another data set to those before it, which decide.

    A scan that is there already is left out; one that is to be in another split is an error, as the figures of one of
    the two data sets would be wrong. Other scans of a person who is there get that patient's name and split. An id or a
    patient's name that stands for another there gets ``name`` before it.

    Args:
        before: the cases that are there.
        more: those of the other data set.
        name: of the other data set.
        place: where it lies, for messages.

    Returns:
        The cases of ``more`` as they are from now on; None for those that are left out.

    Raises:
        UserError: a scan is in two splits; or an id is taken, even with ``name`` before it.

    Warns:
        UserWarning: scans were left out, or a patient is in two splits.
    """
    ids, scans = {case.case_id for case in before}, {case.scan: case for case in before}
    of_verse = [case for case in before if case.is_verse]
    seen: dict[Hashable, Member] = {}  # in this data set, where one CT may have several masks
    known, patients = {case.person: case for case in before}, {case.patient for case in before}
    taken = set(ids)
    joined: list[Member | None] = []
    for case in more:
        copy = scans.get(case.scan) or (_copy_in_verse(case, of_verse) if case.is_verse else None)
        if other := copy or seen.get(case.scan):
            _check_split(case, other)
        if copy:
            joined.append(None)
            continue
        seen[case.scan] = case
        if case.is_verse:
            of_verse.append(case)  # a folder may hold a scan in two layouts
        if case.person in known:
            case = replace(case, patient=known[case.person].patient, split=known[case.person].split)
        elif case.patient in patients:
            case = replace(case, patient=f"{name}_{case.patient}")
        if case.case_id in ids:
            case = replace(case, case_id=f"{name}_{case.case_id}")
        if case.case_id in taken:
            raise UserError(f"{place}: its case {case.case_id} is in another --data_path too; rename the folder")
        taken.add(case.case_id)
        joined.append(case)
    _warn(before, joined, place)
    return joined


def _copy_in_verse(case: Member, of_verse: Iterable[Member]) -> Member | None:
    return next((other for other in of_verse if is_same_scan(case.case_id, other.case_id)), None)


def _check_split(case: Member, copy: Member) -> None:
    if case.contradicts(copy):
        raise UserError(
            f"{case.place}: is in {case.split}, and {copy.place}, the same scan, in {copy.split}; "
            "give both one split, or leave one of them out"
        )


def _warn(before: Sequence[Member], joined: Sequence[Member | None], place: str) -> None:
    new = [case for case in joined if case is not None]
    if len(new) < len(joined):
        repeated = f"{len(joined) - len(new)} of its scans are here or in another --data_path again"
        warnings.warn(f"{place}: {repeated}; each counts once", stacklevel=4)
    splits_of: dict[str, set[str]] = defaultdict(set)
    for case in (*before, *new):
        splits_of[case.patient].add(case.split)
    for patient in dict.fromkeys(case.patient for case in new):
        if len(splits_of[patient]) > 1:
            splits = " and ".join(sorted(splits_of[patient]))
            warnings.warn(f"{place}: {patient} is in {splits}; scores are biased", stacklevel=4)
