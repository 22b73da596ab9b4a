"""Reads the text in a picture with PP-OCRv4 on the CPU: find the lines, turn each upright, read it."""

import itertools
import tempfile
from pathlib import Path

import numpy as np
from rapidocr_onnxruntime import RapidOCR

import pictures
import sprocket

MIN_CONFIDENCE = 0.5
"""Below this a line is more often a pattern or a smudge than text."""

MAX_LINE_RATIO = 100
"""What is this many times longer than high is a ruled line, not writing; reading it would take gigabytes."""

KEPT_ANNOTATIONS = 8
"""An annotated picture stays for this many jobs: sprocket may still be uploading it while the next job is worked on."""


class OCR(sprocket.Sprocket):
    """Finds and reads every line of text in a picture."""

    def setup(self) -> None:
        """Load the models for detection, orientation and recognition, which come inside the wheel of rapidocr."""
        self.engine = RapidOCR()
        self.folder = tempfile.TemporaryDirectory(prefix="ocr-")
        self.slots = itertools.cycle(range(KEPT_ANNOTATIONS))

    def predict(self, args: dict) -> dict:
        """Read one picture.

        Args:
            args: `image`, an https address or a file in the platform's storage (sprocket has fetched it: here it is the
                path of a local file); or `image_base64`, the picture itself.

        Returns:
            `lines`, from top to bottom: each with its `text`, `confidence` (0 to 1) and `box`, the corners
            `[[x, y], ...]` in pixels, clockwise from the top left; and `annotated`, the picture with numbered boxes.

        Raises:
            pictures.PictureError: there is no picture, or one that cannot be read.
        """
        image = pictures.open_picture(args)
        pixels = np.asarray(pictures.pad_strip(image))[:, :, ::-1]  # OpenCV's order of colours: blue, green, red.
        boxes = self.find_lines(pixels)
        crops = self.engine.get_crop_img_list(pixels, boxes)

        lines = []
        for done, (box, crop) in enumerate(zip(boxes, crops, strict=True), start=1):
            if sprocket.cancelled():
                return {}  # Nobody sees this: the job ends as canceled.
            text, confidence = self.read_line(crop)
            if text and confidence >= MIN_CONFIDENCE:
                lines.append({"text": text, "confidence": confidence, "box": box.round().astype(int).tolist()})
            sprocket.emit_info({"progress": {"done": done, "total": len(boxes)}})

        annotated = pictures.draw_boxes(image, [line["box"] for line in lines])
        return {"lines": lines, "annotated": sprocket.FileOutput(self.save(annotated))}

    def find_lines(self, pixels: np.ndarray) -> np.ndarray:
        """Give the corners of every line of text, shape (lines, 4, 2)."""
        boxes, _ = self.engine(pixels, use_det=True, use_cls=False, use_rec=False)
        return np.array(boxes or [], dtype=np.float32).reshape(-1, 4, 2)

    def read_line(self, crop: np.ndarray) -> tuple[str, float]:
        """Read one line that lies straight: its text, and how sure the model is of it."""
        if max(crop.shape[:2]) > MAX_LINE_RATIO * min(crop.shape[:2]):
            return "", 0.0
        [[text, confidence]], _ = self.engine(crop, use_det=False, use_cls=True, use_rec=True)
        return text, round(float(confidence), 4)

    def save(self, annotated: pictures.Image.Image) -> Path:
        """Write the annotated picture where it stays until sprocket has sent it; give its path."""
        path = Path(self.folder.name, str(next(self.slots)), "annotated.png")
        path.parent.mkdir(exist_ok=True)
        annotated.save(path, compress_level=1)
        return path

    def shutdown(self) -> None:
        """Remove the annotated pictures."""
        self.folder.cleanup()
