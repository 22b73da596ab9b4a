"""Where a payload names files: the addresses in it, and the same payload with local paths in their places. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

Place = tuple[str | int, ...]
"""The keys and indexes that lead to a value of the payload."""

_Link = tuple[Any, ...]
"""A place as its last key and the link to what that is in: a step deeper costs the same at any depth."""


class InputFile(NamedTuple):
    """A file that the payload names."""

    place: Place
    address: str

    @property
    def name(self) -> str:
        """What the submitter knows it by: `'image'`, or `'scenes'[0]['image']`."""
        return repr(self.place[0]) + "".join(f"[{key!r}]" for key in self.place[1:])


def files_in(payload: Mapping[str, Any], is_address: Callable[[str], bool], *, nested: bool) -> list[InputFile]:
    """Find the values that are addresses of files; those inside of lists and objects only where `nested`."""
    if nested:
        found = [(link, value) for link, value in _walk(payload) if isinstance(value, str) and is_address(value)]
        return [InputFile(_place(link), value) for link, value in found]
    return [InputFile((k,), v) for k, v in payload.items() if isinstance(v, str) and is_address(v)]


def with_paths(payload: Mapping[str, Any], paths: Mapping[Place, str]) -> dict[str, Any]:
    """Give the payload with other values in some places; the given one stays as it is."""
    copy = dict(payload)
    copied: dict[Place, Any] = {(): copy}
    for place, path in paths.items():
        _copied(copied, place[:-1])[place[-1]] = path
    return copy


def _walk(payload: Mapping[str, Any]) -> Iterator[tuple[_Link, Any]]:
    # Without recursion: a payload may be nested as deeply as a parser takes it.
    waiting: list[tuple[_Link, Any]] = [((), payload)]
    while waiting:
        link, value = waiting.pop()
        if isinstance(value, (dict, list)):
            children = value.items() if isinstance(value, dict) else enumerate(value)
            waiting.extend(reversed([((link, key), child) for key, child in children]))
        else:
            yield link, value


def _place(link: _Link) -> Place:
    keys: list[str | int] = []
    while link:
        link, key = link
        keys.append(key)
    return tuple(reversed(keys))


def _copied(copied: dict[Place, Any], place: Place) -> Any:
    """The container at a place, copied once; so are those around it."""
    missing = [place[:length] for length in range(len(place) + 1) if place[:length] not in copied]
    for inner in missing:
        outer = copied[inner[:-1]]
        copied[inner] = outer[inner[-1]] = outer[inner[-1]].copy()
    return copied[place]
