"""Which of the cases found are wanted, and what is wrong with files that make no case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from verse_utils.errors import UserError


class Chosen:
    """Which cases are wanted; readers of layouts ask it for each case, and tell it of files that make none.

    Args:
        include: globs of case ids or patients, such as ``sub-gl*``; all cases if there are none.
        exclude: globs of those to leave out.
        goes_on: keep in mind what is wrong with files instead of raising an error for it.

    Attributes:
        problems: case id -> what is wrong with its files; filled if it ``goes_on``.
    """

    def __init__(self, include: Iterable[str] = (), exclude: Iterable[str] = (), goes_on: bool = False) -> None:
        self._globs = {"--include": tuple(include), "--exclude": tuple(exclude)}
        self.unmatched = {(flag, glob) for flag, globs in self._globs.items() for glob in globs}
        self.goes_on = goes_on
        self.problems: dict[str, str] = {}

    @property
    def is_everything(self) -> bool:
        """Whether no case was chosen by hand."""
        return not any(self._globs.values())

    def leaves_out(self, case_id: str, patient: str) -> bool:
        """Whether a case is not wanted."""
        is_included = self._match("--include", case_id, patient) or not self._globs["--include"]
        is_excluded = self._match("--exclude", case_id, patient)
        return is_excluded or not is_included

    def _match(self, flag: str, *names: str) -> bool:
        matching = {(flag, glob) for glob in self._globs[flag] if any(fnmatchcase(name, glob) for name in names)}
        self.unmatched -= matching
        return bool(matching)

    def tell(self, problems: Mapping[str, str]) -> None:
        """Take note of cases whose files don't pair: id -> what is wrong. Raises UserError unless it is to go on."""
        if problems and not self.goes_on:
            shown = "; ".join([*problems.values()][:5])
            shown += f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
            remedy = "add what is missing, remove what is double, or leave cases out with --exclude ID"
            raise UserError(f"{shown}; {remedy}")
        self.problems |= problems

    def check_used(self, place: object) -> None:
        """Raise UserError for a glob that no case matched; after all cases of ``place`` were asked for."""
        for flag, glob in sorted(self.unmatched):
            raise UserError(f"{place}: {flag} {glob} matches no case or patient; correct it or remove it")
