"""A secret's value that nobody else has by chance, and the places where it could have been written down."""

import base64
import gzip
import json
import sqlite3
import subprocess
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql

COMMAND_SECONDS = 60
GZIP = b"\x1f\x8b"


class Canary:
    """Values of one test's own: others look at the same machine at the same time."""

    def __init__(self) -> None:
        stem = f"canary-{uuid4().hex[:12]}"
        self.value = f"{stem}'\"\\é-value"
        self.new_value = f"{stem}-another-value"
        self.spellings = sorted({spelling for each in (stem, self.value, self.new_value) for spelling in _of(each)})

    def is_in(self, content: str | bytes) -> bool:
        """Whether one of the values is in there, or the part that both begin with."""
        found = content.encode() if isinstance(content, str) else content
        return any(spelling in found for spelling in self.spellings)

    def files(self, folder: Path) -> list[str]:
        """The files below a folder that hold it, packed or not."""
        found = []
        for path in folder.rglob("*"):
            if path.is_symlink() or not path.is_file():
                continue
            content = path.read_bytes()
            if content[:2] == GZIP:
                content += gzip.decompress(content)
            if self.is_in(content):
                found.append(str(path.relative_to(folder)))
        return found

    def processes(self, part: str) -> set[int]:
        """The processes whose `cmdline`, or `environ`, holds it."""
        found = set()
        for path in Path("/proc").glob(f"[0-9]*/{part}"):
            try:
                if self.is_in(path.read_bytes()):
                    found.add(int(path.parent.name))
            except OSError:
                continue
        return found

    def tables(self, rows: dict[str, bytes]) -> list[str]:
        """The tables that hold it."""
        return sorted(name for name, content in rows.items() if self.is_in(content))

    def in_the_engine(self, container: str) -> list[str]:
        """What of a Docker Engine holds it, but for the environment of this container, which must.

        Looked at is all that the engine says of its containers, images, networks and volumes, how the images were made,
        and what this container has printed.
        """
        found = {f"log of {container}": _docker("logs", container)}
        for image in _docker("image", "ls", "--quiet").split():
            found[f"history of {image}"] = _docker("history", "--no-trunc", image)
        for kind, every in (("container", ["--all"]), ("image", ["--all"]), ("network", []), ("volume", [])):
            # Where one has gone meanwhile it says so, and tells of the others.
            inspected = json.loads(_docker(kind, "inspect", *_docker(kind, "ls", "--quiet", *every).split()) or "[]")
            for about in inspected:
                if about.get("Id") == container:
                    assert self.is_in(json.dumps(about["Config"].pop("Env")))
                found[f"{kind} {about.get('Id') or about['Name']}"] = json.dumps(about)
            assert kind != "container" or any(about["Id"] == container for about in inspected)
        return [name for name, text in found.items() if self.is_in(text)]


def rows_of_sqlite(path: Path) -> dict[str, bytes]:
    """Every row of every table, by the table's name."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: _text(connection.execute(f'SELECT * FROM "{name}"').fetchall()) for name in names}


def rows_of_postgres(url: str) -> dict[str, bytes]:
    """The same of a Postgres."""
    with psycopg.connect(url) as connection:
        tables = [name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        query = sql.SQL("SELECT * FROM {}")
        return {name: _text(connection.execute(query.format(sql.Identifier(name))).fetchall()) for name in tables}


def processes_of(container: str) -> set[int]:
    """The processes in a container, as this machine counts them."""
    return {int(pid) for pid in _docker("top", container, "-o", "pid").split()[1:]}


def _of(value: str) -> list[bytes]:
    """How a value could be written down."""
    raw = value.encode()
    escaped = [
        json.dumps(value)[1:-1].encode(),
        json.dumps(value, ensure_ascii=False)[1:-1].encode(),
        repr(value).encode(),
    ]
    # In base64 only the middle is the same wherever the value begins.
    coded = [base64.b64encode(raw[shift:])[: len(raw) - 4] for shift in range(3)]
    return [raw, *escaped, *coded, raw.hex().encode(), raw.hex().upper().encode()]


def _text(rows: list[tuple[Any, ...]]) -> bytes:
    return b"\n".join(
        value if isinstance(value, bytes) else str(value).encode() for row in rows for value in row if value is not None
    )


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, timeout=COMMAND_SECONDS, check=False)
    return (done.stdout + done.stderr).decode() if "logs" in arguments else done.stdout.decode()
