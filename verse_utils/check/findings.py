"""What was found wrong with a case, by kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from verse_utils.errors import DiskError, UserError, one_line

# Columns of the table, in the order in which a case is checked.
KINDS = ("pairing", "file", "grid", "intensities", "mask", "levels", "centroids", "duplicates", "other")


@dataclass(frozen=True)
class Finding:
    """Something wrong with a case.

    Attributes:
        kind: one of ``KINDS``.
        reason: one line that names the file, the value and the remedy.
        is_fault: the case can't be used; otherwise it is only worth a look.
    """

    kind: str
    reason: str
    is_fault: bool


@dataclass
class CaseReport:
    """What was found wrong with one case.

    Attributes:
        case_id: as in the file names.
        split: training, validation or test; empty where the case's files don't pair.
        findings: in the order of the checks.
        voxel_digest: equal for scans of the same voxels; None where the voxels were not read.
    """

    case_id: str
    split: str
    findings: list[Finding] = field(default_factory=list)
    voxel_digest: str | None = None

    @property
    def name(self) -> str:
        """The id, and the split where one is known."""
        return f"{self.case_id} ({self.split})" if self.split else self.case_id

    @property
    def faults(self) -> list[Finding]:
        """Why the case can't be used."""
        return [finding for finding in self.findings if finding.is_fault]

    def joined(self, other: CaseReport) -> CaseReport:
        """This report, then another of the same case."""
        return CaseReport(self.case_id, self.split, [*self.findings, *other.findings], other.voxel_digest)

    def fault(self, kind: str, reason: str) -> None:
        """Add a reason why the case can't be used."""
        self.findings.append(Finding(kind, one_line(reason), is_fault=True))

    def remark(self, kind: str, reason: str) -> None:
        """Add what is worth a look."""
        self.findings.append(Finding(kind, one_line(reason), is_fault=False))

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Make a finding of the error that the body raises, so that the other checks and cases go on.

        Raises:
            DiskError: from the body.
        """
        try:
            yield
        except DiskError:
            raise
        except UserError as error:
            self.fault(error.kind, str(error))
        except MemoryError:
            self.fault("other", f"{self.case_id}: memory was not enough; use fewer --workers")
        except Exception as error:  # one case must never stop hundreds of others
            reason = (str(error).splitlines() or [""])[0][:200]
            self.fault("other", f"{self.case_id}: {type(error).__name__}: {reason}; leave it out with --exclude")

    @classmethod
    def of_dict(cls, content: dict[str, Any]) -> CaseReport:
        """The report that ``as_dict`` made the content of."""
        findings = [Finding(**finding) for finding in content["findings"]]
        return cls(content["case_id"], content["split"], findings, content["voxel_digest"])

    def as_dict(self) -> dict[str, Any]:
        """The report in JSON's types."""
        return {
            "case_id": self.case_id,
            "split": self.split,
            "usable": not self.faults,
            "findings": [asdict(finding) for finding in self.findings],
            "voxel_digest": self.voxel_digest,
        }


def lines_of(reports: Iterable[CaseReport], faults: bool) -> list[str]:
    """A line for each fault, or for each remark: ``sub-a (training): …``."""
    return [
        f"{report.name}: {finding.reason}"
        for report in reports
        for finding in report.findings
        if finding.is_fault == faults
    ]
