"""The platform's two addresses in jobs: a worker in a container knows it by another than its users do. Pure.

Files are named by URLs of the platform. What a user puts into a job names the users' address, and what a worker gives
back the worker's; each is to see the address that it can reach.
"""

from collections.abc import Callable

import msgspec

STORAGE_PATHS = (b"/v1/storage/", b"/v1/deployments/storage/")


class Addresses:
    """Translates file URLs at the top or deeper in a job's JSON.

    Args:
        outside: Asked for the base URL that users know.
        inside: Asked for the one that workers in containers know; None: there are none.
    """

    def __init__(self, outside: Callable[[], str], inside: Callable[[], str | None]) -> None:
        self._outside, self._inside = outside, inside

    def for_worker(self, host: str | None, json: msgspec.Raw) -> msgspec.Raw:
        """A job's inputs, for whoever asked under the address `host`."""
        inside = self._inside()
        if inside is None or not _is_at(inside, host):
            return json
        return _moved(json, self._outside(), inside)

    def from_worker(self, host: str | None, json: msgspec.Raw) -> msgspec.Raw:
        """What a worker that asked under the address `host` gave, for users."""
        inside = self._inside()
        if inside is None or not _is_at(inside, host):
            return json
        return _moved(json, inside, self._outside())


def _is_at(url: str, host: str | None) -> bool:
    return host is not None and url.partition("://")[2] == host


def _moved(json: msgspec.Raw, old: str, new: str) -> msgspec.Raw:
    """Texts that begin with the old address of a file, with the new one."""
    text = bytes(json)
    if old == new or old.encode() not in text:
        return json
    for path in STORAGE_PATHS:
        text = text.replace(b'"' + old.rstrip("/").encode() + path, b'"' + new.rstrip("/").encode() + path)
    return msgspec.Raw(text)
