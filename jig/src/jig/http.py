"""httpx, without the command line that it brings along.

That one loads rich and pygments, which takes longer than most commands. httpx provides for its absence.
"""

import sys

sys.modules["httpx._main"] = None  # type: ignore[assignment]
import httpx  # noqa: E402  the line above must come first

__all__ = ["httpx"]
