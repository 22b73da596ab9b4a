"""Where files of volumes are copied from: other people's stores of bytes, in the platform's words."""

import hashlib
import ipaddress
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import msgspec

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# Says whether a connection may be made to an address and port.
Allows = Callable[[Address, int], bool]


class OriginTrouble(Exception):
    """An origin that does not give what it should; the text is for whoever named it."""

    def __init__(self, message: str, *, is_final: bool) -> None:
        super().__init__(message)
        self.message = message
        self.is_final = is_final
        """Whether asking again would change nothing."""


class OriginKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose keys an object storage is read with, and where it is; what a project keeps as a secret."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None
    region: str | None = None
    endpoint_url: str | None = None
    """None: Amazon's."""

    def __repr__(self) -> str:
        return "OriginKeys(...)"


class OriginRole(msgspec.Struct, frozen=True):
    """A role that the machine takes on, for a project."""

    arn: str
    project_id: str


class OriginObject(msgspec.Struct, frozen=True):
    """An object under the prefix. `modified_at` is in seconds since the epoch."""

    path: str
    """Its key without the prefix."""
    size: int
    etag: str
    modified_at: float


def tag_of(address: str, uri: str, found: OriginObject) -> str:
    """Says which object in which state it is: two of one tag have the same bytes, as far as their storage is honest.

    Arguments:
        address: The storage's; an ETag says something beside others of the same storage alone.
        uri: The prefix that the object was listed under.
        found: The object.
    """
    said = msgspec.json.encode([address, uri, found.path, found.size, found.etag, found.modified_at])
    return hashlib.sha256(said).hexdigest()


class Origin(Protocol):
    """A folder elsewhere. Calls block, but for `break_off`, and belong in a thread; each may raise `OriginTrouble`."""

    @property
    def address(self) -> str:
        """The URL of the storage that it is in."""
        ...

    def objects(self) -> Iterator[list[OriginObject]]:
        """All objects in it, a page at a time; those that only stand for folders are left out."""
        ...

    def open(self, found: OriginObject) -> Any:
        """An object's bytes as it was listed, to be read by `read` and closed; one that was changed since is none."""
        ...

    def read(self, body: Any, size: int) -> bytes:
        """The next bytes, `size` at most; empty at the end."""
        ...

    def break_off(self) -> None:
        """End the calls that are under way in other threads, and all later ones, with trouble; does not block."""
        ...

    def close(self) -> None:
        """Close all connections."""
