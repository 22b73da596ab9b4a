"""ocr: text drawn into pictures must be read where it was drawn."""

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageDraw, ImageFont

from sprocket import Sprocket
from sprocket.testing import run_job

TEXTS = ["Machineshop 2026", "The quick brown fox", "Total: 1,234.56 EUR"]
FONT_SIZE_PIXELS = 48
TOLERANCE_PIXELS = 10
CONFIDENCE = 0.9

Box = tuple[float, float, float, float]


def picture(texts: list[str], mode: str = "RGB", background: Any = "white") -> tuple[Image.Image, list[Box]]:
    """Draw lines of text in black; gives the picture, and for each line the bounds of its ink."""
    image = Image.new(mode, (900, 40 + 110 * len(texts)), background)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=FONT_SIZE_PIXELS)
    places = [(60, 40 + 110 * row) for row in range(len(texts))]
    for place, text in zip(places, texts, strict=True):
        draw.text(place, text, font=font, fill="black")
    return image, [draw.textbbox(place, text, font=font) for place, text in zip(places, texts, strict=True)]


def saved(image: Image.Image, path: Path, **options: Any) -> str:
    image.save(path, **options)
    return str(path)


def as_base64(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def bounds(corners: list[list[int]]) -> Box:
    across, down = [x for x, _ in corners], [y for _, y in corners]
    return min(across), min(down), max(across), max(down)


def texts_of(outputs: dict[str, Any]) -> list[str]:
    return [line["text"] for line in outputs["lines"]]


@pytest.fixture(scope="module")
def module(load: Callable[[str], ModuleType]) -> ModuleType:
    return load("ocr")


@pytest.fixture(scope="module")
def ocr(module: ModuleType) -> Iterator[Sprocket]:
    """One worker for all tests: `run_job` sets it up with the first job, and the models stay loaded."""
    worker: Sprocket = module.OCR()
    yield worker
    worker.shutdown()


def test_reads_every_line_where_it_was_drawn(ocr: Sprocket, tmp_path: Path) -> None:
    image, drawn = picture(TEXTS)

    lines = run_job(ocr, {"image": saved(image, tmp_path / "page.png")})["lines"]

    assert [line["text"] for line in lines] == TEXTS
    assert all(CONFIDENCE < line["confidence"] <= 1 for line in lines)
    for line, expected in zip(lines, drawn, strict=True):
        assert bounds(line["box"]) == pytest.approx(expected, abs=TOLERANCE_PIXELS)
        left, top, right, bottom = bounds(line["box"])
        assert line["box"][0] == pytest.approx([left, top], abs=3), "the first corner is the top left"
        assert line["box"][2] == pytest.approx([right, bottom], abs=3), "and they go clockwise"


def test_the_annotated_picture_has_a_red_box_around_each_line(ocr: Sprocket, tmp_path: Path) -> None:
    image, drawn = picture(TEXTS)

    outputs = run_job(ocr, {"image": saved(image, tmp_path / "page.png")})

    with Image.open(outputs["annotated"]) as file:
        assert file.format == "PNG"
        assert file.size == image.size
        annotated = file.convert("RGB")
    for line in outputs["lines"]:
        assert [annotated.getpixel((x, y)) for x, y in line["box"]] == [(255, 0, 0)] * 4
    rest = ImageChops.difference(annotated, image)
    for left, top, right, bottom in drawn:
        rest.paste(0, (int(left) - 10, int(top) - 35, int(right) + 10, int(bottom) + 10))
    assert rest.getbbox() is None, "and nothing else is changed"


def test_an_annotated_picture_outlasts_the_next_job_but_they_do_not_pile_up(ocr: Any, module: ModuleType) -> None:
    run_job(ocr, {"image_base64": as_base64(Image.new("RGB", (64, 64)))})

    first = ocr.save(Image.new("RGB", (8, 8), "red"))
    second = ocr.save(Image.new("RGB", (8, 8), "blue"))
    assert first != second
    with Image.open(first) as file:
        assert file.getpixel((0, 0)) == (255, 0, 0)

    paths = {ocr.save(Image.new("RGB", (8, 8))) for _ in range(3 * module.KEPT_ANNOTATIONS)}
    assert len(paths) == module.KEPT_ANNOTATIONS
    assert {path.name for path in paths} == {"annotated.png"}, "each is uploaded under this name"


def test_reads_a_line_that_is_turned(ocr: Sprocket, tmp_path: Path) -> None:
    image, _ = picture(["Upside down"])

    assert texts_of(run_job(ocr, {"image": saved(image.rotate(180), tmp_path / "turned.png")})) == ["Upside down"]


def test_a_picture_without_text_has_no_lines(ocr: Sprocket, tmp_path: Path) -> None:
    outputs = run_job(ocr, {"image": saved(Image.new("RGB", (300, 200), "white"), tmp_path / "blank.png")})

    assert outputs["lines"] == []
    assert Path(outputs["annotated"]).is_file()


@pytest.mark.parametrize("size", [(1, 1), (2, 5_000)], ids=str)
def test_a_picture_of_an_odd_shape_does_no_harm(ocr: Sprocket, tmp_path: Path, size: tuple[int, int]) -> None:
    assert run_job(ocr, {"image": saved(Image.new("RGB", size, "black"), tmp_path / "odd.png")})["lines"] == []


def test_a_thin_strip_of_text_is_read(ocr: Sprocket) -> None:
    image, drawn = picture(["A strip that is much wider than high"])
    left, top, right, bottom = (round(side) for side in drawn[0])
    strip = image.crop((left - 10, top - 4, right + 10, bottom + 4))
    strip = strip.resize((strip.width * 26 // strip.height, 26), Image.Resampling.LANCZOS)
    assert strip.width / strip.height > 12

    outputs = run_job(ocr, {"image_base64": as_base64(strip)})

    assert texts_of(outputs) == ["A strip that is much wider than high"]


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        ({}, "the payload needs a picture"),
        ({"image": 3}, "the payload needs a picture"),
        ({"picture": "x.png"}, "the payload needs a picture"),
        ({"image": "http://example.com/a.png"}, "must be an https:// address"),
        ({"image": "/nowhere/a.png"}, "must be an https:// address"),
        ({"image": "/"}, "must be an https:// address"),
        ({"image": "x" * 5000}, "must be an https:// address"),
        ({"image_base64": "no base64!"}, '"image_base64" is not base64'),
        ({"image_base64": "aGVsbG8="}, "cannot be read: unknown format"),
        ({"image_base64": ""}, "cannot be read: unknown format"),
    ],
)
def test_what_is_no_picture_fails_with_the_reason(ocr: Sprocket, payload: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        run_job(ocr, payload)


def test_serves_over_http(serve: Callable[[str, str], Any], tmp_path: Path) -> None:
    worker = serve("ocr", "worker:OCR")
    image, drawn = picture(TEXTS)

    answer = worker.generate({"image_base64": as_base64(image)})

    assert answer.status_code == 200
    outputs = answer.json()
    assert texts_of(outputs) == TEXTS
    assert bounds(outputs["lines"][2]["box"]) == pytest.approx(drawn[2], abs=TOLERANCE_PIXELS)
    kind, _, data = outputs["annotated"].partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as annotated:
        assert annotated.size == image.size

    assert texts_of(worker.generate({"image": saved(image, tmp_path / "page.png")}).json()) == TEXTS

    failure = worker.generate({"image": "http://example.com/a.png"})
    assert failure.status_code == 500
    assert "must be an https:// address" in failure.json()["error"]["message"]
    assert worker.stop() == 0
