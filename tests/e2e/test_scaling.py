"""Replicas come when there is something to do and go when there is not, on a real platform with real workers."""

from pathlib import Path

from platform_process import PlatformProcess, wait_for, write_worker

WORKER = """
import sprocket

class Worker(sprocket.Sprocket):
    def predict(self, args):
        return {"text": "done"}
"""
TABLES = """
[deploy]
min_replicas = 0
max_replicas = 2
autoscaling = {metric = "QueueBacklogPerWorker", target = 1, idle_seconds = 1, stabilization_seconds = 1}
"""


def test_from_zero_for_a_job_and_back_to_zero(platform: PlatformProcess, tmp_path: Path) -> None:
    folder = write_worker(tmp_path / "sleeper", "sleeper", WORKER, tables=TABLES)
    deployed = platform.jig("deploy", cwd=folder)
    assert "a job or a request starts one" in deployed.stdout + deployed.stderr
    assert platform.deployment("sleeper")["status"] == "ScaledToZero"

    job = platform.finished("sleeper", platform.submit("sleeper", {}))
    assert job["outputs"] == {"text": "done"}
    wait_for(lambda: platform.deployment("sleeper")["status"] == "ScaledToZero", "it sleeps again", 60)

    why = platform.jig("scale", "why", cwd=folder).stdout
    assert why.startswith("0 replicas (between 0 and 2)")
    assert "1 waiting and 0 running jobs" in why
    assert "0 -> 1" in why
    assert "1 -> 0" in why

    scaled = platform.jig("scale", "--min", "1", "--max", "1", cwd=folder).stdout
    assert "Min" in scaled
    wait_for(lambda: platform.deployment("sleeper")["status"] == "Ready", "one runs", 60)
    assert platform.deployment("sleeper")["revision_number"] == 1
    platform.jig("destroy", "--yes", cwd=folder)
