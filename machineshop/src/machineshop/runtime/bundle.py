"""Bundles on this machine: fetched from the registry once, unpacked with distrust, kept by digest.

Place in the flow: `process.py` asks for the bundle of a revision and gets a folder and a configuration. The archive
comes from whoever may push, so nothing in it may reach outside its folder or fill the disk.
"""

import asyncio
import logging
import os
import shutil
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import BinaryIO, Literal

import msgspec

from machineshop.errors import MachineshopError
from machineshop.runtime.base import Bundle, BundleSource, RevisionSpec
from machineshop.runtime.engine import PreparationFailed

LARGEST_LAYER_BYTES = 512 * 1024**2
LARGEST_SOURCE_BYTES = 4 * 1024**3
"""Unpacked. A layer within its limit could otherwise hold a thousand times as much."""
MOST_FILES = 20_000
LONGEST_PATH = 1024
UNFINISHED = "new-"
UNUSED_KEPT_SECONDS = 7 * 86_400.0
_COPY_BYTES = 1024 * 1024

logger = logging.getLogger(__name__)


class BundleConfig(msgspec.Struct, frozen=True):
    """What a bundle says of itself."""

    version: Literal[1]
    command: tuple[str, ...] = ()
    python_version: str = ""
    requirements: str = ""
    environment: dict[str, str] = {}


class UnpackedBundle(msgspec.Struct, frozen=True):
    """A bundle on this machine. The source is shared: copy it, never run in it."""

    config: BundleConfig
    source: Path


class UnsafeArchive(Exception):
    """An archive holds what no bundle may; the message says which entry and why."""


class Bundles:
    """The bundles on this machine.

    Args:
        folder: Where they are kept.
        registry: Where they come from.
    """

    def __init__(self, folder: Path, registry: BundleSource) -> None:
        self._folder, self._registry = folder, registry
        self._locks: dict[str, asyncio.Lock] = {}

    async def fetch(self, spec: RevisionSpec) -> UnpackedBundle:
        """Get a revision's bundle. The registry is asked even when it is here, as it knows whose it is.

        Raises:
            PreparationFailed: It is not there, or is no sound bundle.
        """
        try:
            bundle = await self._registry.open_bundle(spec.project_id, spec.image)
            config = msgspec.json.decode(bundle.config, type=BundleConfig)
            async with self._locks.setdefault(bundle.digest, asyncio.Lock()):
                return UnpackedBundle(config, await self._unpacked(bundle))
        except msgspec.DecodeError as error:
            raise PreparationFailed(
                "ErrImagePull", f"{spec.image} has a configuration that makes no sense: {error}"
            ) from error
        except UnsafeArchive as error:
            raise PreparationFailed("ErrImagePull", f"{spec.image} is not a sound bundle: {error}.") from error
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
        self._folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self._folder, prefix=UNFINISHED) as scratch:
            archive = Path(scratch) / "layer.tar.gz"
            await _download(bundle.layer, archive)
            await asyncio.to_thread(_unpack_file, archive, Path(scratch) / "source")
            (Path(scratch) / "source").rename(source)
        logger.info("bundle unpacked: digest=%s", bundle.digest)
        return source


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


def unpack(archive: BinaryIO, target: Path) -> None:
    """Unpack a gzipped tar into a new folder: regular files, folders, and links that stay inside.

    Raises:
        UnsafeArchive: It holds anything else, too much of it, or is broken.
    """
    target.mkdir()
    seen: dict[PurePosixPath, bool] = {}
    room = LARGEST_SOURCE_BYTES
    try:
        with tarfile.open(fileobj=archive, mode="r|gz") as tar:
            for member in tar:
                path = _safe_path(member, seen)
                room -= member.size if member.isreg() else 0
                if room < 0:
                    raise UnsafeArchive(f"it unpacks to more than {LARGEST_SOURCE_BYTES // 1024**3} GiB")
                if len(seen) > MOST_FILES:
                    raise UnsafeArchive(f"it holds more than {MOST_FILES:,} entries")
                _unpack_member(tar, member, target / path)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise UnsafeArchive(f"its archive is broken ({error})") from error
    except OSError as error:
        # Python's gzip reports a broken stream as an OSError without a number; a full disk has one.
        if error.errno is None:
            raise UnsafeArchive(f"its archive is broken ({error})") from error
        raise


def _safe_path(member: tarfile.TarInfo, seen: dict[PurePosixPath, bool]) -> PurePosixPath:
    """The entry's path below the target. `seen` holds the earlier ones, and whether each is a folder."""
    path = PurePosixPath(member.name)
    shown = repr(member.name[:200])
    if path.is_absolute() or ".." in path.parts or "\0" in member.name or len(member.name) > LONGEST_PATH:
        raise UnsafeArchive(f"the path {shown} does not stay inside")
    if not (member.isreg() or member.isdir() or member.issym()):
        raise UnsafeArchive(f"{shown} is neither a file nor a folder nor a symbolic link")
    if any(not seen.get(parent, True) for parent in path.parents):
        raise UnsafeArchive(f"{shown} lies below something that is not a folder")
    if path in seen and not (seen[path] and member.isdir()):
        raise UnsafeArchive(f"{shown} is there twice")
    if member.issym() and not _stays_inside(path, PurePosixPath(member.linkname)):
        raise UnsafeArchive(f"the link {shown} points outside")
    seen[path] = member.isdir()
    return path


def _stays_inside(link: PurePosixPath, to: PurePosixPath) -> bool:
    """Whether a link leads to a place inside, whatever other links are on the way.

    It may climb only at its beginning: up from a real folder is where the path says, up from behind a link is not.
    """
    climbs = 0
    for part in to.parts:
        if part != "..":
            break
        climbs += 1
    return not to.is_absolute() and ".." not in to.parts[climbs:] and climbs <= len(link.parent.parts)


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        path.symlink_to(member.linkname)
        return
    content = tar.extractfile(member)
    with path.open("xb") as file:
        if content is not None:
            shutil.copyfileobj(content, file, _COPY_BYTES)
    path.chmod(0o755 if member.mode & 0o100 else 0o644)
