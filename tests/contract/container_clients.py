"""The programs that people push and pull images with, each with a home, a login and a storage of its own."""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from platform_process import PlatformProcess

COMMAND_SECONDS = 60
INDEX = "application/vnd.oci.image.index.v1+json"
IMAGE = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def need(program: str) -> None:
    """Skip a test where a program is not installed; in CI that is a failure."""
    if shutil.which(program) is None:
        missing(f"{program} is not installed (apt-get install {program})")


def need_docker() -> None:
    """Skip a test where no Docker engine answers; in CI that is a failure."""
    need("docker")
    if subprocess.run(["docker", "info"], capture_output=True, timeout=COMMAND_SECONDS, check=False).returncode != 0:
        missing("no Docker engine answers at DOCKER_HOST, or /var/run/docker.sock")


def missing(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


class ContainerClients:
    """Runs them against one platform.

    Args:
        platform: Which.
        folder: Of their own.
        host: Where they find it; None: where everybody does.
    """

    def __init__(self, platform: PlatformProcess, folder: Path, host: str | None = None) -> None:
        self.folder = folder
        self.host = host or platform.base_url.partition("://")[2]
        self.namespace = f"{self.host}/default"
        self._key = platform.api_key
        self._environment = {
            **os.environ,
            "HOME": str(folder),
            "DOCKER_CONFIG": str(folder / "docker"),
            "REGISTRY_AUTH_FILE": str(folder / "auth.json"),
            "XDG_RUNTIME_DIR": str(folder),
        }

    def run(self, *argv: object, stdin: str | None = None, within_seconds: float = COMMAND_SECONDS) -> str:
        """Run a command, which must succeed; returns what it printed."""
        finished = subprocess.run(
            [str(each) for each in argv],
            env=self._environment,
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=within_seconds,
            check=False,
        )
        assert finished.returncode == 0, f"{argv}: {finished.stdout}{finished.stderr}"
        return finished.stdout

    def docker(self, *arguments: object, stdin: str | None = None) -> str:
        return self.run("docker", *arguments, stdin=stdin)

    def skopeo(self, command: str, *arguments: object) -> str:
        # Each of its commands has its own words for "this registry has no TLS".
        plain = ["--src-tls-verify=false", "--dest-tls-verify=false"] if command == "copy" else ["--tls-verify=false"]
        return self.run("skopeo", command, *plain, *arguments)

    def podman(self, *arguments: object) -> str:
        return self.run("podman", *self._storage, "--cgroup-manager=cgroupfs", *arguments)

    def buildah(self, *arguments: object) -> str:
        return self.run("buildah", *self._storage, *arguments)

    @property
    def _storage(self) -> list[str]:
        return [f"--root={self.folder / 'storage'}", f"--runroot={self.folder / 'run'}", "--storage-driver=vfs"]

    def login(self, program: str) -> None:
        """Log in as people do."""
        options = ["--username", "user", "--password-stdin"]
        if program != "docker":
            options.append("--tls-verify=false")
        self.run(program, "login", *options, self.host, stdin=self._key)


class Layout:
    """An OCI image layout in a folder, as `skopeo copy oci:FOLDER` reads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs/sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, content: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        """Add a blob; returns its descriptor."""
        hexadecimal = hashlib.sha256(content).hexdigest()
        (self.folder / "blobs/sha256" / hexadecimal).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{hexadecimal}", "size": len(content), **more}

    def image(self, architecture: str, compression: str) -> dict[str, Any]:
        """Add an image of one file; returns its descriptor."""
        layer = layer_with("file", architecture.encode() * 20)
        packed = gzip.compress(layer) if compression == "gzip" else zstd_of(layer)
        manifest = {
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": self.blob(config_of(layer, architecture), CONFIG),
            "layers": [self.blob(packed, f"{LAYER}+{compression}")],
        }
        platform = {"architecture": architecture, "os": "linux"}
        return self.blob(json.dumps(manifest).encode(), IMAGE, platform=platform)

    def index(self, tag: str, images: list[dict[str, Any]]) -> str:
        """Add an index of images under a tag; returns its digest."""
        content = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": images}).encode()
        described = self.blob(content, INDEX, annotations={"org.opencontainers.image.ref.name": tag})
        (self.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
        return str(described["digest"])

    @property
    def blobs(self) -> dict[str, bytes]:
        """All blobs by their names."""
        return {path.name: path.read_bytes() for path in (self.folder / "blobs/sha256").iterdir()}


def layer_with(name: str, content: bytes) -> bytes:
    """A tar with one file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def config_of(layer: bytes, architecture: str = "amd64") -> bytes:
    """The configuration of an image that has this layer alone."""
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    return json.dumps(config).encode()


def zstd_of(content: bytes) -> bytes:
    """A zstd frame (RFC 8878) that holds `content` as it is: one segment of one raw block."""
    assert 256 <= len(content) < 65536 + 256
    size = (len(content) - 256).to_bytes(2, "little")
    block = (1 | len(content) << 3).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd" + b"\x60" + size + block + content
