"""Pictures as JPEG inside a page, as large and clear as the room allows."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

# Greatest width in pixels, and quality: from the best to the least that still shows an outline.
_STEPS = ((1080, 88), (1080, 75), (900, 70), (720, 65), (600, 55), (480, 45), (400, 35))
_PREFIX = "data:image/jpeg;base64,"


def jpeg_data_url(path: Path, most_bytes: int) -> str | None:
    """A picture as a data URL of at most so many characters; None where it would not be legible."""
    from PIL import Image

    with Image.open(path) as opened:
        rgba = opened.convert("RGBA")
    picture = Image.new("RGB", rgba.size, "white")  # figures are transparent where their paper is
    picture.paste(rgba, mask=rgba.getchannel("A"))
    for width, quality in _STEPS:
        smaller = picture.copy()
        smaller.thumbnail((width, width * 4), Image.Resampling.LANCZOS)
        buffer = BytesIO()
        # No chroma subsampling: it blurs coloured outlines.
        smaller.save(buffer, "JPEG", quality=quality, subsampling=0)
        if data_url_bytes(buffer.tell()) <= most_bytes:
            return _PREFIX + base64.b64encode(buffer.getvalue()).decode()
    return None


def data_url_bytes(jpeg_bytes: int) -> int:
    """Length of a data URL that holds so many bytes: base64 makes 4 characters of 3 bytes."""
    return len(_PREFIX) + 4 * -(-jpeg_bytes // 3)
