"""The two outputs of every benchmark: aligned tables for a person, and rows for `--json`."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Row:
    """One number of ours, beside another of the same run where it has one; medians over the rounds.

    Args:
        name: what was measured, e.g. `start_p50`.
        unit: of both numbers.
        better: which way is better.
        ours_name: which of ours it is about.
        ours: our number.
        peer_name: whose number stands beside it, or which other one of ours.
        peer: that number; None where ours stands for itself.
        bar: the ratio asked for, or the number itself where there is no peer; None where the row is only reported.
    """

    name: str
    unit: str
    better: Literal["higher", "lower"]
    ours_name: str
    ours: float
    peer_name: str = ""
    peer: float | None = None
    bar: float | None = None

    @property
    def ratio(self) -> float | None:
        """`ours / peer`."""
        return None if self.peer is None else self.ours / self.peer

    @property
    def passes(self) -> bool:
        """Whether the bar is met; a row without one passes."""
        if self.bar is None:
            return True
        judged = self.ours if self.ratio is None else self.ratio
        return judged >= self.bar if self.better == "higher" else judged <= self.bar

    def fields(self) -> dict[str, object]:
        """The row as `--json` writes it."""
        return {**asdict(self), "ratio": self.ratio, "passes": self.passes}


def write_json(path: Path, rows: Sequence[Row]) -> None:
    """Replace the file by the list of rows."""
    path.write_text(json.dumps([row.fields() for row in rows], indent=2) + "\n", encoding="utf-8")


def rows_table(rows: Sequence[Row]) -> str:
    """The rows as a table with a verdict wherever a bar is set."""
    header = ["measure", "unit", "", "ours", "peer", "", "ratio", "bar", ""]
    return table([header, *(_cells(row) for row in rows)])


def _cells(row: Row) -> list[str]:
    bar = verdict = ""
    if row.bar is not None:
        bar = f"{'<=' if row.better == 'lower' else '>='} {row.bar:g}"
        verdict = "PASS" if row.passes else "FAIL"
    peer = "" if row.peer is None else number(row.peer)
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    return [row.name, row.unit, row.ours_name, number(row.ours), peer, row.peer_name, ratio, bar, verdict]


def number(value: float) -> str:
    """With about three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


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
