"""What is wrong with a command line, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

DEPLOY_HINT = "To deploy another folder, cd there first, or name its config with --config."


def left_over(command: Sequence[str], words: Sequence[str]) -> tuple[str, str]:
    """The message and the hint for words that a command has no use for.

    Args:
        command: its name, of one word or two; empty where there is none.
        words: what is too much, at least one.
    """
    name = " ".join(("jig", *command))
    shown = ", ".join(f'"{word}"' for word in words)
    if command == ("deploy",):
        return f"jig deploy takes no folder: {shown} has no meaning here.", DEPLOY_HINT
    verb = "is" if len(words) == 1 else "are"
    return f"{name} takes fewer words: {shown} {verb} too much.", f"See `{name} --help`."


def without_value(words: Sequence[str], takers: Collection[str], options: Collection[str]) -> str | None:
    """The option that wants a value and is followed by an option instead; None where there is none.

    Args:
        words: the command line behind the command.
        takers: the options that take any next word for their value.
        options: all that the command has.
    """
    for word, following in pairwise(words):
        if word == "--":
            return None
        if word in takers and following.partition("=")[0] in options:
            return word
    return None


def needs_value(command: str, option: str) -> tuple[str, str]:
    """The message and the hint for an option without its value."""
    return f"{command} needs a value for {option}.", f"See `{command} --help`."
