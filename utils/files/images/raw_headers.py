"""Headers of NRRD and MetaImage (.mha, .mhd); the grids are SimpleITK's.

SimpleITK isn't asked itself: it takes memory for whatever a header claims, and some damaged headers end the process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from utils.files.images.raw import RawImage
from verse_utils.errors import FileError
from verse_utils.images import check_affine

# A header is looked for within so many bytes.
_MOST_BYTES = 1 << 16
_LAST_OF_META = re.compile(rb"^[ \t]*ElementDataFile[ \t]*=[^\n]*\n?", re.MULTILINE)
_END_OF_NRRD = re.compile(rb"\r?\n\r?\n")
_VECTOR = re.compile(r"\(([^)]*)\)|none")

# Signs that turn the axes of NRRD's spaces to RAS; ITK takes any other for LPS.
_LPS = (-1.0, -1.0, 1.0)
_SIGNS = {
    **dict.fromkeys(("left-posterior-superior", "lps"), _LPS),
    **dict.fromkeys(("right-anterior-superior", "ras"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1.0, 1.0, 1.0)),
}
# By the names in both formats, in lower case and without spaces and what only MetaImage or C add.
_TYPES = {
    **{"char": "i1", "short": "i2", "int": "i4", "longlong": "i8", "int8": "i1", "int16": "i2", "int32": "i4"},
    **{"uchar": "u1", "ushort": "u2", "uint": "u4", "ulonglong": "u8", "uint8": "u1", "uint16": "u2", "uint32": "u4"},
    **{"int64": "i8", "uint64": "u8", "float": "f4", "double": "f8", "long": "i4", "ulong": "u4"},
}


def is_raw_image(path: Path) -> bool:
    """Whether a file is NRRD or MetaImage by its content. Raises OSError."""
    head = _head(path)
    return head.startswith(b"NRRD0") or (b"DimSize" in head and _LAST_OF_META.search(head) is not None)


def named_voxels(path: Path) -> str | None:
    """The file of voxels that a header of either format names, as it stands there; None where there is none."""
    head = _head(path)
    if head.startswith(b"NRRD"):
        return _fields(head, ":").get("datafile")
    name = _fields(head, "=").get("elementdatafile")
    return None if name is None or name.upper() == "LOCAL" else name


def open_raw_image(path: Path, shown: Path) -> RawImage:
    """Open an image without reading its voxels.

    Args:
        path: of the header.
        shown: named in errors.

    Raises:
        FileError: not 3D, colour, damaged, voxels that aren't there, or more or fewer than the header claims.
        GridError: a grid that is no grid.
    """
    head = _head(path)
    try:
        with np.errstate(all="ignore"):  # what is no grid is said below
            image = (_nrrd if head.startswith(b"NRRD") else _meta)(path, head)
    except KeyError as error:
        raise FileError(f"{shown}: its header lacks {error}; save it again") from None
    except ValueError as error:
        raise FileError(f"{shown}: {error}") from None
    if len(image.shape) != 3:
        raise FileError(f"{shown}: has {len(image.shape)} axes {image.shape}, not 3; give a single volume")
    if min(image.shape) < 1:
        raise FileError(f"{shown}: has no voxels (shape {image.shape}); fetch the file again")
    check_affine(image.affine, shown)
    image.check_size(shown)
    return image


def image_of_pair(path: Path) -> Path:
    """The .img of a .hdr (NIfTI, Analyze), packed or not."""
    at = path.name.lower().rindex(".hdr")
    return path.with_name(path.name[:at] + (".IMG" if ".HDR" in path.name else ".img") + path.name[at + 4 :])


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MOST_BYTES)


def _fields(head: bytes, sign: str) -> dict[str, str]:
    """Values of a header's lines by their names, these in lower case and without spaces."""
    lines = (line.partition(sign) for line in head.decode("utf-8", "surrogateescape").splitlines())
    # NRRD's "key:=value" is a remark of the user's, and no field.
    return {name.replace(" ", "").lower(): value.strip() for name, found, value in lines if found and value[:1] != "="}


def _nrrd(path: Path, head: bytes) -> RawImage:
    """As teem.sourceforge.net/nrrd/format.html says. Raises KeyError or ValueError."""
    end = _END_OF_NRRD.search(head)
    fields = _fields(head[: end.start() if end else None], ":")
    sizes = [int(size) for size in fields["sizes"].split()]
    axes, affine = _nrrd_grid(fields, len(sizes))
    encoding, name = fields["encoding"].lower(), fields.get("datafile")
    if encoding not in ("raw", "gzip", "gz"):
        raise ValueError(f"encoding {encoding!r}; save it as raw or gzip")
    skip = int(fields.get("byteskip", 0))
    if int(fields.get("lineskip", 0)) or (skip and encoding != "raw"):
        raise ValueError("skips parts of the file of its voxels; save it again without")
    dtype = _dtype(fields["type"], fields.get("endian", "little").lower() == "big")
    bytes_ = int(np.prod(sizes, dtype=object)) * dtype.itemsize
    start = -bytes_ if skip < 0 else skip + (0 if name else end.end() if end else len(head))
    is_oriented = fields.get("space", "").lower() in _SIGNS and "spacedirections" in fields
    shape: Any = tuple(sizes[axis] for axis in axes)
    return RawImage(_beside(path, name), start, encoding != "raw", dtype, shape, affine, is_oriented)


def _nrrd_grid(fields: Mapping[str, str], count: int) -> tuple[list[int], np.ndarray]:
    """Which axes lie in space, all but those of a single index; and their affine to RAS mm."""
    sizes = fields["sizes"].split()
    axes = [axis for axis in range(count) if sizes[axis] != "1" or axis < 3]
    if "spacedirections" in fields:
        vectors = [match[1] for match in _VECTOR.finditer(fields["spacedirections"])]
        if len(vectors) != count:
            raise ValueError(f"{len(vectors)} space directions of {count} axes; save it again")
        axes = [axis for axis in axes if vectors[axis] is not None or sizes[axis] != "1"]
        matrix = np.array([_numbers(vectors[axis] or "0,0,0", 3) for axis in axes[:3]]).T
        origin = _numbers(fields.get("spaceorigin", "(0,0,0)").strip("()"), 3)
    else:
        matrix = np.diag(_numbers(fields.get("spacings", "1 " * count), count)[:3])
        origin = _numbers(fields.get("axismins", "0 " * count), count)[:3]
    signs = _SIGNS.get(fields.get("space", "").lower(), _LPS)
    return axes, np.diag([*signs, 1.0]) @ nib.affines.from_matvec(matrix, origin)


def _meta(path: Path, head: bytes) -> RawImage:
    """As itk.org/Wiki/MetaIO/Documentation says. Raises KeyError or ValueError."""
    end = _LAST_OF_META.search(head)
    assert end is not None
    fields = _fields(head[: end.end()], "=")
    sizes = [int(size) for size in fields["dimsize"].split()]
    count = int(fields["ndims"])
    if count != len(sizes) or count < 3:
        raise ValueError(f"{count} axes of the sizes {fields['dimsize'][:60]}; give a single volume")
    if fields.get("binarydata", "true").lower() != "true":
        raise ValueError("voxels written as text; save it in binary")
    if (channels := fields.get("elementnumberofchannels", "1")) != "1":
        raise ValueError(f"{channels} values in a voxel, not numbers in HU; give a greyscale CT")
    is_big = any(fields.get(key, "").lower() == "true" for key in ("binarydatabyteordermsb", "elementbyteordermsb"))
    dtype = _dtype(fields["elementtype"], is_big)
    name, skip = fields["elementdatafile"], int(fields.get("headersize", 0))
    is_local = name.upper() == "LOCAL"
    start = -int(np.prod(sizes, dtype=object)) * dtype.itemsize if skip < 0 else skip or (end.end() if is_local else 0)
    is_packed = fields.get("compresseddata", "").lower() == "true"
    directions, affine = _meta_grid(fields, count)
    shape: Any = (*sizes[:3], *(size for size in sizes[3:] if size != 1))
    file = _beside(path, None if is_local else name)
    return RawImage(file, start, is_packed, dtype, shape, affine, directions is not None)


def _meta_grid(fields: Mapping[str, str], count: int) -> tuple[str | None, np.ndarray]:
    """What tells the directions, and the affine to RAS mm."""

    def first(*keys: str) -> str | None:
        return next((fields[key] for key in keys if key in fields), None)

    directions = first("transformmatrix", "rotation", "orientation")
    matrix = np.eye(count) if directions is None else _numbers(directions, count**2).reshape(count, count).T
    spacing = _numbers(first("elementspacing", "elementsize") or "1 " * count, count)[:3]
    origin = _numbers(first("offset", "position", "origin") or "0 " * count, count)[:3]
    return directions, np.diag([*_LPS, 1.0]) @ nib.affines.from_matvec(matrix[:3, :3] * spacing, origin)


def _numbers(text: str, count: int) -> np.ndarray:
    """The first numbers between spaces or commas. Raises ValueError for fewer."""
    numbers = np.array([float(number) for number in text.replace(",", " ").split()])
    if len(numbers) < count:
        raise ValueError(f"{len(numbers)} numbers where {count} belong ({text[:60]}); save it again")
    return numbers[:count]


def _dtype(name: str, is_big_endian: bool) -> np.dtype:
    """Of a type's name in either format. Raises ValueError."""
    short = name.lower().replace(" ", "").replace("_t", "").removeprefix("met_").replace("_", "")
    short = re.sub("^unsigned", "u", short).removeprefix("signed")
    short = short if short in _TYPES else short.removesuffix("int")  # such as "unsigned short int"
    if short not in _TYPES:
        raise ValueError(f"voxels are {name}, not numbers in HU; give a greyscale CT")
    return np.dtype(_TYPES[short]).newbyteorder(">" if is_big_endian else "<")


def _beside(path: Path, name: str | None) -> Path:
    """The file that a header names, or its own. Raises ValueError where it names several or one that isn't there."""
    if name is None:
        return path
    if name.upper().startswith("LIST") or "%" in name:
        raise ValueError(f"its voxels lie in several files ({name}); save it in one")
    if "\0" in name or not (path.parent / name).is_file():
        raise ValueError(f"the file of its voxels, {name}, isn't there; put it beside")
    return path.parent / name
