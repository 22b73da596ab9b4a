"""What an engine calls an image, and which references that stands for. Pure.

An engine finds an image by more than its names, such as by the digest that is its id. That says nothing of whose it is:
a name does.
"""

from collections.abc import Mapping
from typing import Any

DEFAULT_TAG = "latest"
HUB_NAMES = ("index.docker.io/", "docker.io/")
LOCAL = "localhost/"
"""Under this Podman has what is built without a registry in its name."""
NO_NAME = "<none>"


def split(reference: str) -> tuple[str, str | None, str | None]:
    """A reference's name with its registry, its tag and its digest."""
    rest, _, digest = reference.partition("@")
    before, slash, last = rest.rpartition("/")
    last, _, tag = last.partition(":")
    return before + slash + last, tag or None, digest or None


def familiar(name: str) -> str:
    """The same for all the ways in which engines spell a name: `python` for `docker.io/library/python`."""
    for hub in HUB_NAMES:
        name = name.removeprefix(hub)
    return name.removeprefix("library/").removeprefix(LOCAL)


def by_digest(reference: str) -> str:
    """A reference without its tag, in the spelling of `familiar`."""
    name, _, digest = split(reference)
    return f"{familiar(name)}@{digest}"


def is_tagged(about: Mapping[str, Any], name: str) -> bool:
    """Whether somebody built an image, tagged it, or pulled it by a tag, under this name.

    Args:
        about: What the engine says of the image.
        name: Of a repository, with its registry.
    """
    return familiar(name) in _repositories(about, "RepoTags")


def has_digest(about: Mapping[str, Any], name: str) -> bool:
    """Whether it was pulled from, or pushed to, the repository of this name."""
    return familiar(name) in _repositories(about, "RepoDigests")


def is_nameless(about: Mapping[str, Any]) -> bool:
    """Whether it was built here and its name has moved on to a newer one."""
    return not (_repositories(about, "RepoTags") or _repositories(about, "RepoDigests"))


def _repositories(about: Mapping[str, Any], kind: str) -> set[str]:
    return {familiar(split(each)[0]) for each in about.get(kind) or () if not each.startswith(NO_NAME)}
