"""`jig deploy` as a user runs it, against a platform over a socket."""

import signal
import sys
from pathlib import Path

import pytest
from fake_platform import CRASHED, KEY, READY, RUNNING, WAITING, FakePlatform
from jig_process import Jig, finish, wait_until

from jig.answers import error_body
from jig.commands.deploy import change_between
from jig.http import httpx

NOWHERE = "http://127.0.0.1:1"  # nothing may listen there


def is_followed(platform: FakePlatform) -> bool:
    """True once jig has sent the deployment and looks how it comes up: its first look comes before it sends."""
    return len(platform.sent("GET", "/v1/deployments/hello")) > 1


def test_a_project_becomes_a_bundle_and_a_deployment(jig: Jig, platform: FakePlatform, project: Path) -> None:
    finished = jig("deploy")
    assert finished.code == 0, finished.err
    image = platform.deployments["hello"]["image"]
    assert image.startswith(f"{platform.url.removeprefix('http://')}/acme/hello@sha256:")
    config, files = platform.bundle(image)
    assert config == {
        "version": 1,
        "command": ["python", "-m", "sprocket", "worker:Hello", "--queue"],
        "python_version": "3.11",
        "requirements": "",
        "environment": {},
    }
    assert set(files) == {"worker.py"}
    assert "\n  jig submit --payload '{...}' --watch\n" in finished.out
    for step in ("requirements", "bundle", "push", "deployment", "ready"):
        assert step in finished.err
    assert "Making ready." in finished.err


def test_a_second_deploy_sends_nothing_and_patches(jig: Jig, platform: FakePlatform, project: Path) -> None:
    first = jig("deploy", "--json").json
    uploads = len(platform.sent("PUT", "/v2/acme/hello/blobs"))
    finished = jig("deploy")
    assert "nothing new to send" in finished.err
    assert len(platform.sent("PUT", "/v2/acme/hello/blobs")) == uploads == 2
    assert len(platform.sent("PATCH", "/v1/deployments/hello")) == 1
    assert platform.deployments["hello"]["image"] == first["image"]


def test_a_changed_file_changes_the_image(jig: Jig, platform: FakePlatform, project: Path) -> None:
    first = jig("deploy", "--json").json["image"]
    (project / "worker.py").write_text("class Hello: pass\n")
    assert jig("deploy", "--json").json["image"] != first


def test_the_number_of_replicas_does_not_change_the_image(jig: Jig, platform: FakePlatform, project: Path) -> None:
    first = jig("deploy", "--json").json["image"]
    (project / "jig.toml").write_text('name = "hello"\nworker = "worker:Hello"\n[deploy]\nmax_replicas = 2\n')
    assert jig("deploy", "--json").json["image"] == first
    assert platform.deployments["hello"]["max_replicas"] == 2


def test_a_deploy_that_only_scales_says_so(jig: Jig, platform: FakePlatform, project: Path) -> None:
    for _ in range(2):  # an update names more fields than a creation does
        assert jig("deploy").code == 0
    (project / "jig.toml").write_text('name = "hello"\nworker = "worker:Hello"\n[deploy]\nmax_replicas = 2\n')
    finished = jig("deploy")
    assert (finished.code, "scaling updated" in finished.err) == (0, True), finished.err


@pytest.mark.parametrize(
    ("after", "change"),
    [
        ({}, "unchanged"),
        ({"max_replicas": 2}, "scaling updated"),
        ({"autoscaling": {"metric": "QueueBacklogPerWorker"}}, "scaling updated"),
        ({"max_replicas": 2, "revision": "2"}, "updated"),
    ],
)
def test_what_a_deploy_changed_is_said(after: dict[str, object], change: str) -> None:
    def told(values: dict[str, object]) -> dict[str, object]:
        variable = {"name": "TOGETHER_DEPLOYMENT_REVISION_ID", "value": values["revision"]}
        return {**values, "environment_variables": [variable]}

    before: dict[str, object] = {"revision": "1", "min_replicas": 1, "max_replicas": 1, "autoscaling": {}}
    assert change_between(told(before), told({**before, **after})) == change


def test_two_lines_of_config_are_enough_for_an_image(jig: Jig, platform: FakePlatform, folder: Path) -> None:
    (folder / "jig.toml").write_text('name = "detector"\ngpu = "none"\n')
    finished = jig("deploy", "--image", "detector:1")
    assert finished.code == 0, finished.err
    assert (platform.deployments["detector"]["gpu_type"], platform.deployments["detector"]["gpu_count"]) == ("none", 0)


def test_without_a_replica_it_says_what_wakes_one(jig: Jig, platform: FakePlatform, project: Path) -> None:
    (project / "jig.toml").write_text('name = "hello"\nworker = "worker:Hello"\n[deploy]\nmin_replicas = 0\n')
    platform.rollout = [WAITING]
    finished = jig("deploy")
    assert finished.code == 0, finished.err
    assert "none runs: a job or a request starts one" in finished.err
    assert "A job wakes it" in finished.out
    assert "jig submit" in finished.out


def test_json_is_one_document_and_stderr_is_silent(jig: Jig, platform: FakePlatform, project: Path) -> None:
    finished = jig("--json", "deploy")
    assert finished.err == ""
    assert finished.json["deployment"]["status"] == "Ready"
    assert set(finished.json["seconds"]) == {"requirements", "bundle", "push", "deployment", "ready"}


def test_an_image_skips_the_bundle(jig: Jig, platform: FakePlatform, project: Path) -> None:
    finished = jig("deploy", "--image", "example.com/model:1", "--json")
    assert finished.code == 0, finished.out
    assert platform.deployments["hello"]["image"] == "example.com/model:1"
    assert not platform.blobs
    assert platform.sent("POST", "/v1/deployments/prewarm")[0].json == {"images": ["example.com/model:1"]}


def test_detach_does_not_wait(jig: Jig, platform: FakePlatform, project: Path) -> None:
    platform.rollout = [WAITING]
    finished = jig("deploy", "--detach")
    assert finished.code == 0
    assert "Updating" in finished.out


def test_a_crash_loop_shows_the_last_log_lines(jig: Jig, platform: FakePlatform, project: Path) -> None:
    platform.rollout = [WAITING, RUNNING, CRASHED]
    platform.log_lines = ["loading", "KeyError: 'weights'"]
    finished = jig("deploy")
    assert finished.code == 1
    assert "KeyError: 'weights'" in finished.err
    assert "Replica r-1 crashes again and again: It exited with code 1." in finished.err


def test_what_each_start_prints_anew_is_shown_once(jig: Jig, platform: FakePlatform, project: Path) -> None:
    platform.rollout = [CRASHED]
    lines = ["ERROR setup() failed:", '  File "worker.py", line 5', "KeyError: 'weights'"]
    platform.log_lines = [f"12:00:0{at} {line}" for at in range(4) for line in lines][1:]
    said = jig("deploy").err
    assert said.count("KeyError: 'weights'") == 1
    assert "  12:00:03 ERROR setup() failed:" in said


def test_a_deploy_says_to_which_revision_the_platform_went_back(
    jig: Jig, platform: FakePlatform, project: Path
) -> None:
    platform.deploy("hello")
    platform.rollout = [CRASHED]
    failure = {"reason": "CrashLoopBackOff", "message": "It ended.", "rolled_back": True, "revision_number": 15}
    platform.told = {"rollback_on_failure": True}
    with jig.start("deploy", "--rollback-on-failure") as deploying:
        wait_until(deploying, lambda: platform.looks.get("hello", 0) > 2, "it waits for the way back")
        platform.told |= {"last_failure": {**failure, "revision_id": "rev-2"}}
        told_at = platform.looks["hello"]
        wait_until(deploying, lambda: platform.looks["hello"] > told_at + 1, "it waits until that is seen everywhere")
        back = [{"name": "TOGETHER_DEPLOYMENT_REVISION_ID", "value": "01a2091b-7d675543"}]
        platform.told |= {"revision_number": 14, "environment_variables": back}
        finished = finish(deploying)
    assert "The platform went back to revision 14 (7d675543)." in finished.err


@pytest.mark.parametrize(
    ("config", "code", "said"),
    [
        ('worker = "worker:Hello"', "def f(:\n", "worker.py:1: "),
        ('worker = "worker:Hullo"', "class Hello: ...\n", 'jig.toml: worker = "worker:Hullo" names Hullo, which is'),
        ('worker = "wroker:Hello"', "class Hello: ...\n", "names the module wroker, which is not in "),
        ('gpu = "none"', "", 'Write worker = "module:Class" in jig.toml, or cmd under image.'),
    ],
    ids=["syntax", "class", "module", "no-worker"],
)
def test_what_cannot_start_is_found_before_anything_is_packed(
    jig: Jig, platform: FakePlatform, project: Path, config: str, code: str, said: str
) -> None:
    version = "{}.{}".format(*sys.version_info)
    (project / "jig.toml").write_text(f'name = "hello"\n{config}\n[image]\npython_version = "{version}"\n')
    (project / "worker.py").write_text(code)
    finished = jig("deploy")
    assert finished.code == 1
    assert said in finished.err
    assert "requirements" not in finished.err
    assert not platform.deployments


@pytest.mark.parametrize(
    "code",
    ["from models import *\n", "Hello = make()\n", "from models import Hello\n", "def __getattr__(name): ...\n"],
    ids=["star", "assignment", "import", "getattr"],
)
def test_a_class_that_may_be_there_is_left_to_the_replica(
    jig: Jig, platform: FakePlatform, project: Path, code: str
) -> None:
    (project / "worker.py").write_text(code)
    assert jig("deploy").code == 0


def test_a_failed_deploy_shows_no_log_of_the_revision_that_serves(
    jig: Jig, platform: FakePlatform, project: Path
) -> None:
    platform.deploy("hello")
    platform.told = {"status": "Failed", "replica_events": {"r-1": {**READY, "revision_id": "rev-1"}}}
    finished = jig("deploy")
    assert finished.code == 1
    assert "log lines" not in finished.err


def test_a_viewer_is_refused_before_anything_is_made(jig: Jig, platform: FakePlatform, project: Path) -> None:
    platform.scope = "viewer"
    finished = jig("deploy")
    assert finished.code == 1
    assert "This API key may not do that: it needs the scope admin or developer, and has viewer." in finished.err
    assert "The key is that of TOGETHER_API_KEY: set it to another" in finished.err
    assert "bundle" not in finished.err
    assert not platform.deployments


def test_the_words_of_a_registry_are_found() -> None:
    refusal = httpx.Response(403, json={"errors": [{"code": "DENIED", "message": "You may not.", "detail": None}]})
    assert error_body(refusal)["message"] == "You may not."
    assert error_body(httpx.Response(403, json={"errors": ["odd"]})).get("message") is None


def test_each_state_is_said_once(jig: Jig, platform: FakePlatform, project: Path) -> None:
    ended = {"replica_status": "Waiting", "replica_status_message": "It exited with code 1."}
    again = {**CRASHED, "replica_status_message": "It ended 2 times, the next start is in 4 s. It exited with code 1."}
    first, second = ({**RUNNING, "replica_status_message": f"Nothing listens on port {port}."} for port in (1, 2))
    platform.rollout = [first, ended, second, {**again, "replica_status_reason": "Error"}, again]
    finished = jig("deploy")
    said = [line for line in finished.err.splitlines() if line.startswith("  replica ")]
    assert said == [
        "  replica r-1: starting: Nothing listens on port 1.",
        "  replica r-1: waiting: It exited with code 1.",
    ]
    assert "jig: Replica r-1 crashes again and again: It ended 2 times" in finished.err


def test_a_failed_deploy_says_what_goes_on_serving(jig: Jig, platform: FakePlatform, project: Path) -> None:
    platform.deploy("hello")
    platform.told = {
        "replica_events": {
            "r-1": {**READY, "revision_id": "01a2091b-4b24-rev-one1", "revision_number": 7},
            "r-2": {**CRASHED, "revision_id": "rev-2"},
        }
    }
    finished = jig("deploy")
    assert finished.code == 1
    assert "The revision before, 7 (rev-one1), goes on serving.\n" in finished.err


def test_a_replica_that_never_gets_ready_is_given_up(jig: Jig, platform: FakePlatform, project: Path) -> None:
    platform.rollout = [RUNNING]
    finished = jig("deploy", "--timeout", "0.3", "--json")
    assert finished.code == 1
    assert "not ready" in finished.json["error"]["message"]
    assert finished.json["error"]["type"] == "deploy_error"


def test_a_runtime_without_bundles_says_how_to_go_on(jig: Jig, platform: FakePlatform, project: Path) -> None:
    platform.runtime = {"runtime": "kubernetes", "accepts": ["image"], "gpus": 0}
    finished = jig("deploy", PATH="")
    assert finished.code == 1
    assert "--image" in finished.err
    assert not platform.deployments


def test_a_gpu_on_a_machine_without_one_is_refused_before_anything_is_sent(
    jig: Jig, platform: FakePlatform, project: Path
) -> None:
    (project / "jig.toml").write_text('name = "hello"\nworker = "worker:Hello"\ngpu = "H100"\n')
    finished = jig("deploy")
    assert finished.code == 1
    assert "this platform has no GPU" in finished.err
    assert 'gpu = "none"' in finished.err
    assert not platform.blobs


def test_an_upload_that_breaks_is_sent_again(jig: Jig, platform: FakePlatform, project: Path) -> None:
    platform.failures = [("/blobs/uploads/", 503), ("/blobs/uploads/1", 500)]
    finished = jig("deploy", "--detach")
    assert finished.code == 0, finished.err
    assert platform.failures == []
    assert len(platform.sent("PUT", "/v2/acme/hello/blobs")) == 3
    assert len(platform.blobs) == 2


def test_an_upload_that_is_refused_is_not_sent_again(jig: Jig, platform: FakePlatform, project: Path) -> None:
    platform.failures = [("/blobs/uploads/1", 413)]
    finished = jig("deploy", "--detach")
    assert finished.code == 1
    assert "The platform is unwell." in finished.err
    assert len(platform.sent("PUT", "/v2/acme/hello/blobs")) == 1
    assert not platform.deployments


def test_ctrl_c_leaves_the_rollout_alone(jig: Jig, platform: FakePlatform, project: Path) -> None:
    platform.rollout = [WAITING]
    with jig.start("deploy") as process:
        wait_until(process, lambda: is_followed(platform), "the rollout is followed")
        process.send_signal(signal.SIGINT)
        finished = finish(process)
    assert finished.code == 130
    assert "still being deployed" in finished.err
    assert not platform.sent("DELETE", "/")


@pytest.mark.parametrize(
    ("failures", "environment", "said"),
    [
        ([], {}, "Replica r-1 crashes again and again: It exited with code 1."),
        ([("/v1/runtime", 401)], {}, "Log in with `jig auth login`"),
        ([("/blobs/uploads/1", 403)], {}, "The platform is unwell."),
        ([], {"TOGETHER_BASE_URL": NOWHERE}, f"No platform answers at {NOWHERE}."),
    ],
    ids=["crash", "key refused", "upload refused", "nobody there"],
)
@pytest.mark.parametrize("words", [["deploy"], ["deploy", "--json"]], ids=" ".join)
def test_the_key_is_nowhere_in_the_output_of_a_failure(
    jig: Jig,
    platform: FakePlatform,
    project: Path,
    words: list[str],
    failures: list[tuple[str, int]],
    environment: dict[str, str],
    said: str,
) -> None:
    platform.rollout = [CRASHED]
    platform.failures = list(failures)
    finished = jig(*words, **environment)
    assert finished.code == 1
    assert said in finished.out + finished.err
    assert KEY not in finished.out + finished.err
    assert all(request.headers["Authorization"] == f"Bearer {KEY}" for request in platform.requests)


def test_an_unknown_key_of_the_config_is_an_error_with_the_nearest_one(
    jig: Jig, platform: FakePlatform, project: Path
) -> None:
    (project / "jig.toml").write_text('name = "hello"\n[deploy]\nmin_replcas = 2\n')
    finished = jig("deploy")
    assert finished.code == 1
    assert "jig.toml: there is no key deploy.min_replcas." in finished.err
    assert "Did you mean `min_replicas`?" in finished.err


def test_environment_variables_reach_the_platform(jig: Jig, platform: FakePlatform, project: Path) -> None:
    (project / "jig.toml").write_text(
        'name = "hello"\nworker = "worker:Hello"\n'
        '[image.environment]\nBAKED = "in"\n'
        '[deploy.environment_variables]\nPLAIN = "value"\nHIDDEN = {secret = "hello-HIDDEN"}\n'
    )
    assert jig("deploy", "--detach").code == 0
    deployment = platform.deployments["hello"]
    assert deployment["environment_variables"] == [
        {"name": "PLAIN", "value": "value"},
        {"name": "HIDDEN", "value_from_secret": "hello-HIDDEN"},
    ]
    assert platform.bundle(deployment["image"])[0]["environment"] == {"BAKED": "in"}


def test_a_rollout_that_another_deploy_replaced_is_not_waited_for(
    jig: Jig, platform: FakePlatform, project: Path
) -> None:
    platform.rollout = [WAITING]
    with jig.start("deploy", "--json") as process:
        wait_until(process, lambda: is_followed(platform), "the rollout is followed")
        platform.deployments["hello"]["revision"] = "rev-9"
        finished = finish(process)
    assert finished.code == 1
    assert "Another deploy" in finished.json["error"]["message"]


def test_ready_at_once_needs_no_waiting(jig: Jig, platform: FakePlatform, project: Path) -> None:
    platform.rollout = [READY]
    assert jig("deploy", "--json").json["deployment"]["ready_replicas"] == 1
