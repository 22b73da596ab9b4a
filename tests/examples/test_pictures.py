"""ocr's pictures: what is opened, how it then looks, and what is refused before it takes memory."""

import base64
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image, ImageChops


@pytest.fixture(scope="module")
def pictures(load: Callable[[str], ModuleType]) -> ModuleType:
    load("ocr")
    return sys.modules["pictures"]


def saved(image: Image.Image, path: Path, **options: Any) -> dict[str, str]:
    """A payload with the picture as a file."""
    image.save(path, **options)
    return {"image": str(path)}


def half_black() -> Image.Image:
    """White, with a black left half."""
    image = Image.new("RGB", (60, 40), "white")
    image.paste("black", (0, 0, 30, 40))
    return image


def difference(one: Image.Image, other: Image.Image) -> int:
    """The largest difference between two pictures' values, 0 to 255."""
    return max(ImageChops.difference(one, other).tobytes())


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("RGB", "png"), ("L", "bmp"), ("1", "tiff"), ("P", "gif"), ("CMYK", "jpg"), ("RGBA", "webp"), ("LA", "png")],
)
def test_opens_any_kind_of_picture(pictures: ModuleType, tmp_path: Path, mode: str, suffix: str) -> None:
    image = pictures.open_picture(saved(half_black().convert(mode), tmp_path / f"picture.{suffix}"))

    assert (image.mode, image.size) == ("RGB", (60, 40))
    assert difference(image, half_black()) < 40, "lossy formats blur the edge a little"


def test_what_is_transparent_is_white(pictures: ModuleType, tmp_path: Path) -> None:
    image = Image.new("RGBA", (60, 40), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 30, 40))

    assert difference(pictures.open_picture(saved(image, tmp_path / "a.png")), half_black()) == 0


def test_a_photo_is_turned_upright_as_its_exif_says(pictures: ModuleType, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was held sideways: turned by 90 degrees clockwise the photo is upright.
    sideways = half_black().transpose(Image.Transpose.ROTATE_90)

    image = pictures.open_picture(saved(sideways, tmp_path / "a.png", exif=exif))

    assert image.size == (60, 40)
    assert difference(image, half_black()) == 0


@pytest.mark.parametrize(
    ("size", "megapixels"), [((10_000, 5_000), r"50\.0"), ((20_000, 12_000), r"240\.0")], ids=["large", "bomb"]
)
def test_too_large_a_picture_is_refused(
    pictures: ModuleType, tmp_path: Path, size: tuple[int, int], megapixels: str
) -> None:
    payload = saved(Image.new("1", size), tmp_path / "large.png")

    with pytest.raises(
        pictures.PictureError, match=rf"{size[0]} x {size[1]} pixels are {megapixels} megapixels, at most 40"
    ):
        pictures.open_picture(payload)


def test_the_largest_picture_is_opened(pictures: ModuleType, tmp_path: Path) -> None:
    image = pictures.open_picture(saved(Image.new("1", (8_000, 5_000), 1), tmp_path / "a.png"))

    assert image.getpixel((7_999, 4_999)) == (255, 255, 255)


def test_half_a_picture_is_refused_with_the_reason(pictures: ModuleType, tmp_path: Path) -> None:
    path = Path(saved(Image.effect_noise((200, 200), 50), tmp_path / "a.png")["image"])
    path.write_bytes(path.read_bytes()[:5_000])

    with pytest.raises(pictures.PictureError, match=r"this picture cannot be read: .*truncated"):
        pictures.open_picture({"image": str(path)})


def test_other_formats_are_not_opened(pictures: ModuleType) -> None:
    postscript = base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n").decode()

    with pytest.raises(pictures.PictureError, match=r"unknown format \(what can be read: PNG, JPEG, "):
        pictures.open_picture({"image_base64": postscript})


@pytest.mark.parametrize(
    ("size", "padded"),
    [
        ((1, 1), (32, 32)),
        ((800, 100), (800, 100)),
        ((800, 99), (800, 100)),
        ((2, 5_000), (625, 5_000)),
        ((20_000, 3), (20_000, 2_500)),
    ],
)
def test_a_strip_is_padded_and_keeps_its_place(
    pictures: ModuleType, size: tuple[int, int], padded: tuple[int, int]
) -> None:
    image = pictures.pad_strip(Image.new("RGB", size, "black"))

    assert image.size == padded
    assert ImageChops.invert(image).getbbox() == (0, 0, *size)
