"""Bundles on this machine: fetched from the registry once, unpacked with distrust, kept by digest.

Place in the flow: `process.py` asks for the bundle of a revision and gets a folder and a configuration.
"""

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Literal

import msgspec

from machineshop.errors import ArtifactMissing, MachineshopError
from machineshop.runtime.archive import UnsafeArchive, unpack
from machineshop.runtime.base import Bundle, BundleSource, RevisionSpec
from machineshop.runtime.engine import PreparationFailed

LARGEST_LAYER_BYTES = 512 * 1024**2
UNFINISHED = "new-"
UNUSED_KEPT_SECONDS = 7 * 86_400.0
logger = logging.getLogger(__name__)


class BundleConfig(msgspec.Struct, frozen=True):
    """What a bundle says of itself."""

    version: Literal[1]
    command: tuple[str, ...] = ()
    python_version: str = ""
    requirements: str = ""
    environment: dict[str, str] = {}

    def __post_init__(self) -> None:
        if not self.command or not self.command[0]:
            raise ValueError("`command` is empty; it says which program to start")
        if any("\0" in word for word in self.command):
            raise ValueError("`command` holds a NUL character, which no command line can")
        for name, value in self.environment.items():
            if not name or "=" in name or "\0" in name:
                raise ValueError(f"`environment` names a variable {name[:200]!r}, which no environment can hold")
            if "\0" in value:
                raise ValueError(f"`environment` has a NUL character in {name[:200]!r}, which no environment can hold")
        if "\0" in self.python_version or self.python_version.startswith("-"):
            raise ValueError("`python_version` is none")


_CONFIG = msgspec.json.Decoder(BundleConfig)


class UnpackedBundle(msgspec.Struct, frozen=True):
    """A bundle on this machine. The source is shared: copy it, never run in it."""

    config: BundleConfig
    source: Path


class Bundles:
    """The bundles on this machine.

    Args:
        folder: Where they are kept.
        registry: Where they come from.
    """

    def __init__(self, folder: Path, registry: BundleSource) -> None:
        self._folder, self._registry = folder, registry
        self._locks: dict[str, asyncio.Lock] = {}
        self._unsound: dict[str, str] = {}
        """Why, by digest: what is wrong with these bytes stays wrong, so they are not fetched again."""

    async def fetch(self, spec: RevisionSpec) -> UnpackedBundle:
        """Get a revision's bundle. The registry is asked even when it is here, as it knows whose it is.

        Raises:
            PreparationFailed: It is not there, or is no sound bundle.
        """
        try:
            bundle = await self._registry.open_bundle(spec.project_id, spec.image)
            config = _CONFIG.decode(bundle.config)
            async with self._locks.setdefault(bundle.digest, asyncio.Lock()):
                return UnpackedBundle(config, await self._unpacked(bundle))
        except msgspec.DecodeError as error:
            why = f"{spec.image} has a configuration that makes no sense: {error}"
            raise PreparationFailed("ErrImagePull", why, final=True) from error
        except UnsafeArchive as error:
            why = f"{spec.image} is not a sound bundle: {error}."
            raise PreparationFailed("ErrImagePull", why, final=True) from error
        except ArtifactMissing as error:
            raise PreparationFailed("ErrImagePull", f"The bundle cannot be fetched: {error}", final=True) from error
        except (MachineshopError, OSError) as error:
            raise PreparationFailed("ErrImagePull", f"The bundle cannot be fetched: {error}") from error

    def prune(self, now: float) -> None:
        """Remove what no replica has started from for a long time, and what was never completed."""
        for folder in self._folder.glob("*"):
            if folder.name.startswith(UNFINISHED) or now - folder.stat().st_mtime > UNUSED_KEPT_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)

    async def _unpacked(self, bundle: Bundle) -> Path:
        source = self._folder / bundle.digest.removeprefix("sha256:")
        if source.exists():
            os.utime(source)
            await _close(bundle.layer)
            return source
        if bundle.digest in self._unsound:
            await _close(bundle.layer)
            raise UnsafeArchive(self._unsound[bundle.digest])
        try:
            await self._unpack(bundle, source)
        except UnsafeArchive as error:
            self._unsound[bundle.digest] = str(error)
            raise
        logger.info("bundle unpacked: digest=%s", bundle.digest)
        return source

    async def _unpack(self, bundle: Bundle, source: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(mkdtemp(dir=self._folder, prefix=UNFINISHED))
        try:
            archive = scratch / "layer.tar.gz"
            await _download(bundle.layer, archive)
            await asyncio.to_thread(_unpack_file, archive, scratch / "source")
            (scratch / "source").rename(source)
        finally:
            # Removing many files takes a while, in which others want to be served.
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)


async def _download(layer: AsyncIterator[bytes], archive: Path) -> None:
    size = 0
    with archive.open("wb") as file:
        async for chunk in layer:
            size += len(chunk)
            if size > LARGEST_LAYER_BYTES:
                raise UnsafeArchive(f"its layer is larger than {LARGEST_LAYER_BYTES // 1024**2} MiB")
            file.write(chunk)


async def _close(layer: AsyncIterator[bytes]) -> None:
    close = getattr(layer, "aclose", None)
    if close is not None:
        await close()


def _unpack_file(archive: Path, target: Path) -> None:
    with archive.open("rb") as file:
        unpack(file, target)
