"""What is wrong with a command line, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Sequence

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
