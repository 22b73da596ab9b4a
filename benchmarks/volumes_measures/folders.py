"""A folder up and down again, by each of the systems in turn."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BenchmarkError
from harness.report import Row, percentile
from harness.turns import in_turns
from volumes_systems.base import Cost, Store

# Whatever the size of the files: more means that somebody holds them in memory.
MEMORY_BAR_MIB = 100.0


@dataclass(frozen=True)
class Turn:
    """Both ways of one system."""

    up: Cost
    down: Cost


def measure(systems: Sequence[Store], rounds: int, title: str, source: Path, client_baseline_mib: float) -> list[Row]:
    """Upload and download of a folder.

    Args:
        systems: ours first, then its peers.
        rounds: turns of each.
        title: of the folder.
        source: the folder.
        client_baseline_mib: what jig's client holds before it does anything.
    """
    print(f"\n{title}:")
    results = in_turns(systems, rounds, lambda system: _turn(system, source), _shown)
    ours, *peers = systems

    def middle(system: Store, value: Callable[[Turn], float]) -> float:
        return percentile([value(turn) for turn in results[system.name]], 50)

    def seconds(system: Store, way: str) -> float:
        return middle(system, lambda turn: getattr(turn, way).seconds)

    rows = [
        Row(f"{way}load {title}", "s", "lower", ours.name, seconds(ours, way), peer.name, seconds(peer, way))
        for way in ("up", "down")
        for peer in peers
    ]
    client_mib = middle(ours, lambda turn: max(turn.up.client_mib, turn.down.client_mib)) - client_baseline_mib
    server_mib = middle(ours, lambda turn: turn.up.server_mib + turn.down.server_mib)
    rows.append(Row(f"client_growth {title}", "MiB", "lower", ours.name, client_mib, bar=MEMORY_BAR_MIB))
    rows.append(Row(f"server_growth {title}", "MiB", "lower", ours.name, server_mib, bar=MEMORY_BAR_MIB))
    return rows


def _turn(system: Store, source: Path) -> Turn:
    target = source.parent / "downloaded"
    system.bring_up()
    try:
        up = system.upload(source)
        down = system.download(target)
        _compare(system, source, target)
        return Turn(up, down)
    finally:
        system.take_down()
        shutil.rmtree(target, ignore_errors=True)


def _compare(system: Store, source: Path, target: Path) -> None:
    """What came back must be what went in, name by name and size by size."""
    went, came = _sizes(source), _sizes(target)
    if went != came:
        raise BenchmarkError(f"{system.name} gave {len(came)} files back, and not the {len(went)} that went in.")


def _sizes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def _shown(turn: Turn) -> str:
    ways = "   ".join(f"{way} {cost.seconds:6.2f} s" for way, cost in (("up", turn.up), ("down", turn.down)))
    client = f"client {turn.up.client_mib:.0f} and {turn.down.client_mib:.0f} MiB"
    memory = f"{client}, server +{turn.up.server_mib + turn.down.server_mib:.0f} MiB"
    return f"{ways}   {memory}"
