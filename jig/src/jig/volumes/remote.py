"""Volumes on the platform, and the files of their versions."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from jig.client import Client
from jig.errors import ConflictError, NotFoundError, UsageError, VolumeError
from jig.nearest import meant
from jig.volumes.digests import HashedFile

VOLUMES = "/v1/deployments/storage/volumes"
# What becomes of a file that a version is to have, as the platform answers.
PRESENT, LINKED, MISSING, HASHING = "present", "linked", "missing", "hashing"
READY, PENDING, OPEN = "ready", "pending", "open"
COMPARED_AT_ONCE = 5_000
LISTED_AT_ONCE = 10_000
HASHING_PAUSE_SECONDS = 0.5
# The platform reads what came in parts once more; a slow disk, and as much again.
HASHING_BYTES_PER_SECOND = 50 * 1024 * 1024
HASHING_SECONDS_MIN = 60.0

NAME_PATTERN = re.compile(r"[A-Za-z0-9_.-]{1,100}")

Volume = Mapping[str, Any]
"""A volume as the platform tells it."""


@dataclass(frozen=True, slots=True)  # there may be very many
class StoredFile:
    """A file of a version; its SHA-256 is None until the platform knows it."""

    name: str
    size_bytes: int
    sha256: str | None


def path_of(name: str) -> str:
    """The path of a volume."""
    return f"{VOLUMES}/{quote(name, safe='')}"


def check_name(name: str) -> None:
    """Refuse what cannot be a volume's name, before its files are read.

    Raises:
        UsageError: it cannot.
    """
    if not NAME_PATTERN.fullmatch(name) or name in (".", ".."):
        hint = "Use 1 to 100 letters, digits, `_`, `.` and `-`."
        raise UsageError(f"{name[:100]!r} cannot be a volume's name.", hint=hint)


def get(client: Client, name: str, version: int | None = None) -> Volume:
    """A volume, told of its current version or of another.

    Raises:
        VolumeError: there is none of this name.
    """
    if (volume := find(client, name, version)) is None:
        names = [str(each["name"]) for each in client.get(VOLUMES)["data"]]
        hint = meant(name, names) or "There are no volumes yet."
        raise VolumeError(f"There is no volume {name}.", hint=hint)
    return volume


def needed(client: Client, name: str) -> Volume:
    """The same where one of this name is wanted: the error says how to make it, too."""
    try:
        return get(client, name)
    except VolumeError as error:
        error.hint = f"{error.hint}\nTo make it: jig volumes create {name} SOURCE"
        raise


def find(client: Client, name: str, version: int | None = None) -> Volume | None:
    """A volume, or None where there is none of this name.

    Raises:
        NotFoundError: there is one, but not this version of it.
    """
    try:
        volume: Volume = client.get(path_of(name), version=version)
    except NotFoundError:
        if version is not None and find(client, name) is not None:
            raise
        return None
    return volume


def is_open(told: Volume) -> bool:
    """True of a version whose upload was not finished: files may be missing, and what mounts it would seal it so."""
    origin = (told.get("content") or {}).get("origin")
    return origin is None and "sealed_at" in told and told["sealed_at"] is None


def state_of(told: Volume) -> str:
    """A version's status as people see it; to clients that know no seals one that is open is ready, or pending."""
    status = str(told.get("status") or READY)
    return OPEN if status in (READY, PENDING) and is_open(told) else status


def unfinished(name: str, number: int) -> VolumeError:
    """The error for a version that is open, where a whole one is needed."""
    command = "create" if number == 0 else "update"
    return VolumeError(
        f"Version {number} of the volume {name} is open: its upload was never finished.",
        hint=f"Run `jig volumes {command} {name} SOURCE` again, or delete it: jig volumes delete {name}",
    )


def check_updatable(volume: Volume) -> None:
    """Refuse to make a version after a first one that is open: that would seal it as it is.

    The files of later versions are there before the version is made, so those can be followed by another one.

    Raises:
        VolumeError: the volume's upload was never finished.
    """
    if int(volume["current_version"]) == 0 and is_open(volume):
        raise unfinished(str(volume["name"]), 0)


def create(client: Client, name: str, content: Mapping[str, object]) -> Volume | None:
    """A new volume, or None where there is one of this name."""
    try:
        volume: Volume = client.post(VOLUMES, {"name": name, "type": "readOnly", "content": content})
    except ConflictError as error:
        if "already exists" not in error.message:
            raise
        return None
    return volume


def change(client: Client, name: str, content: Mapping[str, object]) -> Volume:
    """Give a volume its next version."""
    volume: Volume = client.patch(path_of(name), {"content": content})
    return volume


def uploaded(name: str, version: int) -> dict[str, object]:
    """The content of a version whose files are uploaded."""
    return {"type": "files", "source_prefix": f"{name}/{version}"}


def from_s3(uri: str, role_arn: str | None, credentials_secret: str | None) -> dict[str, object]:
    """The content of a version that the platform fetches."""
    source = {"uri": uri, "role_arn": role_arn, "credentials_secret": credentials_secret}
    return {"type": "files", "origin": {"s3": {key: value for key, value in source.items() if value is not None}}}


def seal(client: Client, name: str) -> None:
    """Close the current version, so that it is what it is for ever, and have it loaded where it will be needed."""
    client.post("/v1/deployments/prewarm", {"volume": name}, is_repeatable=True)


class Version:
    """One version of a volume, which may still be open, or not yet there.

    Args:
        client: the platform.
        name: the volume's.
        number: of the version.

    `files_path` is where its files are listed, and brought many at once; `contents_path` is where they are fetched so.
    """

    def __init__(self, client: Client, name: str, number: int) -> None:
        self._client = client
        self.name = name
        self.number = number
        self.files_path = f"{path_of(name)}/versions/{number}/files"
        self.contents_path = f"{self.files_path}/contents"

    def stored_name(self, file: str) -> str:
        """What a file of it is called in the platform's storage."""
        return f"{self.name}/{self.number}/{file}"

    def compare(self, files: Sequence[HashedFile], said: Callable[[str], None] | None = None) -> dict[str, str]:
        """What the platform has of these files, by name; those that it finds in an earlier version it takes over.

        Args:
            files: what the version is to have.
            said: called with a sentence where the answer takes a while.
        """
        answered = self._ask(files)
        deadline = (
            time.monotonic() + HASHING_SECONDS_MIN + sum(f.file.size_bytes for f in files) / (HASHING_BYTES_PER_SECOND)
        )
        while hashing := [each for each in files if answered[each.file.name] == HASHING]:
            if time.monotonic() > deadline:
                break
            if said is not None:
                said("The platform still reads what was uploaded before.")
                said = None
            time.sleep(HASHING_PAUSE_SECONDS)
            answered |= self._ask(hashing)
        return answered

    def files(self) -> Iterator[StoredFile]:
        """All files that it has, by name."""
        after: str | None = None
        while True:
            answer = self._client.get(self.files_path, limit=LISTED_AT_ONCE, after=after)
            for each in answer["data"]:
                yield StoredFile(str(each["name"]), int(each["size"]), each.get("sha256"))
            if not answer.get("has_more") or not answer["data"]:
                return
            after = str(answer["data"][-1]["name"])

    def remove(self, file: str) -> None:
        """Remove a file that it should not have; it must be open."""
        try:
            self._client.delete(f"/v1/storage/{quote(self.stored_name(file))}")
        except NotFoundError:
            return

    def _ask(self, files: Sequence[HashedFile]) -> dict[str, str]:
        answered: dict[str, str] = {}
        for start in range(0, len(files), COMPARED_AT_ONCE):
            batch = files[start : start + COMPARED_AT_ONCE]
            asked = [{"path": f.file.name, "size": f.file.size_bytes, "sha256": f.sha256} for f in batch]
            answer = self._client.post(self.files_path, {"files": asked}, is_repeatable=True)
            answered |= {str(each["path"]): str(each["status"]) for each in answer["data"]}
        return answered
