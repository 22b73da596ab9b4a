"""What the docker engine asks for and how it reads answers, without an engine."""

from pathlib import Path
from typing import Any, cast

import pytest

from machineshop.runtime import replica
from machineshop.runtime.base import ArtifactKind, RevisionSpec
from machineshop.runtime.choice import url_in_containers
from machineshop.runtime.docker.api import EngineApi
from machineshop.runtime.docker.body import RECORD_LABEL, Machine, Network, container, labels
from machineshop.runtime.docker.ends import exit_of, why_not_started
from machineshop.runtime.docker.follower import CopiedLog
from machineshop.runtime.docker.found import find
from machineshop.runtime.docker.images import Image, why_not_pulled
from machineshop.runtime.docker.names import split
from machineshop.runtime.docker.networks import gateway_of
from machineshop.runtime.docker.pulls import Pull, Pulls
from machineshop.runtime.record import Record
from machineshop.runtime.replica_log import FileLog

DIGEST = f"sha256:{'0' * 64}"
SAME = ("amd64", "amd64")


def record(**fields: Any) -> Record:
    spec = RevisionSpec(
        deployment_id="d1",
        deployment_name="hello",
        project_id="p1",
        revision_id="r1",
        image="hello:1",
        artifact=ArtifactKind.IMAGE,
        memory_gib=2.0,
        **fields,
    )
    made = replica.created("hello-1", spec, 0.0)
    return replica.starting(made, port=5000, gpus=(1, 3)[: spec.gpu_count], platform_url="http://inside:1", now=0.0)


def body(image: Image = Image(DIGEST), machine: Machine | None = None, **fields: Any) -> dict[str, Any]:  # noqa: B008
    machine = machine or Machine(instance="i1", cpus=2, architecture="amd64", init=True, sized_storage=False)
    one = record(**fields)
    return container(one, one.spec, image, "the key", Network("net"), machine)


class Engine:
    """Stands for an engine that lists containers."""

    def __init__(self, *containers: dict[str, Any]) -> None:
        self._containers = containers

    async def get(self, _path: str, **_query: object) -> list[dict[str, Any]]:
        return list(self._containers)


async def test_a_container_of_an_image_that_was_made_of_one_of_ours_is_its_users() -> None:
    one = record()
    ours = {"Id": "1", "Names": ["/machineshop-hello-1-1"], "Labels": labels(one, "i1")}
    theirs = {**ours, "Id": "2", "Names": ["/trying-something"]}
    found = await find(cast("EngineApi", Engine(ours, theirs)), "i1", [one])
    assert (found.adopted, found.leftover) == ([one], [])
    found = await find(cast("EngineApi", Engine(theirs)), "i1", [])
    assert (found.records, found.leftover) == ([], [])
    nobodys = {**ours, "Labels": {**labels(one, "i1"), RECORD_LABEL: ""}}
    found = await find(cast("EngineApi", Engine(nobodys)), "i1", [])
    assert found.leftover == [("1", "p1")]


def test_gpus_are_asked_for_by_number_and_withheld_from_others() -> None:
    machine = Machine(instance="i", cpus=2, architecture="amd64", init=False, sized_storage=False, gpu_runtime=True)
    host = body(machine=machine, gpu_count=2)["HostConfig"]
    assert host["DeviceRequests"] == [{"Driver": "nvidia", "DeviceIDs": ["1", "3"], "Capabilities": [["gpu"]]}]
    assert "Init" not in host
    without = body(machine=machine)
    assert {"CUDA_VISIBLE_DEVICES=", "NVIDIA_VISIBLE_DEVICES=void"} <= set(without["Env"])
    assert "DeviceRequests" not in without["HostConfig"]


def test_more_cores_than_there_are_is_all_of_them_and_storage_is_bounded_where_it_can_be() -> None:
    assert body(cpu=64.0)["HostConfig"]["NanoCpus"] == 2 * 10**9
    sized = Machine(instance="i", cpus=2, architecture="amd64", init=True, sized_storage=True)
    assert body(machine=sized, storage_gib=5)["HostConfig"]["StorageOpt"] == {"size": "5G"}
    assert "StorageOpt" not in body(storage_gib=5)["HostConfig"]


def test_a_command_and_arguments_take_the_places_of_the_images() -> None:
    assert "Entrypoint" not in body()
    assert (body(command=("a",))["Entrypoint"], "Cmd" in body(command=("a",))) == (["a"], False)
    assert (body(args=("b",))["Cmd"], "Entrypoint" in body(args=("b",))) == (["b"], False)


def test_the_authorities_are_mounted_and_named() -> None:
    trusting = Machine(
        instance="i", cpus=2, architecture="amd64", init=True, sized_storage=False, ca_bundle=Path("/data/ca.pem")
    )
    made = body(machine=trusting)
    assert "SSL_CERT_FILE=/etc/machineshop/ca.pem" in made["Env"]
    (mount,) = made["HostConfig"]["Mounts"]
    assert (mount["Source"], mount["Target"], mount["ReadOnly"]) == ("/data/ca.pem", "/etc/machineshop/ca.pem", True)


def test_the_root_is_read_only_where_the_image_says_that_it_can_be() -> None:
    assert body()["HostConfig"]["ReadonlyRootfs"] is False
    host = body(Image(DIGEST, read_only_root=True))["HostConfig"]
    assert (host["ReadonlyRootfs"], host["Mounts"]) == (True, [{"Type": "volume", "Target": "/tmp"}])


@pytest.mark.parametrize(
    ("words", "said", "final"),
    [
        ("no matching manifest for linux/amd64 in the manifest list entries", "for this machine's architecture", True),
        (
            "manifest for x:1 not found: manifest unknown",
            "Correct the name, build it on this machine, or push it",
            True,
        ),
        ("pull access denied for x, repository does not exist", "pull it on this machine with a login of yours", True),
        ("Get https://x/v2/: dial tcp: lookup x: no such host", "cannot be reached from this machine", False),
        ("write /var/lib/docker/x: no space left on device", "docker system prune", False),
        ("something else", "cannot be pulled: something else.", False),
    ],
)
def test_a_pull_that_fails_says_what_to_do_and_whether_waiting_helps(words: str, said: str, final: bool) -> None:
    failure = why_not_pulled("x:1", words)
    assert (said in failure.message, failure.final) == (True, final)


@pytest.mark.parametrize(
    ("words", "architectures", "said"),
    [
        ("No command specified", SAME, "neither ENTRYPOINT nor CMD"),
        ("container create: no command or entrypoint provided, and no CMD", SAME, "neither ENTRYPOINT nor CMD"),
        ('exec: "nope": executable file not found in $PATH: unknown', SAME, "does not exist in the image"),
        ("exec /x: exec format error", SAME, "built for another architecture, or is a script without a line"),
        ("exec /x: no such file or directory", ("arm64", "amd64"), "The image is for arm64 and this machine is amd64"),
        ("exec: permission denied: unknown", SAME, "chmod +x"),
        ("driver failed: Bind for 127.0.0.1:5000 failed: port is already allocated", SAME, "took port 5000"),
        ('could not select device driver "nvidia" with capabilities: [[gpu]]', SAME, "NVIDIA Container Toolkit"),
        ("could not find an available, non-overlapping IPv4 address pool", SAME, "default-address-pools"),
    ],
)
def test_a_start_that_fails_says_what_to_do(words: str, architectures: tuple[str, str], said: str) -> None:
    failure = why_not_started(words, record(), architectures)
    assert (failure.reason, said in failure.message) == ("CreateContainerError", True), failure.message


def test_an_end_is_read_from_the_engines_state() -> None:
    state = {"ExitCode": 143, "OOMKilled": False, "FinishedAt": "2026-01-02T03:04:05.123456789Z"}
    ended = exit_of(state, record(), "bye", architectures=SAME, now=1.0)
    assert (ended.code, ended.signal, ended.exit_code, ended.last_line) == (None, 15, 143, "bye")
    assert ended.at == pytest.approx(1767323045.123456)
    never = {"ExitCode": 0, "FinishedAt": "0001-01-01T00:00:00Z"}
    assert exit_of(never, record(), "", architectures=SAME, now=7.0).at == 7.0
    podman = "ERROR (catatonit:6): failed to exec pid1: No such file or directory"
    missing = exit_of({"ExitCode": 1}, record(command=("/nope",)), podman, architectures=SAME, now=1.0)
    assert "does not exist in the image (/nope: No such file" in (missing.message or "")
    oom = exit_of({"ExitCode": 137, "OOMKilled": True}, record(), "", architectures=SAME, now=1.0)
    assert (oom.reason, "2 GiB of memory" in (oom.message or "")) == ("OOMKilled", True)


def test_references_are_taken_apart() -> None:
    assert split("python") == ("python", None, None)
    assert split("127.0.0.1:5000/ns/a") == ("127.0.0.1:5000/ns/a", None, None)
    assert split(f"host:1/ns/a:v1@{DIGEST}") == ("host:1/ns/a", "v1", DIGEST)


def frame(text: str) -> bytes:
    return b"\x01\0\0\0" + len(text.encode()).to_bytes(4, "big") + text.encode()


def test_lines_come_once_though_a_stream_begins_again(tmp_path: Path) -> None:
    first = frame("2026-01-02T03:04:05.5Z one\n") + frame("2026-01-02T03:04:05.500000001Z two\n")
    more = frame("2026-01-02T03:04:06Z three\n")
    log = CopiedLog(tmp_path)
    log.take(first[:20])
    log.take(first[20:] + more[:9])
    log.restart()
    log.take(first + more)
    log.close()
    assert log.last_line == "three"
    again = CopiedLog(tmp_path)
    again.take(first + more + frame("2026-01-02T03:04:07Z four\n"))
    again.close()
    lines = FileLog(tmp_path, "hello-1").read_last(None)
    assert [line.text for line in lines] == ["one", "two", "three", "four"]
    assert lines[0].at == 1767323045.5


@pytest.mark.parametrize(
    ("base_url", "server_url", "inside"),
    [
        ("http://127.0.0.1:8799", "http://127.0.0.1:8799", "http://host.docker.internal:8799"),
        ("https://localhost:1", "https://127.0.0.1:8799", "https://host.docker.internal:8799"),
        ("http://10.1.2.3:8799", "http://10.1.2.3:8799", "http://10.1.2.3:8799"),
        ("https://models.example", "http://127.0.0.1:8799", "https://models.example"),
    ],
)
def test_containers_know_the_platform_by_an_address_that_they_can_reach(
    base_url: str, server_url: str, inside: str
) -> None:
    assert url_in_containers(base_url, server_url) == inside


def test_the_gateway_of_a_network_is_its_first_address_unless_it_says_another() -> None:
    assert gateway_of({"Subnet": "172.17.0.0/16"}) == "172.17.0.1"
    assert gateway_of({"Subnet": "172.17.0.0/16", "Gateway": "172.17.9.9"}) == "172.17.9.9"
    assert gateway_of({"Subnet": "fd00::/64", "Gateway": "fd00::1"}) is None
    assert gateway_of({}) is None


def test_an_engine_that_counts_seconds_alone_and_in_its_zone_loses_no_line(tmp_path: Path) -> None:
    first = frame("2026-01-02T03:04:05+02:00 one\n") + frame("2026-01-02T03:04:05+02:00 one\n")
    more = frame("2026-01-02T03:04:05+02:00 two\n") + frame("2026-01-02T03:04:06+02:00 three\n")
    log = CopiedLog(tmp_path)
    log.take(first)
    log.restart()
    log.take(first + more[:30])
    log.restart()
    log.take(first + more)
    log.close()
    again = CopiedLog(tmp_path)
    again.take(frame("2026-01-02T03:04:06+02:00 three\n") + frame("2026-01-02T03:04:06+02:00 four\n"))
    again.close()
    lines = FileLog(tmp_path, "hello-1").read_last(None)
    assert [line.text for line in lines] == ["one", "one", "two", "three", "four"]
    assert lines[0].at == 1767315845.0


def test_a_line_that_comes_a_moment_late_is_kept(tmp_path: Path) -> None:
    log = CopiedLog(tmp_path)
    log.take(frame("2026-01-02T03:04:05.2Z of one stream\n") + frame("2026-01-02T03:04:05.1Z of the other\n"))
    log.close()
    assert [line.text for line in FileLog(tmp_path, "x").read_last(None)] == ["of one stream", "of the other"]


GIB = 1024**3


def step(status: str, layer: str = "a", current: int | None = None, total: int | None = None) -> dict[str, Any]:
    detail = {"current": current, "total": total} if current is not None else {}
    return {"status": status, "id": layer, "progressDetail": detail}


def test_a_pull_says_how_far_it_has_come() -> None:
    pull = Pull()
    said: list[str] = []
    for each in (
        {"status": "Pulling from default/worker", "id": "latest"},
        step("Already exists", "base"),
        step("Pulling fs layer"),
        step("Pulling fs layer", "b"),
        step("Waiting", "b"),
        step("Downloading", "a", GIB // 4, GIB),
        step("Downloading", "b", GIB // 2, GIB),
        step("Verifying Checksum"),
        step("Download complete"),
        step("Download complete", "b"),
        step("Extracting", "a", GIB // 2, GIB),
        step("Pull complete"),
        step("Pull complete", "b"),
        {"status": "Digest: sha256:1"},
    ):
        pull.heard(each)
        if str(pull) not in said[-1:]:
            said.append(str(pull))
    assert said == [
        "Its image is being pulled.",
        "Its image is being pulled: 0.25 GiB so far.",
        "Its image is being pulled: 0.75 GiB of 2.00 GiB.",
        "Its image is being pulled: 1.50 GiB of 2.00 GiB.",
        "Its image is being unpacked: 0 of 2 layers.",
        "Its image is being unpacked: 1 of 2 layers.",
        "Its image is being unpacked: 2 of 2 layers.",
    ]


@pytest.mark.parametrize(
    "odd", [{}, {"stream": "Trying to pull"}, {"id": 3, "status": "Downloading"}, {"id": "a", "status": None}]
)
def test_what_an_engine_says_in_other_words_is_left_out(odd: dict[str, Any]) -> None:
    pull = Pull()
    pull.heard(odd)
    pull.heard(step("Downloading", "a", None))
    assert str(pull) == "Its image is being pulled."


def test_a_pull_is_shown_while_it_is_under_way_and_to_its_project() -> None:
    pulls = Pulls()
    with pulls.begun("p1", "worker:1") as first:
        with pulls.begun("p1", "worker:1") as second:
            assert pulls.of("p1", "worker:1") is second
        assert pulls.of("p1", "worker:1") is None
        assert pulls.of("p2", "worker:1") is None
    with pulls.begun("p1", "worker:1") as third:
        assert pulls.of("p1", "worker:1") is third is not first
