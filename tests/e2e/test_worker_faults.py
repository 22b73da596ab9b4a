"""Workers that misbehave: each fault is named to the user, and loses nothing of the others."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from platform_process import PlatformProcess, wait_for, write_worker

HEADER = "import os, time\nimport sprocket\n\nclass Worker(sprocket.Sprocket):\n"


def body(setup: str = "pass", predict: str = "return {}", *, process: bool = False) -> str:
    methods = f"    def setup(self):\n        {setup}\n\n    def predict(self, args):\n        {predict}\n"
    return f"{HEADER}    process = {process}\n\n{methods}"


@pytest.mark.parametrize(
    ("name", "predict", "error"),
    [
        ("raises", 'raise ValueError("no such voice")', "ValueError: no such voice"),
        ("no-dict", "return [1]", "list"),
        ("none-at-all", "return None", "None"),
        ("not-json", 'return {"when": time.gmtime, "x": object()}', "JSON"),
        ("not-a-number", 'return {"x": float("nan")}', "NaN"),
    ],
)
def test_a_job_that_the_model_fails_says_why_and_is_not_retried(
    platform: PlatformProcess, tmp_path: Path, name: str, predict: str, error: str
) -> None:
    folder = write_worker(tmp_path / name, name, body(predict=f"if args.get('ok'): return {{}}\n        {predict}"))
    platform.deploy(folder)
    failed = platform.finished(name, platform.submit(name, {}))
    assert (failed["status"], failed["retries"]) == ("failed", 0)
    assert error in failed["error"]
    assert failed["info"]["error"] == failed["error"]
    assert platform.finished(name, platform.submit(name, {"ok": True}))["status"] == "done"  # the worker lives on
    platform.jig("destroy", "--yes", cwd=folder)


def test_a_worker_that_exits_in_every_job_gives_it_up_after_three_retries(
    platform: PlatformProcess, tmp_path: Path
) -> None:
    folder = write_worker(tmp_path / "exits", "exits", body(predict="os._exit(7)"))
    platform.deploy(folder)
    job_id = platform.submit("exits", {})
    job = platform.finished("exits", job_id, 60)
    assert (job["status"], job["retries"], job["attempt"]) == ("failed", 3, 4)
    assert "lost in attempt 4" in job["error"]
    events = platform.deployment("exits")["replica_events"]
    assert any("7" in (event["replica_status_message"] or "") for event in events.values())
    platform.jig("destroy", "--yes", cwd=folder)


def test_a_result_that_is_too_large_fails_the_job_and_says_what_to_do(
    platform: PlatformProcess, tmp_path: Path
) -> None:
    folder = write_worker(tmp_path / "huge", "huge", body(predict='return {"x": "x" * args["size"]}', process=True))
    platform.deploy(folder)
    for size, error in ((20_000_000, "Give large outputs as files"), (100_000_000, "return large values as files")):
        job = platform.finished("huge", platform.submit("huge", {"size": size}))
        assert (job["status"], job["retries"], job["attempt"]) == ("failed", 0, 1)
        assert error in job["error"]
    assert platform.finished("huge", platform.submit("huge", {"size": 1_000_000}))["status"] == "done"
    platform.jig("destroy", "--yes", cwd=folder)


def test_a_crash_of_the_models_process_is_retried_three_times_and_named(
    platform: PlatformProcess, tmp_path: Path
) -> None:
    predict = "import ctypes; ctypes.string_at(0)"
    folder = write_worker(tmp_path / "segfaults", "segfaults", body(predict=predict, process=True))
    platform.deploy(folder)
    job = platform.finished("segfaults", platform.submit("segfaults", {}), 60)
    assert (job["status"], job["retries"]) == ("failed", 3)
    logs = platform.jig("logs", cwd=folder).stdout
    assert "the model's process was killed by SIGSEGV" in logs
    platform.jig("destroy", "--yes", cwd=folder)


def test_a_job_that_makes_no_progress_shows_for_how_long(platform: PlatformProcess, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    predict = f'while not os.path.exists("{gate}"): time.sleep(0.01)\n        return {{}}'
    folder = write_worker(tmp_path / "stuck", "stuck", body(predict=predict))
    platform.deploy(folder)
    job_id = platform.submit("stuck", {})
    wait_for(lambda: platform.job("stuck", job_id)["progress_age_seconds"], "the worker has told of its progress")
    age_seconds = platform.job("stuck", job_id)["progress_age_seconds"]
    wait_for(lambda: platform.job("stuck", job_id)["progress_age_seconds"] > age_seconds + 1, "it gets older")
    shown = platform.jig("jobs", "show", job_id, cwd=folder).stdout
    assert [line.split()[0::3] for line in shown.splitlines() if "Progress" in line] == [["Progress", "ago"]]
    gate.touch()
    assert platform.finished("stuck", job_id)["progress_age_seconds"] is None
    platform.jig("destroy", "--yes", cwd=folder)


def test_a_setup_that_raises_fails_the_deploy_with_its_last_lines(platform: PlatformProcess, tmp_path: Path) -> None:
    folder = write_worker(tmp_path / "broken", "broken", body(setup='raise RuntimeError("weights are missing")'))
    deployed = platform.jig("deploy", cwd=folder, check=False)
    assert deployed.returncode == 1
    assert "RuntimeError: weights are missing" in deployed.stderr
    assert "exited with code 1" in deployed.stderr
    deployment = platform.deployment("broken")
    assert deployment["status"] == "Failed"
    assert "CrashLoopBackOff" in deployment["status_message"]
    platform.jig("destroy", "--yes", cwd=folder)


def test_a_new_revision_that_crashes_leaves_the_old_one_serving(platform: PlatformProcess, tmp_path: Path) -> None:
    folder = write_worker(tmp_path / "serving", "serving", body(predict='return {"version": 1}'))
    platform.deploy(folder)
    write_worker(folder, "serving", body(setup="raise SystemExit(3)"))
    assert platform.jig("deploy", cwd=folder, check=False).returncode == 1
    job = platform.finished("serving", platform.submit("serving", {}))
    assert job["outputs"] == {"version": 1}
    write_worker(folder, "serving", body(predict='return {"version": 2}'))
    platform.deploy(folder)
    job = platform.finished("serving", platform.submit("serving", {}))
    assert job["outputs"] == {"version": 2}
    platform.jig("destroy", "--yes", cwd=folder)


def test_a_worker_that_never_gets_healthy_is_told_of(platform: PlatformProcess, tmp_path: Path) -> None:
    folder = write_worker(tmp_path / "never", "never", body(setup="time.sleep(600)"))
    deployed = platform.jig("deploy", "--timeout", "2", cwd=folder, check=False)
    assert deployed.returncode == 1
    assert "not ready" in deployed.stderr or "ready" in deployed.stderr
    assert platform.deployment("never")["status"] == "Updating"  # a slow start is no failure
    job_id = platform.submit("never", {})
    assert platform.job("never", job_id)["status"] == "pending"
    platform.jig("destroy", "--yes", cwd=folder)
    assert platform.job("never", job_id)["status"] == "canceled"


def test_a_module_that_does_not_exist_is_named(platform: PlatformProcess, tmp_path: Path) -> None:
    folder = write_worker(tmp_path / "typo", "typo", "import sprokcet\n\nclass Worker(sprokcet.Sprocket):\n    pass\n")
    deployed = platform.jig("deploy", cwd=folder, check=False)
    assert deployed.returncode == 1
    assert "sprokcet" in deployed.stderr
    platform.jig("destroy", "--yes", cwd=folder)


def test_a_gpu_where_there_is_none_is_refused_with_the_way_out(platform: PlatformProcess, tmp_path: Path) -> None:
    with platform.client() as client:
        if client.get("/v1/runtime").json()["gpus"]:
            pytest.fail("this test is about machines without a GPU; run it on one")
    folder = write_worker(tmp_path / "gpu", "needs-gpu", body(), tables='gpu = "H100"\n')
    deployed = platform.jig("deploy", cwd=folder, check=False)
    assert deployed.returncode == 1
    assert "no GPU" in deployed.stderr
    assert 'gpu = "none"' in deployed.stderr
    assert "needs-gpu" not in platform.jig("list", cwd=folder).stdout


def test_replicas_drain_when_a_deployment_is_destroyed(platform: PlatformProcess, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    predict = f'open("{gate}.started", "w").close()\n        while not os.path.exists("{gate}"): time.sleep(0.01)'
    folder = write_worker(tmp_path / "drains", "drains", body(predict=f"{predict}\n        return {{}}"))
    platform.deploy(folder)
    job_id = platform.submit("drains", {})
    wait_for(Path(f"{gate}.started").exists, "the job is in hand")
    deployment_id = platform.deployment("drains")["id"]
    with ThreadPoolExecutor() as pool, platform.client() as client:
        destroying = pool.submit(platform.jig, "destroy", "--yes", cwd=folder)
        wait_for(lambda: client.get("/v1/deployments/drains").status_code == 404, "it is deleted")
        assert platform.job("drains", job_id)["status"] == "running"
        going = client.get(f"/v1/deployments/{deployment_id}", params={"deleted": "true"}).json()
        assert (going["status"], going["status_message"]) == ("Scaling", "1 replica is draining.")
        assert client.get(f"/v1/deployments/{deployment_id}").status_code == 404
        assert not destroying.done(), "it waits for the replica"
        gate.touch()
        destroyed = destroying.result()
        gone = client.get(f"/v1/deployments/{deployment_id}", params={"deleted": "true"})
    assert (gone.status_code, gone.json()["error"]["type"]) == (404, "not_found_error")
    assert destroyed.stdout == "drains is gone.\n"
    assert "1 replica is draining.\n" in destroyed.stderr
    assert platform.finished("drains", job_id)["status"] == "done"
