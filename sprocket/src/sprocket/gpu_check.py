"""A look at the GPUs before setup: a broken one is better known now than from every job that lands on it.

It asks NVML through nvidia-ml-py, which comes with `sprocket[gpu]`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import GpuError

SETTING = "SPROCKET_GPU_CHECK"


@dataclass(frozen=True)
class Gpu:
    """One GPU, as NVML tells of it.

    Attributes:
        index: its number on this machine.
        uuid: its name everywhere.
        name: its type.
        uncorrected_errors: errors of its memory since the driver was loaded that could not be corrected.
        wants_reset: memory is to be taken out of use, which takes a reset.
        is_failing: memory that is broken could not be taken out of use.
    """

    index: int
    uuid: str
    name: str
    uncorrected_errors: int = 0
    wants_reset: bool = False
    is_failing: bool = False


def check_gpus(environ: Mapping[str, str]) -> None:
    """See that the GPUs that the model is to use are there, and sound.

    Args:
        environ: says which (`CUDA_VISIBLE_DEVICES`), and how many it takes at least (`WORLD_SIZE`).

    Raises:
        GpuError: they are not; the text says what is wrong with each.
    """
    wanted = environ.get("WORLD_SIZE", "1")
    gpus = visible(read_gpus(), environ.get("CUDA_VISIBLE_DEVICES"))
    found = complaints(gpus, int(wanted) if wanted.isdigit() else 1)
    if found:
        raise GpuError(f"{SETTING}: {'; '.join(found)}")


def visible(gpus: Sequence[Gpu], setting: str | None) -> list[Gpu]:
    """Give the GPUs that `CUDA_VISIBLE_DEVICES` names, by number or the beginning of a UUID; all where it is None."""
    if setting is None:
        return list(gpus)
    names = [name.strip() for name in setting.split(",")]
    return [gpu for name in names for gpu in gpus if name and (name == str(gpu.index) or gpu.uuid.startswith(name))]


def complaints(gpus: Sequence[Gpu], wanted: int) -> list[str]:
    """Say what is wrong with the GPUs of a model that takes so many."""
    found = [] if len(gpus) >= wanted else [f"the model takes {wanted} GPUs, and {len(gpus)} can be seen"]
    for gpu in gpus:
        which = f"GPU {gpu.index} ({gpu.name}, {gpu.uuid})"
        if gpu.is_failing:
            found.append(f"{which} has broken memory that could not be taken out of use: it has to be replaced")
        elif gpu.wants_reset:
            found.append(f"{which} has to be reset to take broken memory out of use")
        elif gpu.uncorrected_errors:
            found.append(f"{which} had {gpu.uncorrected_errors} memory errors that could not be corrected")
    return found


def read_gpus() -> list[Gpu]:
    """Ask NVML for the machine's GPUs.

    Raises:
        GpuError: it is not there, or does not answer.
    """
    try:
        import pynvml  # noqa: PLC0415 - for those alone who ask for the check
    except ImportError:
        raise GpuError(
            f'{SETTING} takes nvidia-ml-py, which is not installed: add "sprocket[gpu]" to the worker\'s dependencies'
        ) from None
    try:
        with _started(pynvml):
            return [_read(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        raise GpuError(f"{SETTING}: NVML does not answer: {error}") from None


@contextlib.contextmanager
def _started(nvml: Any) -> Iterator[None]:
    nvml.nvmlInit()
    try:
        yield
    finally:
        nvml.nvmlShutdown()


def _read(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def told(ask: Callable[[], Any], otherwise: Any) -> Any:
        """Give an answer that not every GPU has."""
        try:
            return ask()
        except nvml.NVMLError_NotSupported:
            return otherwise

    uncorrected = (nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC)
    rows = told(lambda: nvml.nvmlDeviceGetRemappedRows(handle), (0, 0, 0, 0))
    pages_pending = told(lambda: nvml.nvmlDeviceGetRetiredPagesPendingStatus(handle), 0)
    return Gpu(
        index,
        _text(nvml.nvmlDeviceGetUUID(handle)),
        _text(nvml.nvmlDeviceGetName(handle)),
        uncorrected_errors=told(lambda: nvml.nvmlDeviceGetTotalEccErrors(handle, *uncorrected), 0),
        wants_reset=bool(rows[2] or pages_pending),
        is_failing=bool(rows[3]),
    )


def _text(told: str | bytes) -> str:
    """Older versions of nvidia-ml-py give bytes."""
    return told.decode() if isinstance(told, bytes) else told
