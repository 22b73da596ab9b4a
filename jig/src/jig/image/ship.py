"""Building a project's image, and pushing it: what `jig build`, `jig push` and `jig deploy` share."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from jig.client import Client
from jig.config.model import Config
from jig.contexts import is_loopback
from jig.errors import ImageError
from jig.image.builders import Build, Builder, Buildx, Registry
from jig.image.prepare import Prepared
from jig.image.tool import look, work
from jig.registry import Repository, find_repository
from jig.session import Session

LATEST = "latest"
EXTRA_ARGUMENTS = "DOCKER_BUILD_EXTRA_ARGS"
DIGEST_PATTERN = re.compile(r"digest: (sha256:[0-9a-f]{64})")
LOGIN_SECONDS_MAX = 60.0

OnLine = Callable[[str], None]


@dataclass(frozen=True)
class Pushed:
    """What a push came to.

    Args:
        image: the reference, by digest.
        digest: of the image.
        tags: under which it was pushed.
    """

    image: str
    digest: str
    tags: tuple[str, ...]


def local_name(config: Config, tag: str | None) -> str:
    """What a project's image is called on this machine."""
    return f"{config.name}:{tag or LATEST}"


def build_of(config: Config, prepared: Prepared, names: tuple[str, ...], target: str, docker_args: str | None) -> Build:
    """The build of a prepared project.

    Args:
        config: the project's.
        prepared: what is built.
        names: of the image.
        target: the platform that will run it, so that it fits its machines.
        docker_args: what else the builder is told, as one text.

    Raises:
        ImageError: the text has a quote without an end.
    """
    try:
        arguments = shlex.split(docker_args if docker_args is not None else os.environ.get(EXTRA_ARGUMENTS, ""))
    except ValueError as error:
        raise ImageError(f"--docker-args cannot be split into words: {error}.") from error
    return Build(
        dockerfile=prepared.dockerfile,
        folder=config.directory,
        names=names,
        version=prepared.version,
        platform=platform_for(platform.machine(), target),
        arguments=tuple(arguments),
    )


def platform_for(machine: str, target: str) -> str | None:
    """The platform to name to a builder: servers have amd64, whatever this machine is; one like this needs no word."""
    is_here = is_loopback(urlsplit(target).hostname)
    return None if is_here or machine.lower() in ("x86_64", "amd64") else "linux/amd64"


def build_image(builder: Builder, build: Build, on_line: OnLine) -> None:
    """Make an image on this machine.

    Raises:
        ImageError: a step failed, and its output is the message.
    """
    if isinstance(builder, Buildx):
        ensure_buildx(builder, on_line)
    work(builder.build(build), builder.variables, on_line, failure=f"{builder.name} could not build {build.names[0]}")


def ensure_buildx(builder: Buildx, on_line: OnLine) -> None:
    """Make our builder of BuildKit where it is not there yet."""
    if look(builder.find_builder()) is None:
        work(builder.make_builder(), {}, on_line, failure="buildx could not make a builder")


def push_image(session: Session, builder: Builder, name: str, tags: tuple[str, ...], on_line: OnLine) -> Pushed:
    """Push an image of this machine under some tags.

    Args:
        session: whose platform it goes to.
        builder: that knows the image.
        name: what it is called here.
        tags: the first is named while it is pushed.
        on_line: is told what the builder says.

    Raises:
        ImageError: there is no such image, or the registry does not take it.
    """
    if look(builder.user_of(name)) is None:
        raise ImageError(f"There is no image {name} here.", hint="Make it with `jig build`.")
    with logged_in(session, builder, on_line) as (registry, repository, folder):
        digest = ""
        for tag in tags:
            remote, digest_file = f"{registry.host}/{repository.name}:{tag}", folder / "digest"
            failure = f"{builder.name} could not push {remote}"
            work(builder.tag(name, remote), builder.variables, on_line, failure=failure)
            lines = work(builder.push(remote, registry, digest_file), builder.variables, on_line, failure=failure)
            digest = digest_in(lines, digest_file) or no_digest(remote)
            if tag != LATEST:
                look(builder.untag(remote))  # or each build would stay for ever; its image has another name
        return Pushed(repository.image(digest), digest, tags)


def publish_image(session: Session, builder: Buildx, build: Build, tags: tuple[str, ...], on_line: OnLine) -> Pushed:
    """Build and push at once, with layers that unpack fast.

    Raises:
        ImageError: a step failed, or the registry does not take the image.
    """
    ensure_buildx(builder, on_line)
    with logged_in(session, builder, on_line) as (registry, repository, folder):
        names = tuple(f"{registry.host}/{repository.name}:{tag}" for tag in tags)
        remote = Build(build.dockerfile, build.folder, names, build.version, build.platform, build.arguments)
        argv = builder.publish(remote, registry, folder / "metadata.json")
        work(argv, builder.variables, on_line, failure=f"buildx could not build and push {names[0]}")
        digest = metadata_digest(folder / "metadata.json") or no_digest(names[0])
        return Pushed(repository.image(digest), digest, tags)


@contextmanager
def logged_in(session: Session, builder: Builder, on_line: OnLine) -> Iterator[tuple[Registry, Repository, Path]]:
    """The registry, logged in to, and a folder that lasts as long; the key goes over standard input.

    To a registry that others run builders go with the user's own login, which they know.

    Raises:
        ImageError: the registry does not take the key.
    """
    client: Client = session.client
    repository = find_repository(client, session.config.name)
    with TemporaryDirectory(prefix="jig-") as folder:
        registry = registry_of(repository, Path(folder), client.target.ca)
        if repository.is_outside:
            yield registry, repository, Path(folder)
            return
        failure = f"{builder.name} could not log in to {registry.host}"
        key = client.target.api_key or ""
        work(
            builder.login(registry),
            builder.variables,
            on_line,
            failure=failure,
            stdin=key,
            seconds_max=LOGIN_SECONDS_MAX,
        )
        yield registry, repository, Path(folder)


def registry_of(repository: Repository, folder: Path, ca: str | None) -> Registry:
    """The registry of a repository, with a folder for what builders want in files."""
    host = repository.host
    is_local = is_loopback(host.rpartition(":")[0] or host)
    is_plain = repository.url.startswith("http:")
    authorities = None
    if ca and not is_plain and not repository.is_outside:
        authorities = folder / "authorities"
        authorities.mkdir()
        (authorities / "ca.crt").write_text(ca, encoding="utf-8")
    return Registry(host, is_plain, is_local, None if repository.is_outside else folder / "auth.json", authorities)


def digest_in(lines: list[str], digest_file: Path) -> str | None:
    """The digest that a push has written into a file, or printed."""
    if digest_file.exists():
        return digest_file.read_text(encoding="utf-8").strip()
    found = [match[1] for line in lines if (match := DIGEST_PATTERN.search(line))]
    return found[-1] if found else None


def metadata_digest(path: Path) -> str | None:
    """The digest in what buildx has written about a build."""
    try:
        metadata: Mapping[str, object] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    digest = metadata.get("containerimage.digest")
    return digest if isinstance(digest, str) else None


def no_digest(name: str) -> str:
    """It was pushed, and nobody says as what.

    Raises:
        ImageError: always.
    """
    raise ImageError(f"{name} was pushed, but the builder does not say under which digest.")
