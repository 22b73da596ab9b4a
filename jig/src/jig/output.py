"""What jig says, and where: results on stdout, everything else on stderr, one JSON document with `--json`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

from jig.errors import JigError

COLOURS = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "dim": "2", "bold": "1"}


def has_colour(stream: IO[str], environment: Mapping[str, str]) -> bool:
    """True where colours are seen: on a terminal, unless NO_COLOR or a dumb one says otherwise."""
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def paint(text: str, colour: str, *, enabled: bool) -> str:
    """The text in a colour of COLOURS, or as it is where colours are off."""
    return f"\033[{COLOURS[colour]}m{text}\033[0m" if enabled else text


@dataclass(frozen=True)
class Output:
    """The two streams of one run of jig.

    Args:
        json: print one JSON document on stdout instead of text for people.
    """

    json: bool = False

    def result(self, document: object, text: str) -> None:
        """The answer to the command: the document with `--json`, else the text."""
        print(json.dumps(document, indent=2) if self.json else text, file=sys.stdout, flush=True)

    def document(self, document: object) -> None:
        """One line of newline-delimited JSON, for answers that have no end."""
        print(json.dumps(document), file=sys.stdout, flush=True)

    def line(self, text: str) -> None:
        """A line of the answer itself, for people: a log line, say."""
        print(text, file=sys.stdout, flush=True)

    def note(self, text: str, colour: str | None = None) -> None:
        """What happens meanwhile, for people; left out with `--json`."""
        if not self.json:
            self._say(text, colour)

    def warn(self, text: str) -> None:
        """What a person should know, with `--json` too: it goes to stderr."""
        self._say(f"warning: {text}", "yellow")

    def error(self, error: JigError) -> None:
        """Why the command ends without an answer."""
        if self.json:
            print(json.dumps({"error": error.document()}, indent=2), file=sys.stdout, flush=True)
            return
        self._say(f"jig: {error.message}", "red")
        if error.hint:
            self._say(error.hint)

    @property
    def is_live(self) -> bool:
        """True where a view may redraw itself: people are reading, on a terminal."""
        return not self.json and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def _say(self, text: str, colour: str | None = None) -> None:
        enabled = has_colour(sys.stderr, os.environ)
        print(paint(text, colour, enabled=enabled) if colour else text, file=sys.stderr, flush=True)
