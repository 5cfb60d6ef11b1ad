"""Check a VerSe folder before it is preprocessed: ``python -m verse_utils.check ROOT [--json FILE]``.

Every file is read to its end. Exit code 1 where a case can't be used, 2 where the folder can't be read at all.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from verse_utils.check.findings import KINDS, CaseReport, lines_of
from verse_utils.errors import UserError, one_line
from verse_utils.files.disk import require_writable
from verse_utils.files.writing import write_json
from verse_utils.names import SPLITS


def print_table(reports: Sequence[CaseReport]) -> None:
    """Print the cases with findings by kind, then a line for each finding, then how many cases are fine."""
    found = [report for report in reports if report.findings]
    kinds = [kind for kind in KINDS if any(finding.kind == kind for report in found for finding in report.findings)]
    if found:
        width = max(len(report.case_id) for report in found)
        print(f"{'case':{width}}  {'split':10}" + "".join(f"{kind:>13}" for kind in kinds))
        for report in found:
            marks = {finding.kind: "unusable" if finding.is_fault else "look" for finding in reversed(report.findings)}
            marks |= {finding.kind: "unusable" for finding in report.faults}
            cells = "".join(f"{marks.get(kind, ''):>13}" for kind in kinds)
            print(f"{report.case_id:{width}}  {report.split:10}{cells}".rstrip())
        print()
    for line in lines_of(reports, faults=True):
        print(f"unusable: {line}")
    for line in lines_of(reports, faults=False):
        print(f"look: {line}")
    unusable = sum(bool(report.faults) for report in reports)
    look = len(found) - unusable
    print(f"{len(reports)} cases: {len(reports) - len(found)} fine, {look} to look at, {unusable} unusable")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Find what is wrong with cases.")
    add = parser.add_argument
    add("root", type=Path, metavar="ROOT", help="folder that holds VerSe's dataset folders at any depth")
    add("--json", type=Path, metavar="FILE", help="also write the findings to a file")
    add("--include", nargs="+", default=(), metavar="ID", help="only these case ids or subjects; globs such as sub-gl*")
    add("--exclude", nargs="+", default=(), metavar="ID", help="case ids or subjects to leave out; globs")
    add("--workers", type=int, help="processes (default: one per core)")
    arguments = parser.parse_args()
    if arguments.workers is not None and arguments.workers < 1:
        raise UserError(f"--workers {arguments.workers}: must be positive")
    if arguments.json:
        require_writable(arguments.json, "--json", "file")
    return arguments


def run() -> int:
    """Check all cases and print what was found; returns the exit code."""
    arguments = parse_arguments()
    from verse_utils.check.cases import check_all, find_duplicates  # nibabel would slow down --help
    from verse_utils.check.selection import find_all

    cases, reports = find_all(arguments.root, arguments.include, arguments.exclude)
    workers = arguments.workers or os.cpu_count() or 1
    reports += tqdm(check_all(cases, workers), total=len(cases), desc="check", unit="case", disable=None)
    find_duplicates(reports)
    reports.sort(key=lambda report: ((*SPLITS, "").index(report.split), report.case_id))
    print_table(reports)
    if arguments.json:
        content = {"data": str(arguments.root), "cases": [report.as_dict() for report in reports]}
        write_json(arguments.json, content)
    return int(any(report.faults for report in reports))


def main() -> None:
    """Run the command: an error of the user is one line."""
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {one_line(message)}", file=sys.stderr)
    try:
        sys.exit(run())
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
