"""Repositories of images and bundles."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from machineshop.api.described.shapes import Listed
from machineshop.api.operation import Operation


class BasePath(msgspec.Struct):
    """Where to push."""

    base_path: str = msgspec.field(name="base-path")
    outside: Literal[True] | UnsetType = UNSET
    """Others run it, and no key of ours is known there."""


class Repository(msgspec.Struct):
    """A repository."""

    object: Literal["image-repository"]
    id: Annotated[str, Meta(description="The name, with `___` for each slash.")]
    url: str


class ImageShown(msgspec.Struct):
    """A tag of a repository."""

    object: Literal["image"]
    tag: str
    url: str


BASE_PATH = Operation(about="Where to push.", answer=BasePath)
REPOSITORIES = Operation(about="The organization's repositories.", answer=Listed[Repository])
IMAGES = Operation(about="A repository's tags.", answer=Listed[ImageShown])
