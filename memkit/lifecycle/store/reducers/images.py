"""PIL images: strips of rows, each written as it is made, so that no second copy of the picture is ever whole."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from memkit.errors import DemotionError
from memkit.lifecycle.store.reducers import Reducer, rebuilder
from memkit.lifecycle.store.reducers.arrays import set_attributes
from memkit.units import MIB

if TYPE_CHECKING:
    from memkit.lifecycle.store.pickling import Reading, Writing

_STRIP = 4 * MIB
# Rebuilt from the strips; the rest of an image's attributes are written as they are.
_REBUILT = frozenset({"im", "_im", "_mode", "_size", "pyaccess", "map"})


def reducer(cls: type) -> Reducer | None:
    pil = sys.modules.get("PIL.Image")
    return _reduce if pil is not None and issubclass(cls, pil.Image) else None


def pixel_bytes(image: Any) -> int:
    """About what the pixels take: a byte for modes of one byte, else four, per pixel (libImaging/Storage.c)."""
    width, height = image.size
    return int(width * height * (1 if image.mode in ("1", "L", "P") else 4))


def _refuse(image: Any) -> str | None:
    if image.__dict__.get("_im", image.__dict__.get("im")) is None:
        return "a PIL image whose pixels are not loaded takes no memory"
    if getattr(image, "tile", None):
        return "a PIL image that is still being read from its file takes no memory worth moving"
    if getattr(image, "fp", None) is not None:
        return "a PIL image whose file is open (it has more frames) cannot be written down; work on image.copy()"
    return None


def _reduce(image: Any, writing: Writing) -> Any:
    reason = _refuse(image)
    if reason is not None:
        raise DemotionError(reason)
    image.load()
    width, height = image.size
    rows = max(1, _STRIP // max(1, 4 * width))
    strips = [
        (
            top,
            min(rows, height - top),
            writing.buffer(memoryview(_strip(image, top, min(rows, height - top))), copied=True),
        )
        for top in (range(0, height, rows) if width else ())
    ]
    attributes = {key: value for key, value in image.__dict__.items() if key not in _REBUILT}
    arguments = (type(image), image.mode, image.size, _palette(image), strips)
    return rebuild_image, arguments, attributes, None, None, set_attributes


def _strip(image: Any, top: int, rows: int) -> bytes:
    part = sys.modules["PIL.Image"].Image._new(image, image.im.crop((0, top, image.size[0], top + rows)))
    data: bytes = part.tobytes()
    return data


def _palette(image: Any) -> tuple[str, bytes] | None:
    try:
        mode = image.im.getpalettemode()
    except ValueError:  # the mode has none
        return None
    return mode, image.im.getpalette(mode, mode)


@rebuilder
def rebuild_image(
    reading: Reading,
    cls: Any,
    mode: str,
    size: tuple[int, int],
    palette: tuple[str, bytes] | None,
    strips: list[tuple[int, int, Any]],
) -> Any:
    pil = sys.modules["PIL.Image"]
    image = cls.__new__(cls)
    pil.Image.__init__(image)
    image._mode, image._size = mode, size
    image.im = pil.core.new(mode, size)
    for top, rows, reference in strips:
        part = pil.frombytes(mode, (size[0], rows), reading.buffer(reference))
        image.im.paste(part.im, (0, top, size[0], top + rows))
    if palette is not None:
        image.im.putpalette(palette[0], palette[0], palette[1])
    return image
