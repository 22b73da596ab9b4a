"""Where the volumes of tests come from: bytes in memory, or files that can be linked."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from machineshop.errors import ArtifactMissing
from machineshop.runtime.base import VolumeFile, VolumeVersion

FILES = {"model.txt": b"the first", "more/tokens.txt": b"a b c"}
PIECE_BYTES = 256 * 1024


def file_of(path: str, content: bytes) -> VolumeFile:
    digest = hashlib.sha256(content).hexdigest()
    return VolumeFile(path=path, size=len(content), digest=digest, blob_key=f"files/{digest}")


class Shelf:
    """Volumes by id and version.

    Args:
        folder: Where their bytes lie as files that can be linked; None: nowhere, they are copied.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.versions: dict[tuple[str, int], list[VolumeFile]] = {}
        self.contents: dict[str, bytes] = {}
        self.gate = asyncio.Event()
        """While it is closed nothing is read to its end."""
        self.gate.set()
        self.let_through: int | None = None
        """How many files are given whole; of the others nothing ever comes."""
        self.lost = False
        """Whether no version is to be found."""
        self.opened: list[str] = []
        self.at_once = self.most_at_once = 0

    def put(self, files: Mapping[str, bytes], version: int = 0, volume_id: str = "volume-1") -> VolumeVersion:
        """A version with these files."""
        self.versions[volume_id, version] = [file_of(path, content) for path, content in files.items()]
        for file, content in zip(self.versions[volume_id, version], files.values(), strict=True):
            self.contents[file.blob_key] = content
            if self.folder is not None:
                blob = self.folder / file.blob_key
                blob.parent.mkdir(parents=True, exist_ok=True)
                blob.write_bytes(content)
        return VolumeVersion(volume_id=volume_id, name="weights", version=version)

    async def volume_files(self, project_id: str, volume_id: str, version: int) -> list[VolumeFile]:
        if self.lost or (volume_id, version) not in self.versions or project_id != "project-1":
            raise ArtifactMissing(f"There is no version {version} of {volume_id}.")
        return self.versions[volume_id, version]

    async def has_volume(self, project_id: str, volume_id: str, version: int) -> bool:
        return not self.lost and (volume_id, version) in self.versions and project_id == "project-1"

    async def open_file(self, file: VolumeFile) -> AsyncIterator[bytes]:
        if file.blob_key not in self.contents:
            raise ArtifactMissing(f"The bytes of {file.path} are gone.")
        self.opened.append(file.path)
        return self._pieces(self.contents[file.blob_key])

    async def link_file(self, file: VolumeFile, target: Path) -> bool:
        if self.folder is None:
            return False
        os.link(self.folder / file.blob_key, target)
        return True

    async def _pieces(self, content: bytes) -> AsyncIterator[bytes]:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.let_through is not None and len(self.opened) > self.let_through:
                await asyncio.Event().wait()
            for start in range(0, len(content), PIECE_BYTES):
                if start or len(content) <= PIECE_BYTES:
                    await self.gate.wait()
                await asyncio.sleep(0)
                yield content[start : start + PIECE_BYTES]
        finally:
            self.at_once -= 1
