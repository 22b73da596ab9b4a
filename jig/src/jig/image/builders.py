"""What builds images, and the command lines of each. Pure.

Every builder takes a `Build`, names images, pushes them and says where their digest is found; the one of Docker and
Podman can run them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

Argv = list[str]

BUILDX_NAME = "jig"
# zstd unpacks several times faster than gzip, and a replica that starts waits for just that.
BUILDX_OUTPUT = "type=image,push=true,compression=zstd,compression-level=3,force-compression=true,oci-mediatypes=true"


@dataclass(frozen=True)
class Build:
    """One build.

    Args:
        dockerfile: its path.
        folder: the files that it may copy.
        names: the image's, with their tags.
        version: what the image is to say of itself in `VERSION`.
        platform: the machine that it is for, `linux/amd64` say; None for one like this.
        arguments: what else the user wants the builder to be told.
    """

    dockerfile: Path
    folder: Path
    names: tuple[str, ...]
    version: str = ""
    platform: str | None = None
    arguments: tuple[str, ...] = ()

    def options(self) -> Argv:
        """What all builders spell the same, and the folder at the end."""
        named = [word for name in self.names for word in ("--tag", name)]
        platform = ["--platform", self.platform] if self.platform else []
        version = ["--build-arg", f"VERSION={self.version}"] if self.version else []
        return ["--file", str(self.dockerfile), *named, *platform, *version, *self.arguments, str(self.folder)]


@dataclass(frozen=True)
class Registry:
    """Where images are pushed.

    Args:
        host: with its port.
        is_plain: it speaks HTTP without TLS.
        is_local: it is on this machine.
        auth_file: where a builder that can keeps the login, for this run alone; None: where it keeps the user's.
        authorities: a folder with the certificate of its own authority; None where everybody knows it.
    """

    host: str
    is_plain: bool
    is_local: bool
    auth_file: Path | None
    authorities: Path | None = None


class Builder:
    """One way to build; its methods return command lines."""

    name: ClassVar[str]
    program: ClassVar[str]
    variables: ClassVar[Mapping[str, str]] = {}
    can_run: ClassVar[bool] = True

    def look(self) -> Argv:
        """Succeeds where the builder works, and prints its version."""
        return [self.program, "--version"]

    def build(self, build: Build) -> Argv:
        """Make an image on this machine."""
        return [self.program, "build", *build.options()]

    def tag(self, name: str, another: str) -> Argv:
        """Give an image one more name."""
        return [self.program, "tag", name, another]

    def untag(self, name: str) -> Argv:
        """Take a name away."""
        return [self.program, "rmi", name]

    def user_of(self, name: str) -> Argv:
        """Print as whom an image runs; fails where there is none of this name."""
        return [self.program, "image", "inspect", "--format", "{{.Config.User}}", name]

    def login(self, registry: Registry) -> Argv:
        """Log in with the password on standard input."""
        return [self.program, "login", *self._access(registry), "--username", "user", "--password-stdin", registry.host]

    def push(self, name: str, registry: Registry, digest_file: Path) -> Argv:
        """Push an image under a name; the digest is in the file afterwards, or in what was printed."""
        digest = ["--digestfile", str(digest_file)]
        return [self.program, "push", *self._access(registry), *digest, name]

    def create(self, name: str, variables_file: Path, *, with_gpus: bool) -> Argv:
        """Make a container, and print its id; its variables are lines of a file, as others can read a command line."""
        gpus = self._gpus() if with_gpus else []
        return [self.program, "create", "--env-file", str(variables_file), *gpus, name]

    def start(self, container: str) -> Argv:
        """Run a container to its end, and exit as it does."""
        return [self.program, "start", "--attach", container]

    def copy_out(self, container: str, path: str, folder: Path) -> Argv:
        """Copy a folder out of a container."""
        return [self.program, "cp", f"{container}:{path}", str(folder)]

    def remove(self, container: str) -> Argv:
        """Remove a container."""
        return [self.program, "rm", "--force", container]

    def _access(self, registry: Registry) -> Argv:
        plain = ["--tls-verify=false"] if registry.is_plain else []
        trusted = ["--cert-dir", str(registry.authorities)] if registry.authorities else []
        kept = ["--authfile", str(registry.auth_file)] if registry.auth_file else []
        return [*kept, *plain, *trusted]

    def _gpus(self) -> Argv:
        return ["--device", "nvidia.com/gpu=all"]


class Docker(Builder):
    """The builder that every Docker engine has."""

    name = program = "docker"
    variables: ClassVar[Mapping[str, str]] = {"DOCKER_BUILDKIT": "0"}

    def look(self) -> Argv:
        """Asks the engine, without which the program can do nothing."""
        return ["docker", "version", "--format", "{{.Server.Version}}"]

    def build(self, build: Build) -> Argv:
        """Make an image on this machine; a step that fails leaves its container there unless told otherwise."""
        return ["docker", "build", "--force-rm", *build.options()]

    def push(self, name: str, registry: Registry, digest_file: Path) -> Argv:  # noqa: ARG002  it prints the digest
        """Push an image under a name."""
        return ["docker", "push", name]

    def _access(self, registry: Registry) -> Argv:  # noqa: ARG002  the engine knows which registries speak no TLS
        return []

    def _gpus(self) -> Argv:
        return ["--gpus", "all"]


class Buildx(Docker):
    """BuildKit by way of `docker buildx`, in a builder of its own: only such a one pushes layers with zstd."""

    name = "buildx"
    variables: ClassVar[Mapping[str, str]] = {}

    def look(self) -> Argv:
        """Asks for the plugin; that the engine works is asked of Docker."""
        return ["docker", "buildx", "version"]

    def find_builder(self) -> Argv:
        """Fails where our builder is not there yet."""
        return ["docker", "buildx", "inspect", BUILDX_NAME]

    def make_builder(self) -> Argv:
        """It shares this machine's network, so that it finds a registry here."""
        driver = ["--driver", "docker-container", "--driver-opt", "network=host"]
        return ["docker", "buildx", "create", "--name", BUILDX_NAME, *driver]

    def build(self, build: Build) -> Argv:
        """Make an image, and load it into the engine."""
        return ["docker", "buildx", "build", "--builder", BUILDX_NAME, "--progress=plain", "--load", *build.options()]

    def publish(self, build: Build, registry: Registry, metadata_file: Path) -> Argv:
        """Build and push at once, under all the build's names; the digest is in the file afterwards."""
        # It speaks plain HTTP to this machine by itself, to another one only when told.
        insecure = ",registry.insecure=true" if registry.is_plain and not registry.is_local else ""
        output = ["--output", BUILDX_OUTPUT + insecure, "--metadata-file", str(metadata_file)]
        return ["docker", "buildx", "build", "--builder", BUILDX_NAME, "--progress=plain", *output, *build.options()]


class Podman(Builder):
    """Podman, which needs no engine."""

    name = program = "podman"


class Buildah(Builder):
    """Buildah, which builds and pushes, and runs no image as it would be deployed."""

    name = program = "buildah"
    can_run = False

    def build(self, build: Build) -> Argv:
        """Make an image; it keeps the layers of a build for the next only when told."""
        return ["buildah", "build", "--layers", *build.options()]

    def user_of(self, name: str) -> Argv:
        """Print as whom an image runs."""
        return ["buildah", "inspect", "--type", "image", "--format", "{{.OCIv1.Config.User}}", name]


BUILDERS: Mapping[str, Builder] = {each.name: each for each in (Buildx(), Docker(), Podman(), Buildah())}
"""In the order in which they are looked for."""
