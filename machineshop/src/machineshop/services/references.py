"""The grammar of the registry: names of repositories, tags, digests, and references that put them together. Pure."""

import re

import msgspec

from machineshop.blobs.layout import is_digest
from machineshop.errors import InvalidRequest

MAX_NAME_LENGTH = 255

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOST = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::[0-9]{1,5})?")


class Reference(msgspec.Struct, frozen=True):
    """What names an artifact: `registry/name:tag@digest`; all but the name may be left out."""

    registry: str | None
    """Host and port."""
    name: str
    """The repository with its namespace, as in `default/hello-world`."""
    tag: str | None = None
    digest: str | None = None

    @property
    def namespace(self) -> str:
        """The name's first part: in our registry, the organization."""
        return self.name.partition("/")[0]

    def pinned(self, registry: str, digest: str) -> str:
        """The same artifact by its digest, in the registry where it was found."""
        return f"{registry}/{self.name}@{digest}"

    def __str__(self) -> str:
        text = self.name if self.registry is None else f"{self.registry}/{self.name}"
        if self.tag is not None:
            text += f":{self.tag}"
        return text if self.digest is None else f"{text}@{self.digest}"


def is_name(text: str) -> bool:
    """Whether this may be the full name of a repository."""
    return len(text) <= MAX_NAME_LENGTH and _NAME.fullmatch(text) is not None


def is_host(text: str) -> bool:
    """Whether this may be the host, perhaps with a port, that a reference begins with."""
    return _HOST.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Whether this may be a tag."""
    return _TAG.fullmatch(text) is not None


def parse_reference(text: str) -> Reference:
    """Take a reference apart.

    The part before the first slash is a registry when it looks like a host: with a dot, a port, or `localhost`.

    Raises:
        InvalidRequest: It is not a reference; `param` is `image`.
    """
    rest, digest = _cut(text, "@")
    registry, rest = _cut_registry(rest)
    name, tag = _cut_tag(rest)
    if not is_name(name):
        raise _invalid(text, f"'{name}' is no name of a repository (lowercase letters, digits, and . _ - between them)")
    if tag is not None and not is_tag(tag):
        raise _invalid(text, f"'{tag}' is no tag")
    if digest is not None and not is_digest(digest):
        raise _invalid(text, f"'{digest}' is no digest (sha256: and 64 hex digits, or sha512: and 128)")
    return Reference(registry, name, tag, digest)


def _cut(text: str, separator: str) -> tuple[str, str | None]:
    head, found, tail = text.partition(separator)
    return head, tail if found else None


def _cut_registry(text: str) -> tuple[str | None, str]:
    head, rest = _cut(text, "/")
    if rest is None or not _HOST.fullmatch(head):
        return None, text
    if head == "localhost" or any(sign in head for sign in ".:["):
        return head, rest
    return None, text


def _cut_tag(text: str) -> tuple[str, str | None]:
    before, slash, last = text.rpartition("/")
    last, tag = _cut(last, ":")
    return before + slash + last, tag


def _invalid(text: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"'{text[:512]}' does not name an image: {why}.", param="image")
