"""The packages that the platform brings along, sprocket and jig, as an index of packages serves them."""

import hashlib
import re
from collections.abc import Sequence
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

import msgspec

from machineshop.errors import NotFound


class Wheel(msgspec.Struct, frozen=True):
    """One wheel, whole: a few hundred kilobytes, which stay what they are though the installation is replaced."""

    filename: str
    project: str
    """Its name in the normal form."""
    version: str
    requires_python: str | None
    sha256: str
    content: bytes
    metadata: bytes

    @property
    def metadata_sha256(self) -> str:
        """The digest of its METADATA file."""
        return hashlib.sha256(self.metadata).hexdigest()


class PackageIndex:
    """What an index of packages knows.

    Args:
        wheels: The wheels that the platform carries.
        elsewhere: The index that has all other packages, without a slash at its end; None where nobody said one.
    """

    def __init__(self, wheels: Sequence[Wheel], elsewhere: str | None) -> None:
        self._wheels = list(wheels)
        self.elsewhere = elsewhere

    @property
    def projects(self) -> list[str]:
        """The names of what is carried, in order."""
        return sorted({wheel.project for wheel in self._wheels})

    def files(self, project: str) -> list[Wheel]:
        """The wheels of a project, whatever the spelling of its name; none where it is not carried."""
        return [wheel for wheel in self._wheels if wheel.project == normal_name(project)]

    def file(self, sha256: str, filename: str) -> Wheel:
        """One wheel by its digest and name.

        Raises:
            NotFound: There is no such wheel; the installation was replaced, say.
        """
        for wheel in self._wheels:
            if (wheel.sha256, wheel.filename) == (sha256, filename):
                return wheel
        raise NotFound(what="package file", id=filename[:256], where="")


def read_wheels(folder: Path) -> list[Wheel]:
    """The wheels of a folder; none where there is no such folder."""
    return [read_wheel(path) for path in sorted(folder.glob("*.whl"))]


def read_wheel(path: Path) -> Wheel:
    """A wheel with what its METADATA says."""
    with ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name)
    content = path.read_bytes()
    fields = HeaderParser().parsestr(metadata.decode())
    return Wheel(
        filename=path.name,
        project=normal_name(fields["Name"]),
        version=fields["Version"],
        requires_python=fields["Requires-Python"],
        sha256=hashlib.sha256(content).hexdigest(),
        content=content,
        metadata=metadata,
    )


def normal_name(name: str) -> str:
    """A project's name as indexes compare it: lower case, one hyphen for each run of separators."""
    return re.sub(r"[-_.]+", "-", name).lower()
