"""From a project folder to a bundle that can be pushed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from jig.bundle.archive import write_archive
from jig.bundle.manifest import CONFIG_TYPE, MANIFEST_TYPE, SOURCE_TYPE, Blob, blob_of, config_blob, manifest
from jig.bundle.pyproject import without_jig_tables
from jig.bundle.source import Entry, collect
from jig.config.file import PYPROJECT_FILE
from jig.config.model import Config


@dataclass(frozen=True)
class Bundle:
    """A packed project.

    Args:
        config: the config blob's bytes.
        source: the source layer's name.
        source_file: an open file with the layer's bytes.
        manifest: the manifest's bytes.
        file_count: how many files the source layer holds.
    """

    config: bytes
    source: Blob
    source_file: IO[bytes]
    manifest: bytes
    file_count: int

    @property
    def config_blob(self) -> Blob:
        """The config blob's name."""
        return blob_of(self.config, CONFIG_TYPE)

    @property
    def digest(self) -> str:
        """The digest that the deployment's image names."""
        return blob_of(self.manifest, MANIFEST_TYPE).digest


def pack(config: Config, requirements: str) -> Bundle:
    """Pack the project of a config with its pinned requirements.

    Raises:
        BundleError: it is too large, or a file cannot be taken.
    """
    entries = contents(config)
    file = TemporaryFile(prefix="jig-")  # noqa: SIM115  the bundle's reader closes it
    digest, size_bytes = write_archive(config.directory, entries, file)
    source = Blob(SOURCE_TYPE, digest, size_bytes)
    image = config.image
    document = config_blob(config.command, image.python_version, requirements, image.environment)
    whole = manifest(blob_of(document, CONFIG_TYPE), source)
    return Bundle(document, source, file, whole, sum(entry.is_file for entry in entries))


def contents(config: Config) -> list[Entry]:
    """The project's entries without what only says how to deploy it: the config file, and `[tool.jig]` elsewhere.

    Raises:
        BundleError: a file cannot be taken, or there are too many.
    """
    folder = config.directory
    own = [] if config.path.name == PYPROJECT_FILE else [f"/{config.path.name}"]
    entries = collect(folder, config.image, own)
    return [without_config(folder, entry) if entry.path == PYPROJECT_FILE else entry for entry in entries]


def without_config(folder: Path, entry: Entry) -> Entry:
    """A pyproject.toml's entry without `[tool.jig]`; as it is where it cannot be read, which the archive reports."""
    try:
        content = without_jig_tables((folder / entry.path).read_text(encoding="utf-8")).encode()
    except (OSError, ValueError):
        return entry
    return replace(entry, content=content, size_bytes=len(content)) if entry.is_file else entry


def bundle_warnings(config: Config) -> list[str]:
    """What the config asks for that only an image can have."""
    asked = {"system_packages": config.image.system_packages, "run": config.image.run}
    return [
        f"image.{key} has no effect on a bundle: it needs a container image." for key, value in asked.items() if value
    ]
