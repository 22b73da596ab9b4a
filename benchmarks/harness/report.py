"""The two outputs of every benchmark: aligned tables for a person, and rows of ratios for `--json`."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Row:
    """One number of ours beside a peer's, both medians over the rounds of one run.

    Args:
        name: what was measured, e.g. `submit_to_start_p50`.
        unit: of both numbers.
        better: which way is better.
        ours: our number.
        peer_name: whose number stands beside it.
        peer: that number.
        bar: the ratio asked for; None where the row is only reported.
    """

    name: str
    unit: str
    better: Literal["higher", "lower"]
    ours: float
    peer_name: str
    peer: float
    bar: float | None = None

    @property
    def ratio(self) -> float:
        """`ours / peer`."""
        return self.ours / self.peer

    @property
    def verdict(self) -> str:
        """PASS or MISS, and nothing where no bar is set."""
        if self.bar is None:
            return ""
        met = self.ratio >= self.bar if self.better == "higher" else self.ratio <= self.bar
        return "PASS" if met else "MISS"

    def fields(self) -> dict[str, object]:
        """The row as `--json` writes it."""
        return {**asdict(self), "ratio": self.ratio}


def write_json(path: Path, rows: Sequence[Row]) -> None:
    """Replace the file by the list of rows."""
    path.write_text(json.dumps([row.fields() for row in rows], indent=2) + "\n", encoding="utf-8")


def ratio_table(rows: Sequence[Row]) -> str:
    """The rows as a table with a verdict wherever a bar is set."""
    header = ["measure", "unit", "ours", "peer", "", "ratio", "bar", ""]
    lines = [
        [
            row.name,
            row.unit,
            f"{row.ours:.2f}",
            f"{row.peer:.2f}",
            row.peer_name,
            f"{row.ratio:.2f}",
            "" if row.bar is None else f"{'<=' if row.better == 'lower' else '>='} {row.bar:g}",
            row.verdict,
        ]
        for row in rows
    ]
    return table([header, *lines])


def table(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells in columns; cells that start with a digit stand on the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)
            for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of the values that at least `percent` of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
