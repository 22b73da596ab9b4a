"""What a job took: told with its result."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from sprocket_fake_platform import FakePlatform
from sprocket_process import Launcher

from sprocket.measures import INFO_KEY, Measures, peak_memory


def test_steps_are_told_of_that_took_time() -> None:
    measures = Measures()
    assert measures.info() == {}
    measures.add("predict", 0.0000012)
    measures.add("download", 0.6)
    measures.add("upload", 0.0001)
    told = measures.info()[INFO_KEY]
    assert {name: told[name] for name in told if name.endswith("_seconds")} == {
        "predict_seconds": 0.000001,
        "download_seconds": 0.6,
    }


def test_memory_is_that_of_the_models_process() -> None:
    measures = Measures()
    measures.add("predict", 2)
    assert measures.info()[INFO_KEY]["ram_peak_bytes"] == pytest.approx(peak_memory()["ram_peak_bytes"], rel=0.5)
    measures.memory = {"ram_peak_bytes": 5}
    assert measures.info() == {INFO_KEY: {"predict_seconds": 2, "ram_peak_bytes": 5}}


def test_torch_tells_of_gpus_once_it_works_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    working = False
    cuda = SimpleNamespace(
        is_initialized=lambda: working, device_count=lambda: 2, max_memory_allocated=lambda gpu: gpu + 10
    )
    torch = ModuleType("torch")
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert "vram_peak_bytes" not in peak_memory()  # it is just being imported
    monkeypatch.setattr(torch, "cuda", cuda, raising=False)
    assert "vram_peak_bytes" not in peak_memory()
    working = True
    assert peak_memory()["vram_peak_bytes"] == 21


@pytest.mark.parametrize("process", ["", "1"], ids=["thread", "process"])
async def test_every_result_tells_what_it_took(
    launch: Launcher, platform: FakePlatform, tmp_path: Path, process: str
) -> None:
    await launch(platform, "measured:Measured", SPROCKET_PROCESS=process)
    job = await platform.run({"bytes": 300_000_000, "path": str(tmp_path / "out.txt")})
    told = job.info[INFO_KEY]
    assert set(told) == {"predict_seconds", "upload_seconds", "ram_peak_bytes"}
    assert told["predict_seconds"] > 0
    assert told["ram_peak_bytes"] > 300_000_000
    assert job.info["mine"] == 1
    short = await platform.run({"bytes": 1, "path": str(tmp_path / "short.txt")})
    assert short.info[INFO_KEY]["predict_seconds"] < told["predict_seconds"]
