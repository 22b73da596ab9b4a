"""Large files in parts, and what is remembered of them on this machine so that an interrupted upload goes on.

A journal in the user's cache holds the upload's id, its signed URLs, and a line for each part that has arrived. The
platform keeps an upload for a day; a journal that is older is of no use.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MIB = 1024 * 1024
PART_BYTES = 32 * MIB
PARTS_MAX = 10_000
LIFETIME_SECONDS = 23 * 3600  # an hour less than the URLs are good for


def part_bytes_of(size_bytes: int) -> int:
    """How large the parts of such a file are: as usual, or larger where they would be too many."""
    least = -(-size_bytes // PARTS_MAX)
    return max(PART_BYTES, -(-least // MIB) * MIB)


def journals_folder(environment: Mapping[str, str]) -> Path:
    """$XDG_CACHE_HOME/jig/uploads, else ~/.cache/jig/uploads."""
    home = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "jig" / "uploads"


@dataclass
class PartedUpload:
    """An upload in parts that has begun.

    Args:
        upload_id: the platform's name for it.
        part_bytes: the size of each part but the last.
        urls: where each part goes, the first one first, with the method and the headers.
        etags: what the parts that have arrived were answered with, by their numbers from 1.
    """

    upload_id: str
    part_bytes: int
    urls: list[dict[str, Any]]
    etags: dict[int, str] = field(default_factory=dict)


class Journal:
    """What is remembered of one file's upload.

    A cache that cannot be written is no error: then an interrupted upload begins again.

    Args:
        folder: where journals are.
        volume: which volume of which platform the upload is for.
        key: all else that it is about: version, file and its SHA-256.
    """

    def __init__(self, folder: Path, volume: str, *key: str) -> None:
        self._path = folder / f"{digest_of(volume)}-{digest_of(*key)}.jsonl"

    def read(self, now: float) -> PartedUpload | None:
        """The upload as far as it has come; None where there is none, or it is too old."""
        try:
            if now - self._path.stat().st_mtime > LIFETIME_SECONDS:
                return None
            first, *lines = self._path.read_text(encoding="utf-8").splitlines()
            begun = json.loads(first)
            if now - begun["begun_at"] > LIFETIME_SECONDS:
                return None
            upload = PartedUpload(begun["upload_id"], begun["part_bytes"], begun["urls"])
            for line in lines:
                with contextlib.suppress(ValueError):  # a line that was being written when the machine went down
                    number, etag = json.loads(line)
                    upload.etags[number] = etag
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return upload

    def begin(self, upload: PartedUpload, now: float) -> None:
        """Remember a new upload instead of any other. The URLs are for this user alone."""
        begun = {"begun_at": now, **{key: getattr(upload, key) for key in ("upload_id", "part_bytes", "urls")}}
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)
            with os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(json.dumps(begun) + "\n")

    def add(self, number: int, etag: str) -> None:
        """Remember a part that has arrived."""
        with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([number, etag]) + "\n")

    def forget(self) -> None:
        """The file is there, or its upload is no longer known."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def digest_of(*key: str) -> str:
    """A file's name, or half of one, for what may hold any character."""
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()


def volume_key(base_url: str, volume_id: str) -> str:
    """What journals call a volume."""
    return f"{base_url} {volume_id}"


def remove_journals(folder: Path, volume: str) -> None:
    """Forget all uploads for a volume: they are complete, or it is gone."""
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{digest_of(volume)}-*.jsonl"):
            path.unlink(missing_ok=True)


def remove_old_journals(folder: Path) -> None:
    """Forget all uploads that nobody can go on with."""
    with contextlib.suppress(OSError):
        for path in folder.glob("*.jsonl"):
            if time.time() - path.stat().st_mtime > LIFETIME_SECONDS:
                path.unlink(missing_ok=True)
