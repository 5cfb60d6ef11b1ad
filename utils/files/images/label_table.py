"""Names and colours of a mask's labels within its NIfTI file: a label table in a header extension.

The XML is that of Caret and Connectome Workbench; readers that don't know it pass over it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import nibabel as nib

from verse_utils.labels import label_colours

_CARET = 30  # code of the extension, by nifti.nimh.nih.gov


def label_table(names: Mapping[int, str]) -> nib.nifti1.Nifti1Extension:
    """The extension that names a mask's labels: label -> name."""
    root = ElementTree.Element("CaretExtension")
    volume = ElementTree.SubElement(root, "VolumeInformation", Index="0")
    table = ElementTree.SubElement(volume, "LabelTable")
    colours = label_colours(names)
    for label, name in names.items():
        red, green, blue = (f"{value / 255:.3f}" for value in colours[label])
        ElementTree.SubElement(table, "Label", Key=str(label), Red=red, Green=green, Blue=blue, Alpha="1").text = name
    ElementTree.SubElement(volume, "VolumeType").text = "Label"
    xml = ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True)
    return nib.nifti1.Nifti1Extension(_CARET, xml)


def names_of_labels(header: Any) -> dict[int, str]:
    """Label -> name, of a NIfTI header's label table; empty where there is none, or none that can be read."""
    for extension in getattr(header, "extensions", ()):
        try:
            root = ElementTree.fromstring(bytes(extension.content).rstrip(b"\0"))
            return {int(label.attrib["Key"]): label.text or "" for label in root.iter("Label")}
        except (ElementTree.ParseError, LookupError, ValueError, TypeError):
            continue
    return {}
