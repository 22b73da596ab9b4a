"""Versions that the platform fetches from S3: asked for, and watched if somebody wants to wait."""

from __future__ import annotations

import time
from typing import Any

from jig.client import Client
from jig.errors import VolumeError, WatchInterruptedError
from jig.live import JobView
from jig.output import Output
from jig.units import count, size
from jig.volumes import remote

SCHEME = "s3://"
POLL_SECONDS = 1.0


def follow(client: Client, output: Output, name: str, version: int) -> dict[str, Any]:
    """Wait until a version's files are there; return the volume.

    Raises:
        VolumeError: they could not be fetched.
        WatchInterruptedError: Ctrl-C; the platform goes on.
    """
    started_at = time.monotonic()
    view = JobView(output)
    try:
        with view.shown():
            while True:
                volume = dict(remote.get(client, name, version))
                status = str(volume["status"])
                view.update(status, progress_line(volume), time.monotonic() - started_at)
                if status in ("ready", "failed"):
                    break
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt as error:
        hint = f"See how it goes: jig volumes describe {name}"
        raise WatchInterruptedError(f"{name} is still being fetched.", hint=hint) from error
    if status == "failed":
        message = (
            f"Version {version} of {name} could not be fetched: {volume.get('status_message') or 'no reason given'}"
        )
        raise VolumeError(message, hint=f"When that is mended: jig volumes update {name} s3://...")
    return volume


def progress_line(volume: remote.Volume) -> str:
    """What is there so far, and what the platform says of it: `syncing, 12 files, 3.4 GiB: Others wait ...`."""
    content = volume.get("content") or {}
    files_count, size_bytes = content.get("files_count") or 0, content.get("size") or 0
    fetched = f", {count(files_count, 'file')}, {size(size_bytes)}" if files_count else ""
    said = f": {volume['status_message']}" if volume.get("status_message") else ""
    return f"{volume['status']}{fetched}{said}"
