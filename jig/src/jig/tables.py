"""Aligned text: columns under headers, and names beside values. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

GAP = "  "


def columns(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose columns are as wide as their widest cell; nothing is padded at the end of a line."""
    table = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    return "\n".join(
        GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )


def fields(pairs: Iterable[tuple[str, str]]) -> str:
    """One `name  value` a line, values aligned; a value of several lines is indented under its first."""
    pairs = list(pairs)
    width = max((len(name) for name, _ in pairs), default=0)
    indent = "\n" + " " * width + GAP
    return "\n".join(f"{name.ljust(width)}{GAP}{indent.join(value.split(chr(10)))}".rstrip() for name, value in pairs)
