"""What it means when a container ends, or does not start: reasons and messages that name the mend. Pure."""

import re
from datetime import datetime
from typing import Any

from machineshop.runtime.engine import PreparationFailed
from machineshop.runtime.exits import Exit
from machineshop.runtime.record import Record

LONGEST_WORDS = 400
# The engine's small init says so when it cannot start the program: Docker's, and Podman's, which does not name it.
_NOT_STARTED = (
    re.compile(r"\[FATAL tini \(\d+\)\] exec (?P<program>.+) failed: (?P<why>.+)"),
    re.compile(r"failed to exec (?P<program>pid1): (?P<why>.+)"),
)


def exit_of(
    state: dict[str, Any], record: Record, last_line: str, *, architectures: tuple[str, str], now: float
) -> Exit:
    """How a container's run ended.

    Args:
        state: `State` of the engine's inspect call.
        record: The replica.
        last_line: What it printed last.
        architectures: The image's and the machine's.
        now: Seconds since the epoch, where the engine does not say when.
    """
    code = int(state.get("ExitCode") or 0)
    reason, message = _explain(state, record, last_line, architectures)
    # Shells and engines count a death by signal n as 128 + n.
    by_signal = 128 < code <= 128 + 64
    return Exit(
        at=_seconds(state.get("FinishedAt")) or now,
        code=None if by_signal else code,
        signal=code - 128 if by_signal else None,
        last_line=last_line,
        reason=reason,
        message=message,
    )


def why_not_started(words: str, record: Record, architectures: tuple[str, str]) -> PreparationFailed:
    """What the engine's words about a create or a start mean."""
    lower, quoted = words.lower(), words[:LONGEST_WORDS]
    missing = "executable file not found" in lower or "no such file or directory" in lower
    if "no command specified" in lower or "no command or entrypoint" in lower:
        why = "Its image has no command, neither ENTRYPOINT nor CMD. Set command in [tool.jig.deploy], or in the image."
    elif "exec format error" in lower or (missing and architectures[0] not in ("", architectures[1])):
        # A program for another machine also looks like one that is missing: so does what would have loaded it.
        why = _wrong_architecture(architectures)
    elif missing:
        why = f"Its command does not exist in the image ({quoted}). Correct command in [tool.jig.deploy], or the image."
    elif "permission denied" in lower:
        why = f"Its command may not be executed ({quoted}). Make it executable in the image: chmod +x."
    elif "port is already allocated" in lower or "address already in use" in lower:
        why = f"Another program took port {record.port} of this machine first. It is tried again with another."
    elif "device driver" in lower and "gpu" in lower:
        why = f"The engine cannot hand out GPUs ({quoted}). Install the NVIDIA Container Toolkit on this machine."
    elif "no space left" in lower:
        why = "The engine's disk is full. Free some space there: docker system prune."
    elif "bind source path does not exist" in lower:
        why = f"The engine does not see this machine's files ({quoted}). Use one that runs on the platform's machine."
    elif "non-overlapping" in lower:
        why = (
            "The engine has no address range left for one more network. Remove unused ones (docker network prune), or "
            "give it more with default-address-pools in its daemon.json."
        )
    else:
        why = f"The engine could not start it: {quoted}"
    return PreparationFailed("CreateContainerError", why)


def _explain(
    state: dict[str, Any], record: Record, last_line: str, architectures: tuple[str, str]
) -> tuple[str | None, str | None]:
    """The reasons that the engine alone knows."""
    if state.get("OOMKilled"):
        limit = f"{record.spec.memory_gib:g} GiB"
        return (
            "OOMKilled",
            f"It used more than the {limit} of memory that it asked for. Raise memory in [tool.jig.deploy].",
        )
    not_started = next(filter(None, (words.search(last_line) for words in _NOT_STARTED)), None)
    if not_started is not None and state.get("ExitCode"):
        program = not_started["program"]
        if program == "pid1" and record.spec.command:
            program = record.spec.command[0]
        return None, why_not_started(f"{program}: {not_started['why']}", record, architectures).message
    if state.get("Error"):
        return None, why_not_started(str(state["Error"]), record, architectures).message
    return None, None


def _wrong_architecture(architectures: tuple[str, str]) -> str:
    image, machine = architectures
    if image and image != machine:
        return (
            f"The image is for {image} and this machine is {machine}, so its program cannot run here. Build it with "
            f"--platform linux/{machine}."
        )
    return (
        f"Its program is not one that this machine ({machine}) can run: it was built for another architecture, or is a "
        "script without a line such as #!/bin/sh."
    )


def _seconds(text: object) -> float | None:
    """An engine's time; it says the year 1 where there is none."""
    if not isinstance(text, str) or text.startswith("0001-"):
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
