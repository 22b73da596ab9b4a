"""Images with skopeo: one of a large layer, and one of many small ones; pushed, then pulled."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from harness.memory import resident_mib
from harness.report import Row, percentile
from harness.turns import in_turns
from registry_measures.commands import run
from registry_systems.base import Registry

BAR = 1.0
MIB = 1024 * 1024


@dataclass(frozen=True)
class Turn:
    """MiB/s each way, and the registry's resident memory at the end, in MiB."""

    push: float
    pull: float
    memory: float


def measure(ours: Registry, peer: Registry, rounds: int, layout: Path, name: str, mib: int) -> list[Row]:
    """Push and pull of the image in an OCI layout, whose layers have `mib` MiB in all."""
    print(f"\nThe image of {name} with skopeo:")
    results = in_turns([ours, peer], rounds, lambda registry: _turn(registry, layout, mib), _shown)
    mine, theirs = results[ours.name], results[peer.name]

    def row(of: str, unit: str, bar: float | None) -> Row:
        values = [percentile([getattr(turn, of) for turn in turns], 50) for turns in (mine, theirs)]
        better = "lower" if unit == "MiB" else "higher"
        title = f"skopeo_{of} {name}"
        return Row(title, unit, better, ours.name, values[0], peer.name, values[1], bar)  # type: ignore[arg-type]

    return [row("push", "MiB/s", BAR), row("pull", "MiB/s", BAR), row("memory", "MiB", None)]


def _turn(registry: Registry, layout: Path, mib: int) -> Turn:
    registry.empty()
    access = registry.access
    pulled = layout.parent / "pulled"
    push_login = [] if access.key is None else ["--dest-creds", f"user:{access.key}"]
    pull_login = [] if access.key is None else ["--src-creds", f"user:{access.key}"]
    push = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", *push_login]
    pull = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", *pull_login]
    try:
        _, push_seconds = run([*push, f"oci:{layout}:latest", access.image("latest")])
        _, pull_seconds = run([*pull, access.image("latest"), f"oci:{pulled}:latest"])
    finally:
        shutil.rmtree(pulled, ignore_errors=True)
    return Turn(mib / push_seconds, mib / pull_seconds, resident_mib([registry.process]))


def _shown(turn: Turn) -> str:
    return f"push {turn.push:6.0f} MiB/s   pull {turn.pull:6.0f} MiB/s   {turn.memory:4.0f} MiB of memory"
