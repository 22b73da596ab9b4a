"""What happens to a picture before and after the models: it is opened with care, and drawn upon."""

import base64
import binascii
import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

MAX_MEGAPIXELS = 40
"""A page of A4 at 600 dots per inch has 35; more only takes memory, as detection works on 4 at most."""

MAX_ASPECT_RATIO = 8
"""Detection enlarges the short side to 736 pixels: a longer strip would grow beyond any memory."""

MIN_SIDE_PIXELS = 32
"""Detection works on squares of this size."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")

# Pillow's own guard warns at a size of its choosing; `check_size` refuses, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None


class PictureError(ValueError):
    """The job brought no picture, or one that cannot be read; the text says how to mend it."""


def open_picture(args: dict) -> Image.Image:
    """Open the picture that a job brought: upright, in RGB, what was transparent turned white.

    Raises:
        PictureError: there is none, it is too large, or it is not a picture.
    """
    source = picture_source(args)
    try:
        with Image.open(source, formats=FORMATS) as image:
            check_size(image)
            return on_white(ImageOps.exif_transpose(image))
    except PictureError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise PictureError(complaint(error)) from None


def picture_source(args: dict) -> Path | io.BytesIO:
    """Find the picture in the payload: the file that was fetched for `image`, or the bytes in `image_base64`."""
    match args:
        case {"image": str(path)}:
            return Path(path)
        case {"image_base64": str(text)}:
            try:
                return io.BytesIO(base64.b64decode(text, validate=True))
            except binascii.Error as error:
                raise PictureError(f'"image_base64" is not base64: {error}') from None
    raise PictureError('the payload needs a picture, for example {"image": "https://example.com/receipt.png"}')


def check_size(image: Image.Image) -> None:
    """Refuse what would take too much memory; the size is known from the file's header alone."""
    megapixels = image.width * image.height / 1e6
    if megapixels > MAX_MEGAPIXELS:
        raise PictureError(
            f"the picture is too large: {image.width} x {image.height} pixels are {megapixels:.1f} megapixels, "
            f"at most {MAX_MEGAPIXELS} are read; scale it down, or cut it into parts"
        )


def on_white(image: Image.Image) -> Image.Image:
    """Give a picture as it would look on paper: in RGB, with white where it is transparent."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def complaint(error: Exception) -> str:
    """Say why a picture could not be opened, without the names of temporary files."""
    if isinstance(error, OSError) and error.errno is not None:
        return '"image" must be an https:// address, or that of a file in the platform\'s storage'
    reason = "unknown format" if "cannot identify" in str(error) else str(error)
    return f"this picture cannot be read: {reason} (what can be read: {', '.join(FORMATS)})"


def pad_strip(image: Image.Image) -> Image.Image:
    """Add white to the right or at the bottom until detection can work on it; what was there keeps its place."""
    shortest = max(MIN_SIDE_PIXELS, max(image.size) // MAX_ASPECT_RATIO)
    size = max(image.width, shortest), max(image.height, shortest)
    if size == image.size:
        return image
    padded = Image.new("RGB", size, "white")
    padded.paste(image)
    return padded


def draw_boxes(image: Image.Image, boxes: list[list[list[int]]]) -> Image.Image:
    """Give a copy of the picture with a numbered box around each line of text.

    Args:
        image: the picture, in RGB.
        boxes: for each line its four corners, `[x, y]` in pixels, from the top left.
    """
    annotated = image.copy()
    draw = ImageDraw.Draw(annotated)
    unit = max(1, min(image.size) // 300)
    font = ImageFont.load_default(size=12 * unit)
    for number, box in enumerate(boxes, start=1):
        corners = [(x, y) for x, y in box]
        draw.polygon(corners, outline="red", width=unit + 1)
        left, top, right, bottom = draw.textbbox(corners[0], f" {number} ", font=font, anchor="lb")
        draw.rectangle((left, top - 2 * unit, right, bottom + unit), fill="red")
        draw.text(corners[0], f" {number} ", font=font, fill="white", anchor="lb")
    return annotated
