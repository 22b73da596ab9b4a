"""What this machine has: cores, memory, GPUs and free ports."""

import logging
import os
import re
import socket

import pynvml

from machineshop.runtime.base import Capacity

_KNOWN_TYPES = (
    ("H100", "h100-80gb"),
    ("H200", "h200-140gb"),
    ("B200", "b200-192gb"),
    ("A100", "a100-80gb"),
)

logger = logging.getLogger(__name__)


class Machine:
    """The machine, looked at once: `gpus` are the indices that replicas may use, `capacity` is everything in all."""

    def __init__(self) -> None:
        names = _gpu_names()
        self.gpus = _allowed(tuple(names), os.environ.get("CUDA_VISIBLE_DEVICES"))
        types = sorted({gpu_type(names[index]) for index in self.gpus})
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
        self.capacity = Capacity(float(os.cpu_count() or 1), round(memory, 1), len(self.gpus), tuple(types))


def free_port(taken: frozenset[int]) -> int:
    """A port that nothing listens on, neither here nor among replicas that are still starting."""
    while True:
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port


def gpu_type(name: str) -> str:
    """A GPU's type in the API's words, from the name that its driver gives; other models keep their name."""
    known = (kind for mark, kind in _KNOWN_TYPES if mark in name.upper())
    return next(known, re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"))


def _allowed(present: tuple[int, ...], visible: str | None) -> tuple[int, ...]:
    """The GPUs left to the server itself: one that was given some of the machine's must not hand out the others."""
    if visible is None:
        return present
    chosen = [int(part) for part in visible.split(",") if part.strip().isdigit()]
    return tuple(index for index in present if index in chosen)


def _gpu_names() -> dict[int, str]:
    """Names by index; empty where there is no driver, which is no error."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return {}
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return {index: _text(pynvml.nvmlDeviceGetName(handle)) for index, handle in enumerate(handles)}
    except pynvml.NVMLError as error:
        logger.warning("the GPUs cannot be read and are not used: %s", error)
        return {}
    finally:
        pynvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
