"""`python -m sprocket module:Class`: serve a worker without a script of its own."""

from __future__ import annotations

import argparse

from .errors import SprocketError
from .loader import load_worker
from .runner import add_flags, exit_with, flags_of, serve


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(
        prog="sprocket", description="Serve a model: over HTTP, and from its deployment's queue with --queue."
    )
    parser.add_argument("worker", metavar="module:Class", help="the worker, as a class or an instance")
    add_flags(parser)
    parsed = parser.parse_args()
    try:
        flags = flags_of(parsed)
        worker = load_worker(parsed.worker)
    except SprocketError as error:
        exit_with(error)
    serve(worker, flags)


if __name__ == "__main__":
    main()
