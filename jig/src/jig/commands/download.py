"""`jig download`: a file out of the platform's storage, onto this machine."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

from cyclopts import Parameter

from jig.client import Client
from jig.errors import JigError
from jig.live import transfer_bar
from jig.options import DEFAULTS, Globals
from jig.output import Output
from jig.session import Session
from jig.storage import stored_file
from jig.units import size

FILE = "The file's URL, as a job's outputs have it, or its name."
OUTPUT = "Where to, a file or a folder; one that ends in / is a folder, made if need be. [default: its own name, here]"
FORCE = "Overwrite what is there."

StoredName = Annotated[str, Parameter(name="--file", help=FILE)]


def download(
    file: StoredName,
    output: Annotated[str | None, Parameter(name=("--output", "-o"), help=OUTPUT)] = None,
    *,
    force: Annotated[bool, Parameter(negative=(), show_default=False, help=FORCE)] = False,
    options: Globals = DEFAULTS,
) -> None:
    """Fetch a file from the platform's storage with your key."""
    session = Session(options)
    stored = stored_file(file, session.client.target.base_url)
    place = Path(output or stored.filename)
    is_folder = place.is_dir() or (output or "").endswith("/")
    place = place / stored.filename if is_folder else place
    try:
        if is_folder:
            place.parent.mkdir(parents=True, exist_ok=True)
        count_bytes = fetch(session.client, session.output, stored.path, place, force=force)
    except FileExistsError as error:
        hint = "Choose another place with --output, or overwrite it with --force."
        raise JigError(f"{place} exists already.", hint=hint) from error
    except OSError as error:
        raise JigError(f"Cannot write {place}: {error.strerror}.") from error
    document = {"file": stored.filename, "path": str(place.resolve()), "size_bytes": count_bytes}
    session.output.result(document, f"{place}, {size(count_bytes)}")


def fetch(client: Client, output: Output, path: str, place: Path, *, force: bool) -> int:
    """Stream the file to its place under a progress bar; return its size in bytes."""
    count_bytes = 0
    with (
        client.download(path) as download,
        written(place, force=force) as file,
        transfer_bar(output, place.name, download.size_bytes) as progress,
    ):
        for chunk in download.chunks:
            file.write(chunk)
            count_bytes += len(chunk)
            progress(len(chunk))
    return count_bytes


@contextmanager
def written(place: Path, *, force: bool) -> Iterator[IO[bytes]]:
    """A file that is at its place once it is whole; if it does not get whole, nothing is left of it.

    Raises:
        FileExistsError: there is something at the place, and no force.
        JigError: a device or a pipe is there: no file may take its place.
    """
    if place.exists() and not place.is_file():
        raise JigError(f"{place} is no file.", hint="Choose another place with --output.")
    partial = place.with_name(f".jig-{uuid.uuid4().hex[:12]}")
    if not force:
        place.open("xb").close()  # from now on it is ours to replace, and nobody else's
    try:
        with partial.open("xb") as file:
            yield file
        partial.replace(place)
    except BaseException:
        partial.unlink(missing_ok=True)
        if not force:
            place.unlink(missing_ok=True)
        raise
