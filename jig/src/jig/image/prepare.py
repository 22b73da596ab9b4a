"""From a config to what a builder can build: the Dockerfile, the .dockerignore, and what they need in `.jig`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from jig.bundle.ignore import parse_patterns
from jig.bundle.pyproject import without_jig_tables
from jig.bundle.requirements import Requirements, lock
from jig.client import Client
from jig.config.file import PYPROJECT_FILE
from jig.config.model import Config
from jig.errors import ImageError
from jig.image import managed
from jig.image.dockerfile import OWN_FOLDER, PYPROJECT, REQUIREMENTS, Contents, dockerfile
from jig.image.fingerprint import files_in, fingerprint
from jig.image.ignored import dockerignore
from jig.image.selection import Selection, select, version
from jig.image.wheel import sprocket_wheel
from jig.state import State

DOCKERIGNORE = ".dockerignore"


@dataclass(frozen=True)
class Prepared:
    """A project that can be built.

    Args:
        dockerfile: its path.
        is_users: the Dockerfile is the user's own.
        tag: made of all that goes into the image.
        version: what git calls it.
        requirements: that are pinned for it; None where the Dockerfile is the user's.
        notes: what the user should know.
    """

    dockerfile: Path
    is_users: bool
    tag: str
    version: str
    requirements: Requirements | None = None
    notes: tuple[str, ...] = ()


def dockerfile_path(config: Config) -> Path:
    """Where the Dockerfile is, or will be.

    Raises:
        ImageError: outside the project.
    """
    path = config.directory / config.image.dockerfile_path
    if not path.resolve().is_relative_to(config.directory):
        raise ImageError(f"image.dockerfile_path names {config.image.dockerfile_path!r}, which is outside the project.")
    return path


def has_own_dockerfile(config: Config) -> bool:
    """True where the user keeps a Dockerfile."""
    return managed.is_users(dockerfile_path(config))


def prepare(config: Config, client: Client | None) -> Prepared:
    """Write what the build needs.

    Args:
        config: the project's.
        client: the platform, which has the wheel of sprocket; None where there is no key for one.

    Raises:
        BundleError: the requirements cannot be pinned, or `image.copy` names what is not there.
        ImageError: something cannot be written, or has no place in an image.
    """
    path = dockerfile_path(config)
    try:
        if managed.is_users(path):
            return prepare_users(config, client, path)
        return prepare_managed(config, client, path)
    except OSError as error:
        raise ImageError(f"Cannot prepare {config.directory}: {error.strerror}: {error.filename}.") from error


def prepare_users(config: Config, client: Client | None, path: Path) -> Prepared:
    """A Dockerfile of the user's gets sprocket's wheel where it names our folder, and is left alone."""
    text = path.read_text(encoding="utf-8", errors="replace")
    facts = [text]
    if f"{OWN_FOLDER}/" in text:
        facts.append(digest_of(sprocket_wheel(client, own_folder(config))))
    selection = select(config)
    everything = Selection(selection.patterns, (), (), (), is_everything=True)
    named = version(config.directory)
    return Prepared(path, True, tag_of(config, everything, [*facts, named], {}), named)


def prepare_managed(config: Config, client: Client | None, path: Path) -> Prepared:
    """Everything out of the config."""
    folder = own_folder(config)
    requirements = lock(config.directory, config.image, State(config.directory, config.name))
    wheel = sprocket_wheel(client, folder)
    selection = select(config)
    pyproject = stripped_pyproject(config, selection)
    keep(config.directory / REQUIREMENTS, requirements.text.encode() or None)
    keep(config.directory / PYPROJECT, pyproject)
    contents = Contents(
        wheel=wheel.name,
        has_requirements=bool(requirements.text),
        has_pyproject=pyproject is not None,
        folders=() if selection.is_everything else selection.folders,
        files=() if selection.is_everything else without_pyproject(selection.files, pyproject),
    )
    text = dockerfile(config, contents)
    managed.write(path, text)
    is_ours = managed.write(config.directory / DOCKERIGNORE, ignore_text(selection, contents))
    named = version(config.directory)
    replaced = {} if pyproject is None else {PYPROJECT_FILE: pyproject}
    tag = tag_of(config, selection, [text, requirements.text, digest_of(wheel), named], replaced)
    return Prepared(path, False, tag, named, requirements, () if is_ours else notes(config))


def own_folder(config: Config) -> Path:
    """Jig's folder in the project, which no repository should hold.

    Raises:
        ImageError: it is a link.
    """
    folder = config.directory / OWN_FOLDER
    managed.refuse_link(folder)
    folder.mkdir(exist_ok=True)
    keep(folder / ".gitignore", b"*\n")
    return folder


def keep(path: Path, content: bytes | None) -> None:
    """Make a file what it should be, or not be; one that is so already keeps its times.

    Raises:
        ImageError: it is a link.
    """
    managed.refuse_link(path)
    if content is None:
        path.unlink(missing_ok=True)
    elif not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)


def stripped_pyproject(config: Config, selection: Selection) -> bytes | None:
    """The pyproject.toml without what says how to deploy, so that a deployment's size makes no new image.

    Returns:
        None where the project's own will do, or is not taken.
    """
    path = config.directory / PYPROJECT_FILE
    if not path.is_file() or not (selection.is_everything or PYPROJECT_FILE in selection.files):
        return None
    text = path.read_text(encoding="utf-8")
    stripped = without_jig_tables(text)
    return None if stripped == text else stripped.encode()


def without_pyproject(files: tuple[str, ...], pyproject: bytes | None) -> tuple[str, ...]:
    """The files that are copied as they are."""
    return files if pyproject is None else tuple(name for name in files if name != PYPROJECT_FILE)


def ignore_text(selection: Selection, contents: Contents) -> str:
    """The .dockerignore."""
    own = [f"{OWN_FOLDER}/{contents.wheel}"]
    own += [REQUIREMENTS] if contents.has_requirements else []
    own += [PYPROJECT] if contents.has_pyproject else []
    replaced = [f"/{PYPROJECT_FILE}"] if contents.has_pyproject else []
    # What `image.copy` names is taken, though git may not know it.
    taken = [*selection.folders, *selection.files] if selection.untracked else []
    return dockerignore([*selection.patterns, *replaced], selection.untracked, taken, own)


def tag_of(config: Config, selection: Selection, facts: list[str], replaced: dict[str, bytes]) -> str:
    """The tag for all that goes into the image."""
    patterns = parse_patterns([*selection.patterns, f"/{OWN_FOLDER}"])
    named = {*selection.folders, *selection.files}
    names = set(files_in(config.directory, patterns, named, ()))
    if selection.is_everything:
        names |= set(files_in(config.directory, patterns, [""], selection.untracked))
    return fingerprint(config.directory, names, facts, replaced)


def digest_of(path: Path) -> str:
    """What tells one wheel from another."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def notes(config: Config) -> tuple[str, ...]:
    """What a .dockerignore of the user's leaves undone."""
    if not config.image.auto_include_git:
        return ()
    return (f"{DOCKERIGNORE} is yours: it must leave out what git does not track, and let {OWN_FOLDER}/ in.",)
