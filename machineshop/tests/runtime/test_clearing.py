"""The end of a server while its engine is away, and what ended replicas have left is still to be removed."""

from pathlib import Path

import pytest

from machineshop.runtime.docker import clearing
from machineshop.runtime.docker.api import EngineApi
from machineshop.runtime.docker.clearing import Clearing
from machineshop.runtime.docker.networks import Networks


@pytest.mark.parametrize("left", [0, 2])
async def test_a_stop_says_what_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, left: int
) -> None:
    monkeypatch.setattr(clearing, "CLOSE_SECONDS", 0.2)
    monkeypatch.setattr(clearing, "SILENT_SECONDS", 0.1)
    api = EngineApi(f"unix://{tmp_path}/docker.sock")
    removals = Clearing(api, Networks(api, "mine"))
    for number in range(left):
        removals.clear(f"machineshop-{number}", None)
    await removals.close()
    await api.close()
    said = [record.getMessage() for record in caplog.records if "the stop waits" in record.getMessage()]
    assert len(said) == (1 if left else 0)
    assert all(f"docker.sock, which has {left} containers of ended replicas to remove" in line for line in said)
