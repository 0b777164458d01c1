"""scipy sparse matrices, PIL images and pyarrow values come back equal."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from memkit.errors import DemotionError
from memkit.lifecycle.store import Store
from tests.lifecycle.store.conftest import there_and_back

MODES = [
    "1",
    "L",
    "P",
    "RGB",
    "RGBA",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "LA",
    "PA",
    "RGBX",
    "RGBa",
    "La",
    "I;16",
]


@pytest.mark.filterwarnings("ignore:Constructing a DIA")
@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "lil", "dok", "dia"])
def test_sparse_matrices(store: Store, kind: str) -> None:
    scipy = pytest.importorskip("scipy.sparse")
    for make in (scipy.random, scipy.random_array):
        matrix = make(
            (500, 400) if make is scipy.random_array else 500,
            *(() if make is scipy.random_array else (400,)),
            density=0.05,
        )
        matrix = matrix.asformat(kind)
        again = there_and_back(store, matrix=matrix)["matrix"]
        assert type(again) is type(matrix)
        assert (again != matrix).nnz == 0


@pytest.mark.parametrize("mode", MODES)
def test_images_of_every_mode(store: Store, mode: str) -> None:
    """Also where a picture is longer than a strip."""
    for size in ((37, 41), (700, 3100)):
        image = Image.new(mode, size)
        data = np.random.default_rng(0).bytes(len(image.tobytes()))
        image.frombytes(data) if mode not in ("F", "1") else None
        again = there_and_back(store, image=image)["image"]
        assert again == image
        assert again.tobytes() == image.tobytes()


def test_what_an_image_carries(store: Store) -> None:
    """Palette with transparency, info, exif, and the class a file gave it."""
    palette = Image.new("P", (20, 20))
    palette.putpalette(list(range(256)) * 4, "RGBA")
    palette.putpixel((3, 3), 77)
    raw = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "a description"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 20, 3), np.uint8)).save(
        raw, "PNG", exif=exif, dpi=(72, 72)
    )
    photo = Image.open(raw)
    photo.load()
    photo.getexif()
    again = there_and_back(store, palette=palette, photo=photo)
    assert again["palette"].getpalette("RGBA") == palette.getpalette("RGBA")
    assert again["palette"].getpixel((3, 3)) == 77
    assert again["palette"].convert("RGBA").tobytes() == palette.convert("RGBA").tobytes()
    assert again["photo"] == photo
    assert again["photo"].format == "PNG"
    assert again["photo"].info["dpi"] == photo.info["dpi"]
    assert again["photo"].getexif()[0x010E] == "a description"
    again["photo"].rotate(90).save(io.BytesIO(), "JPEG")


def test_an_image_not_yet_read_is_left(store: Store, tmp_path: Any) -> None:
    Image.new("RGB", (50, 50)).save(tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png")
    with pytest.raises(DemotionError, match="takes no memory"):
        store.spill({"image": image})
    image.close()


def test_an_image_needs_no_second_copy_of_itself(store: Store) -> None:
    """Strips are written as they are made."""
    stored = store.spill({"image": Image.effect_noise((4000, 4000), 50)})
    assert len(stored.layout.chunks) >= 4
    assert not stored.mapped  # they are put together in memory of the image's own
    assert max(chunk.raw for chunk in stored.layout.chunks) <= 4 * 2**20


def test_arrow_values(store: Store) -> None:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table(
        {
            "n": arrow.array(range(100_000)),
            "s": arrow.array([f"text {i}" if i % 5 else None for i in range(100_000)]),
            "l": arrow.array([[i, i + 1] for i in range(100_000)]),
            "d": arrow.array([f"k{i % 9}" for i in range(100_000)]).dictionary_encode(),
        }
    )
    part = table.slice(50_000, 100)
    again = there_and_back(store, table=table, part=part)
    assert again["table"].equals(table)
    assert again["part"].equals(part)
    assert again["table"].schema.equals(table.schema)
    stored = store.spill({"table": table, "part": part}, compress="never")
    assert stored.raw_bytes < 1.2 * table.nbytes
