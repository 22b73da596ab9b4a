"""What people see of volumes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jig.tables import columns, fields
from jig.units import age, count, size
from jig.volumes.remote import Volume, state_of

UPLOADED = "uploaded"


def listing(volumes: Sequence[Volume], now: datetime) -> str:
    """The table of `jig volumes list`."""
    if not volumes:
        return "No volumes. Make one: jig volumes create NAME SOURCE"
    rows = [
        (
            str(each["name"]),
            str(each["current_version"]),
            state_of(each),
            *amount(each),
            str(each.get("mounts_count", len(each.get("mounted_by") or []))),
            age(each.get("updated_at"), now),
        )
        for each in volumes
    ]
    return columns(("NAME", "VERSION", "STATUS", "FILES", "SIZE", "MOUNTS", "UPDATED"), rows)


def description(volume: Volume, names: Mapping[str, str], files_shown: int, now: datetime) -> str:
    """The text of `jig volumes describe`.

    Args:
        volume: of which version, it says itself.
        names: of deployments by their IDs.
        files_shown: how many files are listed at most.
        now: the time.
    """
    parts = [fields(facts(volume, names, now))]
    if shown := file_rows(volume, files_shown, now):
        parts.append("Files\n" + indent(shown))
    parts.append("Versions\n" + indent(version_table(volume, names, now)))
    return "\n\n".join(parts)


def facts(volume: Volume, names: Mapping[str, str], now: datetime) -> list[tuple[str, str]]:
    """A volume's names and values, the empty ones left out."""
    files_count, total = amount(volume)
    pairs = [
        ("Name", volume["name"]),
        ("ID", volume.get("id")),
        ("Version", version_text(volume)),
        ("Status", state_of(volume)),
        ("Why", volume.get("status_message")),
        ("Source", source(volume)),
        ("Files", f"{files_count}, {total}"),
        ("Sealed", sealed(volume, now)),
        ("Mounted by", mounted_by(volume, names)),
        ("Created", f"{age(volume.get('created_at'), now)} ago"),
        ("Updated", f"{age(volume.get('updated_at'), now)} ago"),
    ]
    return [(key, str(value)) for key, value in pairs if value]


def version_of(volume: Volume) -> int:
    """Which version an answer tells of."""
    return int(volume.get("version", volume["current_version"]))


def version_text(volume: Volume) -> str:
    """The version that is told of, and whether it is the current one."""
    version, current = version_of(volume), int(volume["current_version"])
    return f"{version}, the latest" if version == current else f"{version}, of 0 to {current}"


def source(volume: Volume) -> str:
    """Where its files come from."""
    origin = (volume.get("content") or {}).get("origin") or {}
    return str((origin.get("s3") or {}).get("uri") or UPLOADED)


def amount(volume: Volume) -> tuple[str, str]:
    """How many files, and how large they are together; some platforms do not tell that of earlier versions."""
    content = volume.get("content") or {}
    if "files_count" not in content:
        return "-", "-"
    return f"{content['files_count']:,}", size(content.get("size") or 0)


def sealed(volume: Volume, now: datetime) -> str:
    """Since when nothing can change any more."""
    sealed_at = volume.get("sealed_at")
    return f"{age(sealed_at, now)} ago" if sealed_at else "no: files can still be uploaded"


def mounted_by(volume: Volume, names: Mapping[str, str]) -> str:
    """The deployments that mount it."""
    return ", ".join(sorted(names.get(each, each) for each in volume.get("mounted_by") or []))


def file_rows(volume: Volume, files_shown: int, now: datetime) -> str:
    """The first files, and how many more there are."""
    content = volume.get("content") or {}
    files = (content.get("files") or [])[:files_shown]
    if not files:
        return ""
    rows = [(str(each["name"]), size(each.get("size") or 0), age(each.get("last_modified"), now)) for each in files]
    more = int(content["files_count"]) - len(files)
    note = f"\n... and {count(more, 'more file', 'more files')}: --files N, or --json" if more > 0 else ""
    return columns(("NAME", "SIZE", "AGE"), rows) + note


def version_table(volume: Volume, names: Mapping[str, str], now: datetime) -> str:
    """All versions, the latest first."""
    history: dict[int, Mapping[str, Any]] = {
        int(key): each for key, each in (volume.get("version_history") or {}).items()
    }
    versions = {**history, version_of(volume): volume}
    rows = [
        (
            str(number),
            state_of(each),
            *amount(each),
            age(each.get("sealed_at"), now),
            mounted_by(each, names) or "-",
        )
        for number, each in sorted(versions.items(), reverse=True)
    ]
    return columns(("VERSION", "STATUS", "FILES", "SIZE", "SEALED", "MOUNTED BY"), rows)


def indent(text: str) -> str:
    """Every line two spaces to the right."""
    return "\n".join(f"  {line}" for line in text.splitlines())
