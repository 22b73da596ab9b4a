"""Pushing a bundle to the platform's registry or the one in its place, in the words of the OCI distribution API."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from typing import IO
from urllib.parse import urljoin, urlsplit

from jig.bundle.manifest import MANIFEST_TYPE, Blob
from jig.bundle.pack import Bundle
from jig.client import Client
from jig.contexts import Target
from jig.errors import NotFoundError, PlatformError, UnauthorizedError, UnreachableError
from jig.registry_login import RegistryAuth, find_login

CHUNK_BYTES = 256 * 1024
UPLOAD_TRIES = 3  # an upload that broke starts again from its first byte
UPLOAD_PAUSE_SECONDS = 0.5

Progress = Callable[[int], None]
"""Called with the number of bytes that have just gone out; a negative number takes them back."""
Bar = Callable[[int], AbstractContextManager[Progress]]
"""Called with how many bytes are about to go out."""


@dataclass(frozen=True)
class Repository:
    """A place in a registry.

    Args:
        url: of the registry: scheme, host and port.
        name: `<organization>/<deployment>`.
        is_outside: others run the registry, and a key of the platform is nothing to it.
    """

    url: str
    name: str
    is_outside: bool = False

    @property
    def host(self) -> str:
        """The host and port that image references start with."""
        return urlsplit(self.url).netloc

    def path(self, rest: str) -> str:
        """The URL of something in this repository."""
        return f"{self.url}/v2/{self.name}/{rest}"

    def image(self, digest: str) -> str:
        """The reference of one of its manifests."""
        return f"{self.host}/{self.name}@{digest}"


@dataclass(frozen=True)
class Pushed:
    """What a push came to.

    Args:
        image: the reference of the bundle, by digest.
        sent_bytes: how much the registry did not have before.
    """

    image: str
    sent_bytes: int


def repository_at(base_path: str, deployment: str) -> Repository:
    """The repository of a deployment below the registry's base path, `http://host:port/<organization>`."""
    parts = urlsplit(base_path if "://" in base_path else f"https://{base_path}")
    return Repository(f"{parts.scheme}://{parts.netloc}", f"{parts.path.strip('/')}/{deployment}".lstrip("/"))


def find_repository(client: Client, deployment: str) -> Repository:
    """The repository into which a deployment's bundles go."""
    answer = client.get("/v1/image-repositories/base-path")
    return replace(repository_at(str(answer["base-path"]), deployment), is_outside=answer.get("outside") is True)


@contextmanager
def reaching(client: Client, repository: Repository) -> Iterator[Client]:
    """The client for a repository: the platform's, or one with the user's own login to the registry that others run.

    Raises:
        PlatformError: in this block, that registry refuses, or does not answer.
    """
    if not repository.is_outside:
        yield client
        return
    login = find_login(repository.host, repository.name, os.environ)
    auth = RegistryAuth(repository.url, repository.name, login)
    with Client(Target(repository.url, None, "registry"), auth) as registry:
        try:
            yield registry
        except PlatformError as error:
            raise refused(repository, error, has_login=login is not None) from error


def refused(repository: Repository, error: PlatformError, *, has_login: bool) -> PlatformError:
    """What went wrong at a registry that others run."""
    host = repository.host
    if error.status in (401, 403):
        why = "does not let your login" if has_login else "asks for a login, and lets nobody else"
        message = f"The registry {host} {why} push to {repository.name}."
        return UnauthorizedError(message, status=error.status, hint=f"Log in with `docker login {host}`.")
    if error.status is None:
        message = f"The registry {host}, where this platform's images are, does not answer."
        return UnreachableError(message, hint="See whether this machine can reach it, and try again.")
    return PlatformError(f"The registry {host} answered {error.status} for {repository.name}.", status=error.status)


def push(client: Client, repository: Repository, bundle: Bundle, tag: str, bar: Bar) -> Pushed:
    """Push a bundle under a tag; blobs that the registry has are not sent.

    Args:
        client: for the registry.
        repository: where to.
        bundle: what.
        tag: its name there.
        bar: shows a transfer of so many bytes, where there is any.

    Raises:
        PlatformError: the registry refused, or stored something else than was sent.
    """
    blobs = ((bundle.source, bundle.source_file), (bundle.config_blob, BytesIO(bundle.config)))
    missing = [(blob, content) for blob, content in blobs if not has_blob(client, repository, blob)]
    sent_bytes = sum(blob.size_bytes for blob, _ in missing)
    if missing:
        with bar(sent_bytes) as progress:
            for blob, content in missing:
                push_blob(client, repository, blob, content, progress)
    answer = client.request(
        "PUT",
        repository.path(f"manifests/{tag}"),
        content=bundle.manifest,
        headers={"Content-Type": MANIFEST_TYPE},
    )
    stored = answer.headers.get("docker-content-digest", bundle.digest)
    if stored != bundle.digest:
        raise PlatformError(f"The registry stored {stored}, not {bundle.digest}.", status=answer.status_code)
    return Pushed(repository.image(bundle.digest), sent_bytes)


def push_blob(client: Client, repository: Repository, blob: Blob, content: IO[bytes], progress: Progress) -> None:
    """Push one blob."""
    for attempt in range(1, UPLOAD_TRIES + 1):
        content.seek(0)
        sent = Sent(progress)
        try:
            upload_blob(client, repository, blob, content, sent)
        except PlatformError as error:
            if attempt == UPLOAD_TRIES or (error.status is not None and error.status < 500):
                raise
            sent.take_back()
            time.sleep(UPLOAD_PAUSE_SECONDS)
        else:
            break


def has_blob(client: Client, repository: Repository, blob: Blob) -> bool:
    """True where the registry holds the blob already."""
    try:
        client.request("HEAD", repository.path(f"blobs/{blob.digest}"))
    except NotFoundError:
        return False
    return True


def upload_blob(client: Client, repository: Repository, blob: Blob, content: IO[bytes], sent: Sent) -> None:
    """One upload session with one PUT."""
    started = client.request("POST", repository.path("blobs/uploads/"), content=b"")
    location = urljoin(repository.path("blobs/uploads/"), started.headers["location"])
    separator = "&" if urlsplit(location).query else "?"
    url = f"{location}{separator}digest={blob.digest}"
    client.send("PUT", url, sent.chunks(content), length=blob.size_bytes)


class Sent:
    """How much of a blob has gone out, told to a progress bar as it goes."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._count_bytes = 0

    def chunks(self, content: IO[bytes]) -> Iterator[bytes]:
        """The content in pieces, each counted once it was asked for."""
        while chunk := content.read(CHUNK_BYTES):
            yield chunk
            self._count_bytes += len(chunk)
            self._progress(len(chunk))

    def take_back(self) -> None:
        """Start counting again."""
        self._progress(-self._count_bytes)
        self._count_bytes = 0
