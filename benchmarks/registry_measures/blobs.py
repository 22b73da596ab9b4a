"""One large blob with curl: a PUT of all of it, then GETs."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

from harness.errors import BenchmarkError
from harness.memory import resident_mib
from harness.report import Row, percentile
from harness.turns import in_turns
from registry_measures.commands import run
from registry_systems.base import Access, Registry

GETS = 3
PUT_BAR = GET_BAR = 1.3
MIB = 1024 * 1024


@dataclass(frozen=True)
class Turn:
    """MiB/s each way, and the registry's resident memory at the end, in MiB."""

    put: float
    get: float
    memory: float


def measure(ours: Registry, peer: Registry, rounds: int, content: Path, digest: str) -> list[Row]:
    """PUT and GET of `content`."""
    print(f"\nOne blob of {content.stat().st_size / MIB:.0f} MiB with curl:")
    results = in_turns([ours, peer], rounds, lambda registry: _turn(registry, content, digest), _shown)
    mine, theirs = results[ours.name], results[peer.name]

    def row(name: str, unit: str, of: str, bar: float | None) -> Row:
        values = [percentile([getattr(turn, of) for turn in turns], 50) for turns in (mine, theirs)]
        better = "lower" if unit == "MiB" else "higher"
        return Row(name, unit, better, ours.name, values[0], peer.name, values[1], bar)  # type: ignore[arg-type]

    return [
        row("curl_put", "MiB/s", "put", PUT_BAR),
        row("curl_get", "MiB/s", "get", GET_BAR),
        row("curl_memory", "MiB", "memory", None),
    ]


def _turn(registry: Registry, content: Path, digest: str) -> Turn:
    registry.empty()
    access, size = registry.access, content.stat().st_size / MIB
    curl = _curl(access)
    head, _ = run(
        [*curl, "--request", "POST", "--dump-header", "-", "--output", "/dev/null", access.url("blobs/uploads/")]
    )
    location = urljoin(access.url("blobs/uploads/"), _header(head, "location"))
    target = f"{location}{'&' if '?' in location else '?'}digest={digest}"
    binary = ["--header", "Content-Type: application/octet-stream"]
    _, put_seconds = run([*curl, *binary, "--upload-file", content, "--output", "/dev/null", target])
    url = access.url(f"blobs/{digest}")
    gets = [run([*curl, "--output", "/dev/null", url])[1] for _ in range(GETS)]
    return Turn(size / put_seconds, size / percentile(gets, 50), resident_mib([registry.process]))


def _curl(access: Access) -> list[str]:
    curl = ["curl", "--silent", "--show-error", "--fail"]
    # A key of a registry that lives for one turn, on a machine of one's own.
    return curl if access.key is None else [*curl, "--user", f"user:{access.key}"]


def _header(head: str, name: str) -> str:
    for line in head.splitlines():
        field, _, value = line.partition(":")
        if field.strip().lower() == name:
            return value.strip()
    raise BenchmarkError(f"The answer has no header {name}:\n{head}")


def _shown(turn: Turn) -> str:
    return f"PUT {turn.put:6.0f} MiB/s   GET {turn.get:6.0f} MiB/s   {turn.memory:4.0f} MiB of memory"
