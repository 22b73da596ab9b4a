"""The server's own life: it starts, says what stands in its way, and stops as told."""

import json
import os
import re
import signal
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from platform_process import PlatformProcess, wait_for, write_worker

PLAIN = "import sprocket\n\nclass Worker(sprocket.Sprocket):\n    def predict(self, args):\n        return args\n"


def test_the_first_start_leaves_a_key_and_a_context_that_only_the_owner_reads(own_platform: PlatformProcess) -> None:
    key_file = own_platform.data_dir / "admin-key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert key_file.read_text().strip() == own_platform.api_key
    assert stat.S_IMODE((own_platform.folder / "contexts.json").stat().st_mode) == 0o600
    assert own_platform.jig("list", cwd=own_platform.folder).returncode == 0
    assert own_platform.api_key in own_platform.log.read_text()  # shown at the first start
    own_platform.signal(signal.SIGINT)
    own_platform.log.write_text("")
    own_platform.start()
    assert own_platform.api_key not in own_platform.log.read_text()  # and never again


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)], ids=["SIGINT", "SIGTERM"])
def test_a_signal_ends_a_start_that_waits_for_an_engine(tmp_path: Path, number: signal.Signals, status: int) -> None:
    platform = PlatformProcess(tmp_path, "--runtime", "auto")
    runtime = platform.data_dir / "runtime"
    runtime.mkdir(parents=True, mode=0o700)
    (runtime / "containers.id").write_text("0123456789abcdef")
    platform.environment["DOCKER_HOST"] = f"unix://{tmp_path}/docker.sock"
    platform.launch()
    try:
        wait_for(lambda: "the start waits for it" in platform.log.read_text(), "it waits for the engine")
        began = time.monotonic()
        assert platform.signal(number) == status
        assert time.monotonic() - began < 15  # of the 30 s that it would wait
    finally:
        platform.kill()
    assert "Stopped before it was ready." in platform.log.read_text()


def test_the_admin_key_can_be_given(own_platform: PlatformProcess) -> None:
    made = own_platform.api_key
    own_platform.signal(signal.SIGINT)
    own_platform.environment["MACHINESHOP_ADMIN_KEY"] = "one-that-the-owner-chose"
    own_platform.start()
    with own_platform.client() as client:
        assert client.get("/v3/whoami").json()["api_key"]["scope"] == "admin"
    assert own_platform.api_key == "one-that-the-owner-chose"
    with own_platform.client(key=made) as client:
        assert client.get("/v3/whoami").status_code == 401


def test_a_weak_admin_key_is_refused(tmp_path: Path) -> None:
    platform = PlatformProcess(tmp_path)
    platform.environment["MACHINESHOP_ADMIN_KEY"] = "weak"
    finished = platform.machineshop("serve", "--data-dir", platform.data_dir, "--port", "0")
    assert finished.returncode == 2
    assert finished.stderr.startswith("machineshop: An admin key must have 20 to 512")


def test_a_taken_port_is_said_to_be_so(own_platform: PlatformProcess, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        finished = own_platform.machineshop("serve", "--data-dir", tmp_path / "other", "--port", port)
    assert finished.returncode == 1
    assert f"127.0.0.1:{port}" in finished.stderr
    assert "Choose another address with --host and --port" in finished.stderr


def test_a_data_directory_has_one_server(own_platform: PlatformProcess) -> None:
    finished = own_platform.machineshop("serve", "--data-dir", own_platform.data_dir, "--port", "0")
    assert finished.returncode == 1
    assert f"process {own_platform.pid}" in finished.stderr


def test_a_data_directory_that_cannot_be_used_is_named(own_platform: PlatformProcess, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    finished = own_platform.machineshop("serve", "--data-dir", tmp_path / "file" / "data", "--port", "0")
    assert finished.returncode == 1
    assert str(tmp_path / "file" / "data") in finished.stderr
    assert "--data-dir" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_options_that_this_version_lacks_are_refused(own_platform: PlatformProcess) -> None:
    for options in (["--runtime", "kubernetes"], ["--runtime", "lambda"], ["--database-url", "mysql://x/y"]):
        finished = own_platform.machineshop("serve", *options)
        assert finished.returncode == 2
        assert options[0] in finished.stderr
        assert "Traceback" not in finished.stderr


def test_ctrl_c_ends_the_replicas_and_sigterm_leaves_them(own_platform: PlatformProcess, tmp_path: Path) -> None:
    own_platform.deploy(write_worker(tmp_path / "plain", "plain", PLAIN))
    (replica,) = own_platform.deployment("plain")["replica_events"].values()
    health = f"http://127.0.0.1:{replica['replica_port']}/health"
    assert own_platform.signal(signal.SIGTERM) == 0
    assert httpx.get(health).status_code == 200
    own_platform.start()
    assert own_platform.finished("plain", own_platform.submit("plain", {"n": 1}))["outputs"] == {"n": 1}
    assert own_platform.signal(signal.SIGINT) == 0
    try:
        httpx.get(health)
        raise AssertionError("the replica still answers")
    except httpx.ConnectError:
        pass
    own_platform.start()  # what was deployed comes back with the platform
    wait_for(lambda: own_platform.deployment("plain")["status"] == "Ready", "the deployment is ready again")


def test_keys_are_made_listed_and_revoked(own_platform: PlatformProcess) -> None:
    key = own_platform.create_key("team-b")
    with own_platform.client(key=key) as client:
        assert client.get("/v3/whoami").json()["project"]["slug"] == "team-b"
        listed = json.loads(
            own_platform.machineshop("keys", "list", "--json", "--data-dir", own_platform.data_dir).stdout
        )
        (record,) = [record for record in listed if record["prefix"] == key[:10]]
        assert key not in json.dumps(listed)
        revoked = own_platform.machineshop("keys", "revoke", record["id"], "--data-dir", own_platform.data_dir)
        assert revoked.returncode == 0
        wait_for(lambda: client.get("/v3/whoami").status_code == 401, "the key ends")
    again = own_platform.machineshop("keys", "revoke", record["id"], "--data-dir", own_platform.data_dir)
    assert again.returncode == 1
    assert "There is no valid key" in again.stderr
    assert "`machineshop keys list` shows" in again.stderr


def test_doctor_finds_this_machine_sound(own_platform: PlatformProcess) -> None:
    finished = own_platform.machineshop("doctor", "--json", "--data-dir", own_platform.data_dir)
    findings = {finding["name"]: finding for finding in json.loads(finished.stdout)}
    assert finished.returncode == 0, findings
    assert findings["uv"]["state"] == findings["sprocket"]["state"] == "ok"


@pytest.mark.parametrize("path", ["/proc/none", "{file}", "{broken}"])
def test_doctor_names_a_data_directory_in_which_no_server_starts(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "machineshop.db").write_text("no database at all" * 100)
    folder = path.format(file=tmp_path / "file", broken=tmp_path / "broken")
    finished = PlatformProcess(tmp_path).machineshop("doctor", "--json", "--data-dir", folder)
    finding = next(each for each in json.loads(finished.stdout) if each["name"] == "data directory")
    assert (finished.returncode, finding["state"]) == (1, "missing")
    assert folder.removesuffix("/none") in finding["detail"]


def test_doctor_looks_at_the_port_that_it_is_told(own_platform: PlatformProcess) -> None:
    host, port = urlsplit(own_platform.base_url).netloc.split(":")
    finished = own_platform.machineshop("doctor", "--json", "--host", host, "--port", port)
    finding = next(each for each in json.loads(finished.stdout) if each["name"] == "port")
    assert finding["state"] == "note"
    assert f"{host}:{port}" in finding["detail"]


def test_a_wrong_command_line_ends_with_2(tmp_path: Path) -> None:
    platform = PlatformProcess(tmp_path)
    for words in (["keys", "lst"], ["doctor", "--port", "many"], ["keys", "create", "--name", "x", "--scope", "god"]):
        finished = platform.machineshop(*words)
        assert finished.returncode == 2, words
        assert finished.stderr.startswith("machineshop: "), finished.stderr
    assert "machineshop keys create needs --name." in platform.machineshop("keys", "create", "ada").stderr


def test_a_list_in_a_pipe_is_not_cut(own_platform: PlatformProcess) -> None:
    name = "a-name-of-exactly-sixty-three-characters-" + "x" * 22
    own_platform.machineshop("keys", "create", "--name", name, "--data-dir", own_platform.data_dir)
    lines = own_platform.machineshop("keys", "list", "--data-dir", own_platform.data_dir).stdout.splitlines()
    (line,) = (line for line in lines if name in line)
    assert lines == [line.rstrip() for line in lines]
    assert re.search(r"msk_\w+… .* valid +[0-9a-f-]{36}", line)


def test_a_key_of_a_new_project_says_that_it_is_new(own_platform: PlatformProcess) -> None:
    words = ("keys", "create", "--name", "x", "--project", "vison", "--data-dir", own_platform.data_dir)
    first, second = own_platform.machineshop(*words), own_platform.machineshop(*words)
    assert first.stderr == "The project vison is new: there was none.\n"
    assert second.stderr == ""
    assert all(re.fullmatch(r"msk_\S+\n", made.stdout) for made in (first, second))


def test_no_key_shows_in_a_command_line_or_the_log(own_platform: PlatformProcess, tmp_path: Path) -> None:
    own_platform.deploy(write_worker(tmp_path / "plain", "plain", PLAIN))
    own_platform.finished("plain", own_platform.submit("plain", {}))
    keys = [own_platform.api_key]
    lines = b""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and process.name != str(os.getpid()):
            try:
                command_line = (process / "cmdline").read_bytes()
                environment = (process / "environ").read_bytes()
            except OSError:
                continue
            lines += command_line
            variables = [variable.partition(b"=") for variable in environment.split(b"\0")]
            keys += [
                value.decode()
                for name, _, value in variables
                if name == b"TOGETHER_API_KEY" and value.startswith(b"msk_")
            ]
    assert len(keys) > 1  # the replica's own key is among them
    logged = own_platform.log.read_text().split("admin key", 1)[-1].split("\n", 1)[-1]
    for key in keys:
        assert key.encode() not in lines
        assert key not in logged


@pytest.mark.parametrize(
    ("arrange", "word"),
    [
        (lambda data: (data / "machineshop.db").write_bytes(b"this is no database at all" * 100), "database"),
        (lambda data: (data / "admin-key").mkdir(), "admin-key"),
        (lambda data: (data / "blobs").write_text("in the way"), "data directory"),
    ],
)
def test_a_data_directory_in_disorder_is_refused_in_a_sentence(
    tmp_path: Path, arrange: Callable[[Path], object], word: str
) -> None:
    platform = PlatformProcess(tmp_path)
    platform.data_dir.mkdir()
    arrange(platform.data_dir)
    finished = platform.machineshop("serve", "--data-dir", platform.data_dir, "--port", "0")
    assert finished.returncode == 1
    assert finished.stderr.startswith("machineshop: ")
    assert word in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("options", "status"),
    [(["--public-url", "http://[::1"], 2), (["--database-url", "postgresql://h:port/x"], 1)],
    ids=["--public-url", "--database-url"],
)
def test_urls_that_make_no_sense_are_refused(tmp_path: Path, options: list[str], status: int) -> None:
    platform = PlatformProcess(tmp_path)
    finished = platform.machineshop("serve", "--data-dir", platform.data_dir, "--port", "0", *options)
    assert finished.returncode == status
    assert "must look like" in finished.stderr


def test_a_data_directory_is_closed_to_other_users(tmp_path: Path) -> None:
    platform = PlatformProcess(tmp_path)
    platform.data_dir.mkdir(mode=0o755)
    platform.data_dir.chmod(0o755)
    platform.start()
    assert stat.S_IMODE(platform.data_dir.stat().st_mode) == 0o700
    platform.close()


def test_a_terminal_that_closes_ends_the_replicas(own_platform: PlatformProcess, tmp_path: Path) -> None:
    own_platform.deploy(write_worker(tmp_path / "plain", "plain", PLAIN))
    (replica,) = own_platform.deployment("plain")["replica_events"].values()
    assert own_platform.signal(signal.SIGHUP) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{replica['replica_port']}/health")
    assert "Stopping: 1 replica finishes what is in hand" in own_platform.log.read_text()
