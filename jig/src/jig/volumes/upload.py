"""The bytes of files into an open version: small files in batches, large ones in parts, several requests at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import partial

from jig.client import Client
from jig.volumes.batches import SMALL_BELOW_BYTES, batches_of, send_batch
from jig.volumes.crew import Crew, Unit
from jig.volumes.digests import HashedFile, changed, read
from jig.volumes.parted import PartedFile, journal_of
from jig.volumes.parts import MIB, journals_folder, remove_journals, remove_old_journals, volume_key
from jig.volumes.remote import Version
from jig.volumes.tally import Tally
from jig.volumes.transfer import Progress, Transfer

THREADS = 8
PARTED_FROM_BYTES = 128 * MIB  # of a smaller one, little is lost when its upload breaks
SHA256 = re.compile(r"[0-9a-f]{64}")


def upload(
    client: Client,
    version: Version,
    volume_id: str,
    files: Sequence[HashedFile],
    progress: Progress,
    tally: Tally,
    said: Callable[[str], None],
) -> None:
    """Upload files into a version, the large ones first.

    Args:
        client: the platform.
        version: where to; it is open.
        volume_id: of its volume, which no other volume ever has.
        files: what to upload.
        progress: told of the bytes.
        tally: told of those that have arrived.
        said: called with a sentence where the platform is waited for.

    Raises:
        PlatformError: the platform refuses one, or is away for too long.
        VolumeError: one cannot be read, or has changed.
    """
    journals = journals_folder(os.environ)
    remove_old_journals(journals)
    crew = Crew(THREADS, said)
    transfer = Transfer(client, crew, progress, tally)

    def begin(hashed: HashedFile) -> tuple[Unit, ...]:
        if hashed.file.size_bytes < PARTED_FROM_BYTES:
            send_whole(transfer, version, hashed)
            return ()
        journal = journal_of(journals, client.target.base_url, volume_id, version, hashed)
        return PartedFile(transfer, version, hashed, journal).begin()

    def send(batch: Sequence[HashedFile]) -> tuple[Unit, ...]:
        send_batch(transfer, version, batch)
        return ()

    large = [each for each in files if each.file.size_bytes >= SMALL_BELOW_BYTES]
    small = [each for each in files if each.file.size_bytes < SMALL_BELOW_BYTES]
    large.sort(key=lambda each: -each.file.size_bytes)
    batches = batches_of(small, lambda each: each.file.size_bytes)
    crew.run([*(partial(begin, each) for each in large), *(partial(send, batch) for batch in batches)])


def forget_uploads(client: Client, volume_id: str) -> None:
    """Remember nothing more of the uploads for a volume."""
    remove_journals(journals_folder(os.environ), volume_key(client.target.base_url, volume_id))


def send_whole(transfer: Transfer, version: Version, hashed: HashedFile) -> None:
    """A file in one piece."""
    file = hashed.file
    body = {"filename": version.stored_name(file.name)}
    answer = transfer.crew.patiently(lambda: transfer.client.post("/v1/storage/upload-request", body))
    etag = transfer.put(answer["upload_url"], partial(read, file, 0, file.size_bytes), file.size_bytes)
    if SHA256.fullmatch(etag) and etag != hashed.sha256:  # an object storage's ETag is of another kind
        raise changed(file)
