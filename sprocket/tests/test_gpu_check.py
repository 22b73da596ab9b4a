"""The look at the GPUs before setup, as far as it can be told without any."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from sprocket_process import Launcher

from sprocket.errors import GpuError
from sprocket.gpu_check import Gpu, check_gpus, complaints, read_gpus, visible

GPUS = [
    Gpu(0, "GPU-aa11", "A"),
    Gpu(1, "GPU-bb22", "A", uncorrected_errors=3),
    Gpu(2, "GPU-cc33", "B", wants_reset=True),
]


def test_those_that_are_not_visible_do_not_matter() -> None:
    assert visible(GPUS, None) == GPUS
    assert visible(GPUS, "2,0") == [GPUS[2], GPUS[0]]
    assert visible(GPUS, "GPU-bb") == [GPUS[1]]
    assert visible(GPUS, "") == []
    assert visible(GPUS, "-1") == []


def test_what_is_wrong_is_said_of_each() -> None:
    assert complaints(GPUS[:1], 1) == []
    assert complaints([], 0) == []
    assert complaints([*GPUS[1:], Gpu(3, "u", "C", is_failing=True)], 4) == [
        "the model takes 4 GPUs, and 3 can be seen",
        "GPU 1 (A, GPU-bb22) had 3 memory errors that could not be corrected",
        "GPU 2 (B, GPU-cc33) has to be reset to take broken memory out of use",
        "GPU 3 (C, u) has broken memory that could not be taken out of use: it has to be replaced",
    ]


class NotSupported(Exception):
    pass


class Nvml(SimpleNamespace):
    """Two GPUs, of which the second knows nothing of ECC."""

    NVMLError = Exception
    NVMLError_NotSupported = NotSupported
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_VOLATILE_ECC = 0

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's names
        self.calls.append("init")

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.calls.append("shutdown")

    def __getattr__(self, name: str) -> Any:
        def answer(*arguments: Any) -> Any:
            answers = {
                "nvmlDeviceGetCount": 2,
                "nvmlDeviceGetHandleByIndex": arguments[0] if arguments else None,
                "nvmlDeviceGetUUID": b"GPU-1",
                "nvmlDeviceGetName": "A",
            }
            if name in answers:
                return answers[name]
            if arguments[0] == 1:
                raise NotSupported
            return (0, 1, 1, 0) if name == "nvmlDeviceGetRemappedRows" else 0

        return answer


def test_nvml_is_asked_and_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert read_gpus() == [Gpu(0, "GPU-1", "A", wants_reset=True), Gpu(1, "GPU-1", "A")]
    assert nvml.calls == ["init", "shutdown"]
    check_gpus({"CUDA_VISIBLE_DEVICES": "1"})
    with pytest.raises(GpuError, match=r"^SPROCKET_GPU_CHECK: GPU 0 \(A, GPU-1\) has to be reset"):
        check_gpus({})

    def no_driver() -> None:
        raise Exception("Driver Not Loaded")  # noqa: TRY002 - as NVML's

    monkeypatch.setattr(nvml, "nvmlInit", no_driver)
    with pytest.raises(GpuError, match="NVML does not answer: Driver Not Loaded"):
        read_gpus()


async def test_a_worker_that_is_to_look_and_cannot_ends_with_the_reason(launch: Launcher) -> None:
    worker = await launch(None, "zoo:Zoo", SPROCKET_GPU_CHECK="1")
    assert await worker.exit_code() == 2
    assert "SPROCKET_GPU_CHECK" in worker.stderr
    assert "Traceback" not in worker.stderr
