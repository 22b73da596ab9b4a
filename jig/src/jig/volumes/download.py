"""A version's files into a folder: list them, see what is there, fetch the rest, several requests at a time."""

from __future__ import annotations

import hashlib
import os
import time
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote

from jig.client import Client
from jig.errors import UnreachableError, VolumeError
from jig.volumes.batches import SMALL_BELOW_BYTES, batches_of
from jig.volumes.contents import damaged, unpack
from jig.volumes.crew import Crew, Unit
from jig.volumes.digests import THREADS_MAX
from jig.volumes.folder import Folder, Part
from jig.volumes.remote import HASHING_BYTES_PER_SECOND, HASHING_PAUSE_SECONDS, HASHING_SECONDS_MIN, StoredFile, Version
from jig.volumes.source import UNSAFE_CATEGORIES
from jig.volumes.tally import Tally
from jig.volumes.transfer import Progress
from jig.volumes.upload import THREADS

# A large file whose stream broke after so much is gone on with, as if it had never failed.
FAR_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Compared:
    """What a folder has of a version.

    Args:
        there: files that are there as they should be.
        missing: files at whose places nothing is.
        others: files at whose places something else is.
    """

    there: Sequence[StoredFile]
    missing: Sequence[StoredFile]
    others: Sequence[StoredFile]


def list_files(version: Version, prefix: str, said: Callable[[str], None]) -> list[StoredFile]:
    """The version's files, or those of them that are a path or below it, each with its SHA-256.

    Args:
        version: whose.
        prefix: a file or a folder; empty for all.
        said: called with a sentence where the platform is waited for.

    Raises:
        VolumeError: a name leads out of the folder that files come into, or the platform takes too long for a SHA-256.
    """
    deadline = None
    while True:
        found = [file for file in version.files() if not prefix or is_below(file.name, prefix)]
        for file in found:
            check_name(file.name)
        unknown = [file for file in found if file.sha256 is None]
        if not unknown:
            return found
        now = time.monotonic()
        if deadline is None:
            said("The platform still reads what was uploaded before.")
            seconds = sum(file.size_bytes for file in unknown) / HASHING_BYTES_PER_SECOND
            deadline = now + HASHING_SECONDS_MIN + seconds
        if now > deadline:
            hint = "Look at its status: jig volumes describe " + version.name
            raise VolumeError(f"The platform does not know the SHA-256 of {unknown[0].name!r} yet.", hint=hint)
        time.sleep(HASHING_PAUSE_SECONDS)


def is_below(name: str, prefix: str) -> bool:
    """True for the file of this path, and for those in the folder of this path. Pure."""
    return name == prefix or name.startswith(f"{prefix}/")


def check_name(name: str) -> None:
    """Refuse a name that leads anywhere but to a place below a folder: names come from the platform. Pure.

    Raises:
        VolumeError: it does.
    """
    is_path = all(part not in ("", ".", "..") for part in name.split("/"))
    if not is_path or any(unicodedata.category(letter) in UNSAFE_CATEGORIES for letter in name):
        hint = "What answers is no platform, or somebody has changed it."
        raise VolumeError(f"The platform names a file {name[:200]!r}, which jig does not write.", hint=hint)


def compare(folder: Folder, files: Sequence[StoredFile], progress: Callable[[int], None]) -> Compared:
    """What the folder has of these files; those that may be there already are read, several at a time.

    Args:
        folder: where they are to be.
        files: all of them.
        progress: called with the number of bytes that have just been read.

    Raises:
        VolumeError: a link or a file is where a folder is to be, a folder where a file is, or something cannot be read.
    """
    same: set[str] = set()
    crew = Crew(min(THREADS_MAX, os.cpu_count() or 1))

    def read(file: StoredFile) -> tuple[Unit, ...]:
        hasher = hashlib.sha256()
        for chunk in folder.read(file.name):
            crew.check()
            hasher.update(chunk)
            progress(len(chunk))
        if hasher.hexdigest() == file.sha256:
            same.add(file.name)
        return ()

    sizes = {file.name: folder.size_of(file.name) for file in files}
    crew.run(partial(read, file) for file in files if sizes[file.name] == file.size_bytes)
    missing = [file for file in files if sizes[file.name] is None]
    others = [file for file in files if sizes[file.name] is not None and file.name not in same]
    return Compared([file for file in files if file.name in same], missing, others)


class Downloader:
    """Fetches files.

    Args:
        client: the platform.
        version: whose they are.
        folder: where they come.
        replaced: the names of those that take the place of something else.
        progress: told of the bytes.
        tally: told of those that have arrived.
        said: called with a sentence where the platform is waited for.
    """

    def __init__(
        self,
        client: Client,
        version: Version,
        folder: Folder,
        replaced: Collection[str],
        progress: Progress,
        tally: Tally,
        said: Callable[[str], None],
    ) -> None:
        self._client = client
        self._version = version
        self._folder = folder
        self._replaced = frozenset(replaced)
        self._progress = progress
        self._tally = tally
        self._crew = Crew(THREADS, said)

    def run(self, files: Sequence[StoredFile]) -> None:
        """Have all of them in the folder: small ones in batches, the large ones first.

        Raises:
            PlatformError: the platform refuses one, or is away for too long.
            VolumeError: one arrives damaged, or cannot be written.
        """
        large = [file for file in files if file.size_bytes >= SMALL_BELOW_BYTES]
        small = [file for file in files if file.size_bytes < SMALL_BELOW_BYTES]
        large.sort(key=lambda file: -file.size_bytes)
        batches = batches_of(small, lambda file: file.size_bytes)
        self._crew.run(
            [*(partial(self._fetch_large, each) for each in large), *(partial(self._fetch, each) for each in batches)]
        )

    def _fetch(self, batch: Sequence[StoredFile]) -> tuple[Unit, ...]:
        left = list(batch)
        self._crew.patiently(lambda: self._fetch_once(left))
        return ()

    def _fetch_once(self, left: list[StoredFile]) -> None:
        """Fetch what is left of a batch; what has arrived is not asked for again where the rest breaks off."""
        asked = list(left)
        with self._client.download(
            self._version.contents_path, body={"paths": [file.name for file in asked]}
        ) as answer:
            for file, content in unpack(answer.chunks, asked):
                self._crew.check()
                self._folder.put(file.name, content, replaces=file.name in self._replaced)
                self._arrived(len(content))
                left.remove(file)

    def _fetch_large(self, file: StoredFile) -> tuple[Unit, ...]:
        with self._folder.part(file.name, str(file.sha256), replaces=file.name in self._replaced) as part:
            self._tally.resume(part.kept_bytes)
            self._progress(part.kept_bytes)
            self._fill(file, part)
            if part.kept_bytes and part.sha256 != file.sha256:  # the disk lost some of what an interrupted run wrote
                self._begin_anew(part)
                self._fill(file, part)
            if part.sha256 != file.sha256:
                part.clear()
                raise damaged(file)
        return ()

    def _fill(self, file: StoredFile, part: Part) -> None:
        path = f"/v1/storage/{quote(self._version.stored_name(file.name))}"
        while part.size_bytes < file.size_bytes:
            self._crew.patiently(lambda: self._fill_once(path, file, part))

    def _fill_once(self, path: str, file: StoredFile, part: Part) -> None:
        """Fetch the rest of a file, or enough of it that the next try may be as patient as this one."""
        start_bytes = part.size_bytes
        try:
            with self._client.download(path, start_bytes=start_bytes) as answer:
                if start_bytes and not answer.is_rest:
                    self._begin_anew(part)
                self._take(answer.chunks, file, part)
        except UnreachableError:
            if part.size_bytes - start_bytes < FAR_BYTES:
                raise

    def _take(self, chunks: Iterable[bytes], file: StoredFile, part: Part) -> None:
        for chunk in chunks:
            self._crew.check()
            if part.size_bytes + len(chunk) > file.size_bytes:
                raise damaged(file)
            part.append(chunk)
            self._arrived(len(chunk))
        if part.size_bytes < file.size_bytes:
            raise UnreachableError("The platform's answer ended too early.")

    def _begin_anew(self, part: Part) -> None:
        self._progress(-part.size_bytes)
        self._tally.resume(-part.kept_bytes)
        self._tally.send(part.kept_bytes - part.size_bytes)
        part.clear()

    def _arrived(self, count_bytes: int) -> None:
        self._tally.send(count_bytes)
        self._progress(count_bytes)
