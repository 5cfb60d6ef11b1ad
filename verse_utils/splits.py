"""Splits of patients: for data that tells none, and folds for cross-validation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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
