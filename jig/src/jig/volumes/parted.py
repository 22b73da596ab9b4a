"""A large file, in parts: begun or gone on with, sent part by part, put together."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path

from jig.errors import PlatformError
from jig.volumes.crew import PATIENCE_SECONDS, Unit
from jig.volumes.digests import HashedFile, read
from jig.volumes.parts import Journal, PartedUpload, part_bytes_of, volume_key
from jig.volumes.remote import Version
from jig.volumes.transfer import Transfer

# How long the platform may take to put a file together.
JOIN_BYTES_PER_SECOND = 10 * 1024 * 1024
LOST_STATUSES = frozenset({400, 403, 404})  # the platform has forgotten the upload, or its URLs are too old
LOST_HINT = "Run the same command again: this file's upload begins anew."


class PartedFile:
    """One file.

    Args:
        transfer: how bytes go out.
        version: where to.
        hashed: the file.
        journal: what is remembered of an earlier attempt.
    """

    def __init__(self, transfer: Transfer, version: Version, hashed: HashedFile, journal: Journal) -> None:
        self._transfer = transfer
        self._name = version.stored_name(hashed.file.name)
        self._file = hashed.file
        self._journal = journal
        self._lock = threading.Lock()
        self._left: set[int] = set()

    def begin(self) -> tuple[Unit, ...]:
        """Begin, or go on with what was begun; what it returns are the parts that have not arrived."""
        known = self._journal.read(time.time())
        self._is_resumed = known is not None
        self._upload = known or self._begin_anew()
        self._left = {number for number, _ in enumerate(self._upload.urls, 1)} - self._upload.etags.keys()
        for number in self._upload.etags:
            start, end = self._range(number)
            self._transfer.progress(end - start)
            self._transfer.tally.resume(end - start)
        return tuple(partial(self._send, number) for number in sorted(self._left)) or (self._complete,)

    def _begin_anew(self) -> PartedUpload:
        part_bytes = part_bytes_of(self._file.size_bytes)
        body = {"filename": self._name, "parts_count": -(-self._file.size_bytes // part_bytes)}
        client = self._transfer.client
        begun = self._transfer.crew.patiently(lambda: client.post("/v1/storage/multipart/init", body))
        urls = sorted(begun["part_upload_urls"], key=lambda each: int(each["part_number"]))
        upload = PartedUpload(begun["upload_id"], part_bytes, urls)
        self._journal.begin(upload, time.time())
        return upload

    def _send(self, number: int) -> tuple[Unit, ...]:
        try:
            start, end = self._range(number)
            pieces = partial(read, self._file, start, end)
            etag = self._transfer.put(self._upload.urls[number - 1], pieces, end - start)
        except PlatformError as error:
            raise self._judged(error) from error
        with self._lock:
            self._upload.etags[number] = etag
            self._journal.add(number, etag)
            self._left.discard(number)
            is_last = not self._left
        return (self._complete,) if is_last else ()

    def _complete(self) -> tuple[Unit, ...]:
        parts = [{"part_number": number, "etag": etag} for number, etag in sorted(self._upload.etags.items())]
        body = {"filename": self._name, "upload_id": self._upload.upload_id, "parts": parts}
        patience_seconds = PATIENCE_SECONDS + self._file.size_bytes / JOIN_BYTES_PER_SECOND
        try:
            self._transfer.crew.patiently(
                lambda: self._transfer.client.post("/v1/storage/multipart/complete", body), patience_seconds
            )
        except PlatformError as error:
            raise self._judged(error) from error
        self._journal.forget()
        return ()

    def _range(self, number: int) -> tuple[int, int]:
        start = (number - 1) * self._upload.part_bytes
        return start, min(start + self._upload.part_bytes, self._file.size_bytes)

    def _judged(self, error: PlatformError) -> PlatformError:
        """The error; where an earlier run's upload is lost, the next one will not try to go on with it."""
        if error.status in LOST_STATUSES:
            self._journal.forget()
            if self._is_resumed:
                error.hint = error.hint or LOST_HINT
        return error


def journal_of(folder: Path, base_url: str, volume_id: str, version: Version, hashed: HashedFile) -> Journal:
    """Where one file's upload is remembered."""
    return Journal(folder, volume_key(base_url, volume_id), str(version.number), hashed.file.name, hashed.sha256)
