"""`machineshop doctor`: looks at what the platform needs on this machine, and names the mend for what it lacks."""

import asyncio
import contextlib
import os
import resource
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec
from uv import find_uv_bin

from machineshop.config import DEFAULT_HOST, DEFAULT_PORT, contexts_path, parse_storage_url
from machineshop.datadir import DataDir
from machineshop.errors import MachineshopError, StoreUnavailable
from machineshop.runtime.docker.api import answers, endpoint_here
from machineshop.runtime.machine import Machine
from machineshop.runtime.views import try_out
from machineshop.server import PortTaken, listen
from machineshop.store.engines import is_sqlite
from machineshop.store.schema import postgres_version

MIN_SQLITE = (3, 35, 0)
MIN_POSTGRES = 15
MIN_FREE_GIB = 5
MIN_OPEN_FILES = 4096


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    state: str
    """ok, note (works without it) or missing (does not work)."""
    detail: str


def examine(
    data_dir: Path,
    storage_dir: Path | None = None,
    database_url: str | None = None,
    storage_url: str | None = None,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
) -> Iterator[Finding]:
    """All findings, in the order in which a start with these settings would stumble over them."""
    yield _python()
    yield _sqlite()
    yield _uv()
    yield _wheel()
    yield _directory("data directory", data_dir, "--data-dir")
    if storage_dir is not None:
        yield _directory("storage directory", storage_dir, "--storage-dir")
    if storage_url is not None:
        yield _object_storage(storage_url)
    yield _disk(storage_dir or data_dir)
    if database_url is not None:
        yield _database(database_url)
    yield _port(host, port)
    yield _open_files()
    yield _gpus()
    yield _docker()
    yield _views()
    yield _context()


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Finding("python", "ok" if sys.version_info >= (3, 11) else "missing", version)


def _sqlite() -> Finding:
    if sqlite3.sqlite_version_info >= MIN_SQLITE:
        return Finding("sqlite", "ok", sqlite3.sqlite_version)
    return Finding("sqlite", "missing", f"{sqlite3.sqlite_version} is too old: 3.35 or newer is needed")


def _uv() -> Finding:
    try:
        return Finding("uv", "ok", str(find_uv_bin()))
    except FileNotFoundError:
        return Finding("uv", "missing", "bundles need it for their environments: pip install uv")


def _wheel() -> Finding:
    wheels = sorted((Path(__file__).parent / "wheels").glob("sprocket-*.whl"))
    if wheels:
        return Finding("sprocket", "ok", wheels[-1].name)
    return Finding("sprocket", "missing", "this installation carries no wheel of sprocket: install machineshop again")


def _directory(name: str, path: Path, option: str) -> Finding:
    nearest = _nearest(path)
    try:  # root may write everywhere by its permissions, and still not on what is mounted read-only
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        return Finding(name, "missing", f"{nearest} cannot be written ({error.strerror}): choose another with {option}")
    if path == nearest and (cause := _cause_of_uselessness(path)) is not None:
        return Finding(name, "missing", f"{cause}: mend that, or choose another with {option}")
    return Finding(name, "ok", str(path))


def _nearest(path: Path) -> Path:
    """The directory itself, or where it would be made."""
    return next(parent for parent in [path, *path.parents] if os.path.lexists(parent))


def _cause_of_uselessness(path: Path) -> str | None:
    """Why a server could not start on what lies in a directory; None where it could."""
    mode = path.stat()
    if mode.st_mode & 0o077 and os.geteuid() not in {0, mode.st_uid}:
        return f"{path} is open to other users, and belongs to one"
    for entry in sorted(path.iterdir()):
        access = os.R_OK | os.W_OK | (os.X_OK if entry.is_dir() else 0)
        if not os.access(entry, access, follow_symlinks=True):
            return f"{entry} cannot be read and written"
    store = DataDir(path).database
    if store.exists():
        try:
            with contextlib.closing(sqlite3.connect(f"file:{quote(str(store))}?mode=ro", uri=True)) as database:
                database.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.Error as error:
            return f"{store} is no store that can be read ({error})"
    return None


def _database(url: str) -> Finding:
    if is_sqlite(url):
        return Finding("database", "ok", "SQLite")
    try:
        version = postgres_version(url)
    except StoreUnavailable as error:
        return Finding("database", "missing", error.message)
    if version < MIN_POSTGRES:
        return Finding("database", "missing", f"Postgres {version} is too old: {MIN_POSTGRES} or newer is needed")
    return Finding("database", "ok", f"Postgres {version} answers")


def _object_storage(url: str) -> Finding:
    from machineshop.blobs.bucket import Bucket  # noqa: PLC0415 - it takes a moment to load

    try:
        Bucket(parse_storage_url(url)).check()
    except MachineshopError as error:
        return Finding("object storage", "missing", error.message)
    return Finding("object storage", "ok", url)


def _disk(path: Path) -> Finding:
    free_gib = shutil.disk_usage(_nearest(path)).free / 2**30
    if free_gib >= MIN_FREE_GIB:
        return Finding("disk", "ok", f"{free_gib:.0f} GiB free")
    return Finding("disk", "note", f"only {free_gib:.1f} GiB free beside the data directory")


def _port(host: str, port: int) -> Finding:
    try:
        listen(host, port).close()
    except PortTaken as error:
        return Finding("port", "note", error.message)
    return Finding("port", "ok", f"{port} of {host} is free" if port else "any that is free")


def _open_files() -> Finding:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # the server raises its own limit to the hard one
    if hard == resource.RLIM_INFINITY or hard >= MIN_OPEN_FILES:
        return Finding("open files", "ok", "unlimited" if hard == resource.RLIM_INFINITY else str(hard))
    return Finding("open files", "note", f"the limit is {hard}; many workers need more: ulimit -Hn 65536")


def _gpus() -> Finding:
    machine = Machine()
    if machine.gpus:
        return Finding("GPUs", "ok", f"{len(machine.gpus)} x {', '.join(machine.capacity.gpu_types)}")
    return Finding("GPUs", "note", "none: deploy with gpu_type = 'none'")


def _docker() -> Finding:
    endpoint = endpoint_here()
    if asyncio.run(answers(endpoint)):
        return Finding("docker", "ok", f"an engine answers at {endpoint}: images run as containers")
    return Finding("docker", "note", f"no engine answers at {endpoint}; bundles need none, images do")


def _views() -> Finding:
    why_not = try_out()
    if why_not is None:
        return Finding("volumes", "ok", "each replica that is a process sees its own")
    return Finding("volumes", "note", f"{why_not}: a mount_path leads to one version at a time; docs/volumes.md")


def _context() -> Finding:
    path = contexts_path()
    if path.exists():
        return Finding("jig context", "ok", str(path))
    return Finding("jig context", "note", f"{path} is made when the platform starts")
