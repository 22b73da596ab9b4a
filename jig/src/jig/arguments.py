"""The command line's words before they are parsed. Pure.

Options that every command takes may stand before the command too, commands may be spelled with `_`, and `help COMMAND`
is `COMMAND --help`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

VALUE_OPTIONS = ("-c", "--config")
FLAGS = ("--json",)
END_OF_OPTIONS = "--"
HELP_COMMAND, HELP_OPTION = "help", "--help"


def normalize(words: Sequence[str], commands: Collection[str]) -> list[str]:
    """The words with leading global options moved behind the command, and the command in its own spelling.

    Args:
        words: the command line without the program's name.
        commands: the commands of the first level.
    """
    leading, rest = split_leading(words)
    if rest and rest[0] == HELP_COMMAND:
        rest = [*rest[1:], HELP_OPTION]
    if rest and rest[0].replace("_", "-") in commands:
        rest = [rest[0].replace("_", "-"), *rest[1:]]
    if not rest or not leading:
        return [*leading, *rest]
    end = rest.index(END_OF_OPTIONS) if END_OF_OPTIONS in rest else len(rest)
    return [*rest[:end], *leading, *rest[end:]]


def split_leading(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The global options at the start, and everything after them."""
    at = 0
    while at < len(words):
        word = words[at]
        if word in VALUE_OPTIONS:
            at += 2
        elif word in FLAGS or word.startswith(tuple(f"{name}=" for name in VALUE_OPTIONS if name.startswith("--"))):
            at += 1
        else:
            break
    return list(words[:at]), list(words[at:])


def wants_json(words: Sequence[str]) -> bool:
    """True where `--json` is among the options, so that even a wrong command line is answered in JSON."""
    end = words.index(END_OF_OPTIONS) if END_OF_OPTIONS in words else len(words)
    return "--json" in words[:end]
