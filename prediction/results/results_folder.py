"""The folder of inference's results: where the files of each scan lie, and the table of all scans."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prediction.results.label_tables import write_label_tables
from verse_utils.errors import UserError, one_line
from verse_utils.files.disk import require_name
from verse_utils.files.lock import locked
from verse_utils.files.writing import write_csv
from verse_utils.names import CENTROIDS, CT, MASK


class ScanResults:
    """The files of one scan's results; the paths say where a file belongs, not that it is there.

    Args:
        folder: of all results.
        name: of the scan, without its ending.
        bids: mask, centroids and picture are called as VerSe's are, in the manner of BIDS: sub-verse008_ct gives
            sub-verse008_seg-vert_msk.nii.gz.

    Attributes:
        mask: of the vertebrae, on the scan's grid.
        mask_on_slices: the same on the slices of a tilted gantry.
        probabilities: of foreground.
        segmentation: the mask as DICOM Segmentation.
        centroids: centres of the named vertebrae, in VerSe's form.
        picture: of the mask.
        summary: what was found and how, as JSON.
    """

    def __init__(self, folder: Path, name: str, bids: bool = False) -> None:
        self.mask = folder / f"{name}_vertebrae.nii.gz"
        self.mask_on_slices = folder / f"{name}_vertebrae_slices.nii.gz"
        self.probabilities = folder / f"{name}_probabilities.nii.gz"
        self.centroids = folder / f"{name}_ctd.json"
        self.segmentation = folder / f"{name}_vertebrae_seg.dcm"
        self.picture = folder / f"{name}.png"
        self.summary = folder / f"{name}_summary.json"
        ends = (f"{MASK}.nii.gz", f"{CENTROIDS[0]}.json", "seg-vert_snp.png")
        as_in_bids = [folder / f"{_entities(name)}_{end}" for end in ends]
        self._otherwise_named = as_in_bids
        if bids:
            self._otherwise_named = [self.mask, self.centroids, self.picture]
            self.mask, self.centroids, self.picture = as_in_bids

    def require_names(self, scan: Path) -> None:
        """Raise UserError before any work where the files can't have their names."""
        paths = (path for path in vars(self).values() if isinstance(path, Path))
        longest = max(paths, key=lambda path: len(path.name))
        require_name(longest.parent, longest.name, scan)

    def clear(self) -> None:
        """Remove all files of results but the mask, which the next one replaces, and the summary last.

        So no summary vouches for what another run made, wherever the next is stopped. Without one, nothing is removed:
        the files may be anybody's.
        """
        if self.summary.exists():
            others = (self.mask_on_slices, self.probabilities, self.centroids, self.segmentation, self.picture)
            for path in (*others, *self._otherwise_named, self.summary):
                path.unlink(missing_ok=True)

    def read_summary(self, scan: str, wanted: Sequence[Path] = ()) -> dict[str, Any] | None:
        """The summary, if it, the mask and what else is wanted are there; else None.

        Args:
            scan: absolute path of the scan.
            wanted: further files of the results.

        Raises:
            UserError: it is that of another scan.
        """
        try:
            summary: dict[str, Any] = json.loads(self.summary.read_text(encoding="utf-8"))
            of_scan, *_ = (summary[key] for key in ("scan", "volume_ml", "extent_mm", "seconds", "warnings"))
        except (OSError, ValueError, LookupError, TypeError):
            return None
        if not self.mask.exists():
            return None
        if os.path.abspath(of_scan) != scan:
            remedy = "choose another --output, or give --overwrite"
            raise UserError(f"{scan}: {self.summary} is the result of another scan, {of_scan}; {remedy}")
        return summary if all(path.exists() for path in wanted) else None


def _entities(name: str) -> str:
    """What BIDS tells of a scan before the kind of its file: sub-verse008 of sub-verse008_ct."""
    return re.sub(rf"_{CT}\Z", "", name, flags=re.IGNORECASE)


def check_names_in_bids(names: Sequence[str]) -> None:
    """Raise UserError where the results of two scans would have the same names in BIDS."""
    taken: dict[str, str] = {}
    for name in names:
        other = taken.setdefault(_entities(name), name)
        if other != name:
            raise UserError(f"--bids: results of {other} and {name} would have the same names; leave out one of them")


def write_results(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write a CSV with a line for each scan: volumes and extents of its summary, metrics, or its error.

    Lines of other scans, from commands before, are kept; of commands that end at once, one waits for the other.
    """
    with locked(path.with_name(f".{path.name}.lock"), lambda _: None):
        lines: dict[str, dict[str, Any]] = {line["name"]: line for line in _read_lines(path, ["name", "scan", "error"])}
        lines |= {one_line(row["name"]): _line(row) for row in rows}
        write_csv(path, list(lines.values()))
        _write_vertebrae(rows, path.with_name("vertebrae.csv"))


def _line(row: dict[str, Any]) -> dict[str, Any]:
    extents = {f"extent_{axis}_mm": (row.get("extent_mm") or {}).get(axis) for axis in "XYZ"}
    volumes = {f"volume_of_label_{label}_ml": ml for label, ml in row.get("volume_ml_of_label", {}).items()}
    line = {"name": row["name"], "scan": row["scan"], "error": row.get("error")}
    line |= {
        "warnings": "; ".join(row.get("warnings", ())),
        "seconds": round(sum(row.get("seconds", {}).values()), 2),
    }
    return line | {"volume_ml": row.get("volume_ml"), **extents, **row.get("metrics", {}), **volumes}


def _read_lines(path: Path, first_columns: list[str]) -> list[dict[str, str]]:
    """The lines of a table that begins with these columns; none of any other file."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, restval="")
            if list(reader.fieldnames or [])[: len(first_columns)] != first_columns:
                return []
            return [{key: text for key, text in line.items() if key} for line in reader]
    except (OSError, ValueError, csv.Error):  # absent, or damaged
        return []


def _flat(vertebra: dict[str, Any]) -> dict[str, Any]:
    """A vertebra's line: its centre in three columns."""
    centre = dict(zip(("centre_X_mm", "centre_Y_mm", "centre_Z_mm"), vertebra["centre_mm"], strict=True))
    return {name: value for name, value in vertebra.items() if name != "centre_mm"} | centre


def _write_vertebrae(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write a line for each named vertebra, and label tables beside it; lines of other scans are kept."""
    lines: list[dict[str, Any]] = [
        {"scan": one_line(row["name"]), **_flat(one)} for row in rows for one in row.get("vertebrae", ())
    ]
    names = {one_line(row["name"]) for row in rows}
    before = _read_lines(path, ["scan", "label"])
    lines = [line for line in before if line["scan"] not in names] + lines
    if lines:
        write_csv(path, lines)
        write_label_tables(path.parent)
    elif before:
        path.unlink()


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print a line for each scan: what was found, or what went wrong."""
    width = max(len(row["name"]) for row in rows)
    print(f"{'scan':{width}} {'ml':>8} {'height mm':>10} {'Dice':>6} {'HD95 mm':>8} {'s':>6}")
    for row in rows:
        if "error" in row:
            print(f"{row['name']:{width}} failed")
            continue
        height = f"{row['extent_mm']['Z']:.0f}" if row["extent_mm"] else "-"
        metrics = row.get("metrics", {})
        dice, hd95 = (f"{metrics[key]:.3f}" if key in metrics else "-" for key in ("dice", "hd95_mm"))
        numbers = f"{row['volume_ml']:8.1f} {height:>10} {dice:>6} {hd95:>8} {sum(row['seconds'].values()):6.1f}"
        makers = ", ".join(f"{model['name']} ({task})" for task, model in row.get("models", {}).items())
        kept = [f"kept from before, made by {makers}"] if row.get("kept") else []
        remarks = "; ".join([*kept, *row["warnings"]])
        print(f"{row['name']:{width}} {numbers}  {remarks}".rstrip())
