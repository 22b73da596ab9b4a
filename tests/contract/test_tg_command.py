"""`tg beta jig` of the `together` package, unmodified: real commands in a project's folder."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.tg_command import Outside, Tg
from platform_process import PlatformProcess, wait_for


@pytest.fixture(scope="module")
def tg(platform: PlatformProcess, echo: str, outside: Outside, tmp_path_factory: pytest.TempPathFactory) -> Tg:
    return Tg(platform, tmp_path_factory.mktemp("tg") / "project", echo, outside)


def test_status(tg: Tg, platform: PlatformProcess, echo: str) -> None:
    [replica] = platform.deployment(echo)["replica_events"]

    shown = tg("status")

    assert (shown.status, shown.errors) == (0, "")
    assert f"Name    : {echo}" in shown.output
    assert "Status  : Ready" in shown.output
    assert "1/1 ready (min 1, max 1)" in shown.output
    assert f"{replica}: Running, ready" in shown.output


def test_status_as_json(tg: Tg, platform: PlatformProcess, echo: str) -> None:
    shown = tg("status", "--json")

    assert (shown.status, shown.json) == (0, platform.deployment(echo))


def test_list(tg: Tg, echo: str) -> None:
    shown = tg("list", "--json")

    assert shown.status == 0
    assert [each["status"] for each in shown.json["data"] if each["name"] == echo] == ["Ready"]


def test_logs(tg: Tg, platform: PlatformProcess, echo: str) -> None:
    platform.finished(echo, platform.submit(echo, {"say": "a line for tg"}))
    [replica] = platform.deployment(echo)["replica_events"]

    shown = tg("logs", "--replica-id", replica)

    assert shown.status == 0
    assert f"--- Logs for {replica} ---" in shown.output
    assert "a line for tg" in shown.output.splitlines()


def test_logs_of_a_revision_as_json(tg: Tg, platform: PlatformProcess, echo: str) -> None:
    platform.finished(echo, platform.submit(echo, {"say": "a line of this revision"}))

    shown = tg("logs", "--revision", platform.deployment(echo)["revision_id"], "--json")

    assert shown.status == 0
    assert "a line of this revision" in shown.json["logs"].splitlines()


def test_logs_follow(tg: Tg, platform: PlatformProcess, echo: str) -> None:
    process = tg.start("logs", "--follow", PYTHONUNBUFFERED="1")
    try:
        assert process.stdout is not None
        assert process.stdout.readline(), "what was there before comes first"
        platform.submit(echo, {"say": "a line while tg follows"})
        assert any("a line while tg follows" in line for line in process.stdout)
        stopped = tg.interrupt(process)
    finally:
        process.kill()
        process.communicate()

    assert "Stopped following logs" in stopped.output


def test_submit_and_watch(tg: Tg) -> None:
    shown = tg("submit", "--payload", '{"n": 1}', "--watch")

    assert shown.status == 0
    assert "Submitted job" in shown.output
    assert '"status": "done"' in shown.output
    assert '"n": 1' in shown.output.partition('"outputs"')[2]


def test_submit_and_watch_a_job_that_fails(tg: Tg) -> None:
    shown = tg("submit", "--payload", '{"fail": "no such picture"}', "--watch", "--json")

    assert shown.status == 1
    assert (shown.json["status"], shown.json["info"]["error"]) == ("failed", "ValueError: no such picture")


def test_submit_then_job_status(tg: Tg, platform: PlatformProcess, echo: str) -> None:
    submitted = tg("submit", "--prompt", "a cat", "--json")
    assert (submitted.status, submitted.json["status"]) == (0, "pending")
    request_id = submitted.json["requestId"]
    platform.finished(echo, request_id)

    shown = tg("job-status", "--request-id", request_id)

    assert shown.status == 0
    assert (shown.json["status"], shown.json["outputs"]) == ("done", {"echo": {"prompt": "a cat"}})


def test_a_job_that_does_not_exist(tg: Tg) -> None:
    shown = tg("job-status", "--request-id", "nothing", "--json")

    assert (shown.status, shown.json) == (1, {"ok": False, "error": "There is no job 'nothing' in this project."})


@pytest.mark.parametrize("spelling", ["queue-status", "queue_status"])
def test_queue_status(tg: Tg, spelling: str) -> None:
    shown = tg(spelling)

    assert (shown.status, shown.json) == (0, {"messages_running": 0, "messages_waiting": 0, "total_jobs": 0})


def test_endpoint(tg: Tg, echo: str) -> None:
    # The command prints a fixed host; all that is ours to check is that whoami lets it come that far.
    shown = tg("endpoint")

    assert shown.status == 0
    assert shown.output.strip().endswith(f"/v1/deployment-request/{echo}")


def test_an_unknown_deployment(platform: PlatformProcess, outside: Outside, project: Path) -> None:
    nowhere = Tg(platform, project, "nowhere", outside)

    shown = nowhere("status")
    assert (shown.status, shown.output.strip()) == (
        1,
        "Jig failed: There is no deployment 'nowhere' in this project.",
    )
    failed = nowhere("submit", "--payload", "{}", "--json")
    assert (failed.status, failed.json["error"]) == (1, "There is no deployment 'nowhere' in this project.")


def test_a_wrong_key_is_refused_by_whoami_before_the_command_begins(tg: Tg, platform: PlatformProcess) -> None:
    key = "msk_not-a-key-of-this-platform"

    shown = tg("destroy", TOGETHER_API_KEY=key)

    assert shown.status == 1
    assert "AuthenticationError" in shown.errors
    assert key not in shown.output + shown.errors


def test_deploys_rolls_out_and_destroys(
    platform: PlatformProcess, outside: Outside, project: Path, api: httpx.Client, image: str
) -> None:
    name = "contract-tg"
    first = Tg(platform, project, name, outside)

    deployed = first("deploy", "--image", image)
    assert deployed.status == 0, deployed.output
    assert f"Deployed: {name}" in deployed.output
    assert "Deployment successful!" in deployed.output
    before = platform.deployment(name)
    assert (before["status"], before["image"]) == ("Ready", image)

    # By the base URL that ends in `/v1`, which must reach the same place.
    second = Tg(platform, project, name, outside, '[deploy.environment_variables]\nCOLOR = "blue"\n')
    rolled = second("deploy", "--image", image, "--json", TOGETHER_BASE_URL=f"{platform.base_url}/v1")
    assert (rolled.status, rolled.json) == (0, {"ok": True, "action": "deploy", "name": name, "tag": "latest"})
    after = platform.deployment(name)
    assert after["revision_number"] == before["revision_number"] + 1
    assert after["status"] == "Ready", "the command tracks the rollout to its end"
    job = platform.finished(name, platform.submit(name, {"variable": "COLOR"}))
    assert job["outputs"] == {"value": "blue"}

    unchanged = second("deploy", "--image", image, TOGETHER_BASE_URL=f"{platform.base_url}/v1")
    assert unchanged.status == 0
    assert "Deployment in-progress" not in unchanged.output, "nothing to track: the answer is Ready"

    destroyed = second("destroy", "--json")
    assert (destroyed.status, destroyed.json["action"]) == (0, "destroy")
    assert api.get(f"/v1/deployments/{name}").status_code == 404
    assert second("destroy").status == 1


def test_a_deploy_that_cannot_be_says_why(
    platform: PlatformProcess, outside: Outside, project: Path, api: httpx.Client, image: str
) -> None:
    tg = Tg(platform, project, "contract-gpu", outside)
    (project / "jig.toml").write_text('name = "contract-gpu"\n')  # its default is a GPU

    shown = tg("deploy", "--image", image)

    assert shown.status == 1
    assert "this machine has no GPU" in shown.output
    assert "set gpu_type to 'none' and gpu_count to 0" in shown.output
    wait_for(lambda: api.get("/v1/deployments/contract-gpu").status_code == 404, "nothing is left")


def test_a_deploy_that_crashes_shows_its_logs(
    platform: PlatformProcess, outside: Outside, project: Path, api: httpx.Client, image: str
) -> None:
    name = "contract-crash"
    tg = Tg(platform, project, name, outside, 'command = ["python", "-c", "raise SystemExit(\'no weights\')"]\n')

    shown: Any = tg("deploy", "--image", image)

    assert shown.status == 1
    assert "Container is crash looping" in shown.output
    assert "no weights" in shown.output
    assert api.delete(f"/v1/deployments/{name}").status_code == 200
