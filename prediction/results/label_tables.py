"""Names and colours of vertebrae for viewers."""

from __future__ import annotations

from pathlib import Path

from verse_utils.files.writing import written_aside
from verse_utils.labels import VERTEBRA_NAMES, label_colours


def write_label_tables(folder: Path) -> None:
    """Write names and colours of VerSe's labels for 3D Slicer (``vertebrae.ctbl``) and ITK-SNAP (``vertebrae.label``).

    Raises:
        UserError: they can't be written.
    """
    slicer = ["# 3D Slicer color table: index, name, red, green, blue, alpha", "0 background 0 0 0 0"]
    snap = ["# ITK-SnAP Label Description File: IDX R G B A VIS MSH LABEL", '0 0 0 0 0 0 0 "Clear Label"']
    for label, (red, green, blue) in sorted(label_colours().items()):
        slicer.append(f"{label} {VERTEBRA_NAMES[label]} {red} {green} {blue} 255")
        snap.append(f'{label} {red} {green} {blue} 1 1 1 "{VERTEBRA_NAMES[label]}"')
    for name, lines in (("vertebrae.ctbl", slicer), ("vertebrae.label", snap)):
        with written_aside(folder / name) as aside:
            aside.write_text("\n".join(lines) + "\n", encoding="utf-8")
