"""The command line's words before they are parsed. Pure.

Options that every command takes may stand before the command too, commands may be spelled with `_`, and `help COMMAND`
is `COMMAND --help`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

VALUE_OPTIONS = ("-c", "--config")
FLAGS = ("--json",)
END_OF_OPTIONS = "--"
HELP_COMMAND, HELP_OPTION = "help", "--help"


def normalize(
    words: Sequence[str],
    commands: Collection[str],
    defaults: Mapping[str, tuple[str, Collection[str]]] | None = None,
) -> list[str]:
    """The words with leading global options moved behind the command, and the command in its own spelling.

    Args:
        words: the command line without the program's name.
        commands: the commands of the first level.
        defaults: for groups that may stand alone, the command that is meant then, and all that they have.
    """
    leading, rest = split_leading(words)
    if rest and rest[0] == HELP_COMMAND:
        rest = [*rest[1:], HELP_OPTION]
    if rest and rest[0].replace("_", "-") in commands:
        rest = [rest[0].replace("_", "-"), *rest[1:]]
    rest = with_default(rest, defaults or {})
    if not rest or not leading:
        return [*leading, *rest]
    end = rest.index(END_OF_OPTIONS) if END_OF_OPTIONS in rest else len(rest)
    return [*rest[:end], *leading, *rest[end:]]


def with_default(words: list[str], defaults: Mapping[str, tuple[str, Collection[str]]]) -> list[str]:
    """The words with a group's default command put in, where none of its commands is named and no help is asked for."""
    if not words or words[0] not in defaults:
        return words
    default, known = defaults[words[0]]
    if len(words) > 1 and (words[1] in known or words[1] in (HELP_OPTION, "-h")):
        return words
    return [words[0], default, *words[1:]]


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


def forgotten(words: Sequence[str], commands: Collection[str], files: Collection[str]) -> tuple[str, str] | None:
    """The message and the hint for global options at the start that lack a value, or a command behind them.

    Args:
        words: the command line without the program's name.
        commands: the commands and groups of the first level.
        files: those of them whose names a file here has too.
    """
    leading, rest = split_leading(words)
    for option, value in pairwise([*leading, ""]):
        if option not in VALUE_OPTIONS:
            continue
        if not value:
            return f"jig needs a value for {option}: the path of a config file.", f"Write: jig {option} PATH COMMAND"
        if value in commands and value not in files:
            message = f'{option} wants the path of a config file, and "{value}" is a command.'
            return message, f"Write: jig {option} PATH {value}"
    if leading and not rest:
        return "Which command? There is none behind the options.", "See `jig --help`."
    return None


def wants_json(words: Sequence[str]) -> bool:
    """True where `--json` is among the options, so that even a wrong command line is answered in JSON."""
    end = words.index(END_OF_OPTIONS) if END_OF_OPTIONS in words else len(words)
    return "--json" in words[:end]
