"""A worker that says what it takes: predict's parameters are the payload's fields, and are checked before it runs."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

import sprocket


class Label(BaseModel):
    """What is to be printed at the side of a line."""

    text: str
    side: Literal["left", "right"] = "left"


class Banner(sprocket.Sprocket):
    """Prints a text in a frame of characters."""

    def predict(
        self, text: str, width: Annotated[int, Field(ge=1, le=200)] = 40, labels: tuple[Label, ...] = ()
    ) -> dict:
        """Frame one text.

        Called with `{"text": "Hi", "width": 12}`; without a text, or with a width of 0, it is not called at all.
        """
        line = text
        for label in labels:
            line = f"{label.text} {line}" if label.side == "left" else f"{line} {label.text}"
        return {"lines": ["+" + "-" * width + "+", "|" + line[:width].center(width) + "|", "+" + "-" * width + "+"]}
