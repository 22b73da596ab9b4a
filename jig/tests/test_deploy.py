"""`jig deploy` as a user runs it, against a platform over a socket."""

import json
import signal
import time

from .fake_platform import CRASHED, KEY, READY, RUNNING, WAITING


def test_a_project_becomes_a_bundle_and_a_deployment(jig, platform, project):
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
    assert set(files) == {"worker.py", "jig.toml"}
    assert "jig submit" in finished.out
    for step in ("requirements", "bundle", "push", "deployment", "ready"):
        assert step in finished.err
    assert "Making ready." in finished.err


def test_a_second_deploy_sends_nothing_and_patches(jig, platform, project):
    first = jig("deploy", "--json").json
    uploads = len(platform.sent("PUT", "/v2/acme/hello/blobs"))
    finished = jig("deploy")
    assert "nothing new to send" in finished.err
    assert len(platform.sent("PUT", "/v2/acme/hello/blobs")) == uploads == 2
    assert len(platform.sent("PATCH", "/v1/deployments/hello")) == 1
    assert platform.deployments["hello"]["image"] == first["image"]


def test_a_changed_file_changes_the_image(jig, platform, project):
    first = jig("deploy", "--json").json["image"]
    (project / "worker.py").write_text("class Hello: pass\n")
    assert jig("deploy", "--json").json["image"] != first


def test_json_is_one_document_and_stderr_is_silent(jig, platform, project):
    finished = jig("--json", "deploy")
    assert finished.err == ""
    assert finished.json["deployment"]["status"] == "Ready"
    assert set(finished.json["seconds"]) == {"requirements", "bundle", "push", "deployment", "ready"}


def test_an_image_skips_the_bundle(jig, platform, project):
    finished = jig("deploy", "--image", "example.com/model:1", "--json")
    assert finished.code == 0, finished.out
    assert platform.deployments["hello"]["image"] == "example.com/model:1"
    assert not platform.blobs
    assert platform.sent("POST", "/v1/deployments/prewarm")[0].json == {"images": ["example.com/model:1"]}


def test_detach_does_not_wait(jig, platform, project):
    platform.rollout = [WAITING]
    finished = jig("deploy", "--detach")
    assert finished.code == 0
    assert "Updating" in finished.out


def test_a_crash_loop_shows_the_last_log_lines(jig, platform, project):
    platform.rollout = [WAITING, RUNNING, CRASHED]
    platform.log_lines = ["loading", "KeyError: 'weights'"]
    finished = jig("deploy")
    assert finished.code == 1
    assert "KeyError: 'weights'" in finished.err
    assert "Replica r-1 crashes again and again: It exited with code 1." in finished.err


def test_a_replica_that_never_gets_ready_is_given_up(jig, platform, project):
    platform.rollout = [RUNNING]
    finished = jig("deploy", "--timeout", "0.3", "--json")
    assert finished.code == 1
    assert "not ready" in finished.json["error"]["message"]
    assert finished.json["error"]["type"] == "deploy_error"


def test_a_runtime_without_bundles_says_how_to_go_on(jig, platform, project):
    platform.runtime = {"runtime": "kubernetes", "accepts": ["image"], "gpus": 0}
    finished = jig("deploy")
    assert finished.code == 1
    assert "--image" in finished.err
    assert not platform.deployments


def test_a_gpu_on_a_machine_without_one_is_refused_before_anything_is_sent(jig, platform, project):
    (project / "jig.toml").write_text('name = "hello"\nworker = "worker:Hello"\ngpu = "H100"\n')
    finished = jig("deploy")
    assert finished.code == 1
    assert "this platform has no GPU" in finished.err
    assert 'gpu = "none"' in finished.err
    assert not platform.blobs


def test_an_upload_that_breaks_is_sent_again(jig, platform, project):
    platform.failures = [("/blobs/uploads/", 503), ("/blobs/uploads/1", 500)]
    finished = jig("deploy", "--detach")
    assert finished.code == 0, finished.err
    assert len(platform.blobs) == 2


def test_an_upload_that_is_refused_is_not_sent_again(jig, platform, project):
    platform.failures = [("/blobs/uploads/1", 413)]
    finished = jig("deploy", "--detach")
    assert finished.code == 1
    assert "The platform is unwell." in finished.err
    assert not platform.deployments


def test_ctrl_c_leaves_the_rollout_alone(jig, platform, project):
    platform.rollout = [WAITING]
    process = jig.start("deploy")
    deadline = time.monotonic() + 20
    while not platform.sent("GET", "/v1/deployments/hello")[1:] and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "still being deployed" in err
    assert "Traceback" not in err
    assert not platform.sent("DELETE", "/")


def test_the_key_is_nowhere_in_the_output(jig, platform, project):
    platform.rollout = [CRASHED]
    finished = jig("deploy", "--json")
    assert KEY not in finished.out + finished.err


def test_an_unknown_key_of_the_config_is_an_error_with_the_nearest_one(jig, platform, project):
    (project / "jig.toml").write_text('name = "hello"\n[deploy]\nmin_replcas = 2\n')
    finished = jig("deploy")
    assert finished.code == 1
    assert "jig.toml: there is no key deploy.min_replcas." in finished.err
    assert "Did you mean `min_replicas`?" in finished.err


def test_environment_variables_reach_the_platform(jig, platform, project):
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


def test_a_rollout_that_another_deploy_replaced_is_not_waited_for(jig, platform, project):
    platform.rollout = [WAITING]
    process = jig.start("deploy", "--json")
    deadline = time.monotonic() + 20
    while "hello" not in platform.deployments and time.monotonic() < deadline:
        time.sleep(0.02)
    platform.deployments["hello"]["revision"] = "rev-9"
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "Another deploy" in json.loads(out)["error"]["message"]


def test_ready_at_once_needs_no_waiting(jig, platform, project):
    platform.rollout = [READY]
    assert jig("deploy", "--json").json["deployment"]["ready_replicas"] == 1
