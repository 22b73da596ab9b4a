"""What is particular to replicas that are containers, on a real engine: what they get, how they fail, what is left."""

import asyncio
import io
import json
import re
import shutil
import struct
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from docker_engine import BASE_IMAGE, run_docker
from machineshop.errors import RuntimeUnavailable
from machineshop.runtime.base import Replica, ReplicaStatus
from machineshop.runtime.docker.body import INSTANCE_LABEL
from runtime.harness import MOUNT_PATH, DockerWorld, eventually, one, ready

ARM_PROGRAM = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 2, 183, 1) + bytes(100)
"""The beginning of a program for arm64: enough for a kernel to refuse it."""


def docker(*arguments: str) -> str:
    finished = run_docker(*arguments)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def ours(world: DockerWorld, what: str) -> list[str]:
    """Ids of containers or networks of this world."""
    mine = f"label={INSTANCE_LABEL}={(world.data_dir / 'containers.id').read_text()}"
    return docker(what, "ls", *(["-a"] if what == "container" else []), "-q", "--filter", mine).split()


def inspected(world: DockerWorld) -> dict[str, Any]:
    (container,) = ours(world, "container")
    about: dict[str, Any] = json.loads(docker("inspect", container))[0]
    return about


async def started(world: DockerWorld, **fields: object) -> Replica:
    await world.runtime.apply(world.spec(**fields), 1)  # type: ignore[arg-type]
    (replica,) = await ready(world.runtime, 1)
    return replica


async def nothing_left(world: DockerWorld) -> None:
    async def nothing() -> bool:
        return not await asyncio.to_thread(lambda: ours(world, "container") + ours(world, "network"))

    await eventually(nothing)


@pytest.fixture
def strange_image(endpoint: str) -> Iterator[str]:
    """An image with nothing but a program for another kind of machine, and no command."""
    name = f"machineshop-test:{uuid4().hex[:12]}"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for program in ("program", "bin/sh"):  # whoever cannot start the one tries the other
            entry = tarfile.TarInfo(program)
            entry.size, entry.mode = len(ARM_PROGRAM), 0o755
            tar.addfile(entry, io.BytesIO(ARM_PROGRAM))
    assert run_docker("import", "-", name, stdin=packed.getvalue()).returncode == 0
    yield name
    run_docker("image", "rm", "-f", name)


async def test_a_container_gets_its_limits_its_protection_and_the_platforms_variables(dock: DockerWorld) -> None:
    foreign = docker("create", "--label", "machineshop.replica=somebody-elses", BASE_IMAGE, "true")
    try:
        chosen = {"MINE": "1", "PORT": "1", "TOGETHER_API_KEY": "users"}
        replica = await started(dock, environment=chosen, port=9000, args=())
        env = json.loads(await dock.get(replica, "/env"))["env"]
        expected = {
            "MINE": "1",
            "PORT": "9000",
            "TOGETHER_API_KEY": dock.watcher.keys[replica.id],
            "TOGETHER_API_BASE_URL": dock.platform_url,
            "TOGETHER_DEPLOYMENT_NAME": "hello",
            "TOGETHER_DEPLOYMENT_REVISION_ID": "r1",
            "MACHINESHOP_REPLICA_ID": replica.id,
            "TERMINATION_GRACE_PERIOD_SECONDS": "5",
            "WORLD_SIZE": "1",
            "HOSTNAME": replica.id,
            "CUDA_VISIBLE_DEVICES": "",
        }
        assert expected.items() <= env.items()
        about = await asyncio.to_thread(inspected, dock)
        host = about["HostConfig"]
        assert (host["Memory"], host["MemorySwap"]) == (2**28, 2**28)
        assert (host["NanoCpus"], host["PidsLimit"]) == (10**9, 40)
        assert (host["SecurityOpt"], host["CapDrop"], host["Privileged"]) == (["no-new-privileges"], ["ALL"], False)
        assert host["LogConfig"]["Config"] == {"max-size": str(256 * 1024), "max-file": "2"}
        assert host["ExtraHosts"] == ["host.docker.internal:host-gateway"]
        (binding,) = host["PortBindings"]["9000/tcp"]
        assert binding == {"HostIp": "127.0.0.1", "HostPort": str(replica.port)}
        assert "users" not in json.dumps(about)
        await dock.runtime.delete("dep-1")
        await nothing_left(dock)
        assert docker("inspect", "-f", "{{.State.Status}}", foreign) == "created"
    finally:
        docker("rm", foreign)


async def test_an_image_that_cannot_run_says_why_and_what_to_do(
    dock: DockerWorld, strange_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machineshop.runtime.replica.FIRST_BACK_OFF_SECONDS", 300.0)
    nowhere = f"127.0.0.1:1/{uuid4().hex}"
    cases: dict[str, tuple[dict[str, object], str, str]] = {
        "nowhere": ({"image": nowhere}, "ErrImagePull", f"'{nowhere}' cannot be reached from this machine"),
        "no-command": ({"image": strange_image, "command": ()}, "CreateContainerError", "Its image has no command"),
        "other-machine": ({"image": strange_image, "command": ("/program",)}, "Error", "another architecture"),
        "no-program": ({"command": ("/no/such",)}, "Error", "Its command does not exist in the image (/no/such"),
        "no-permission": ({"command": ("/etc/hostname",)}, "Error", "chmod +x"),
    }
    for name, (fields, _, _) in cases.items():
        await dock.runtime.apply(dock.spec(**{"deployment_id": name, **fields}), 1)  # type: ignore[arg-type]
    for name, (_, reason, said) in cases.items():
        replica = await one(dock.runtime, lambda r: (r.deployment_id, r.reason) == (name, reason))  # noqa: B023
        assert said in (replica.message or ""), name
        assert replica.status is ReplicaStatus.WAITING


async def test_a_replica_that_takes_more_memory_than_it_asked_for_is_ended(
    dock: DockerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machineshop.runtime.replica.FIRST_BACK_OFF_SECONDS", 60.0)
    if "No memory limit support" in docker("info"):
        pytest.skip("this engine's kernel has no memory limits")
    replica = await started(dock, memory_gib=0.0625)
    holding = asyncio.create_task(dock.get(replica, "/hold?mib=200"))
    ended = await one(dock.runtime, lambda r: r.reason == "OOMKilled")
    assert "more than the 0.0625 GiB of memory that it asked for. Raise memory" in (ended.message or "")
    await asyncio.gather(holding, return_exceptions=True)


async def test_one_that_forks_and_prints_without_end_and_heeds_no_signal_is_bounded_and_ends(dock: DockerWorld) -> None:
    bomb = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
forked = 0
while True:
    try:
        if os.fork() == 0:
            time.sleep(600)
        forked += 1
    except OSError as error:
        print(error, flush=True)
        break
noise = "a line that says nothing at all, again and again and again\\n" * 200 + f"no more after {forked}\\n"
while True:
    os.write(1, noise.encode())
"""
    spec = dock.spec(command=("python3", "-c", bomb), health_check_path="", grace_period_seconds=2, cpu=0.5)
    await dock.runtime.apply(spec, 1)
    (replica,) = await ready(dock.runtime, 1)
    folder = dock.data_dir / "containers" / replica.id

    async def noisy() -> bool:
        return sum(path.stat().st_size for path in folder.glob("log.*")) > 1024**2

    await eventually(noisy)
    lines = [line.text async for line in dock.runtime.logs("dep-1", None, tail=None, follow=False)]
    forked = next(line for line in lines if re.fullmatch(r"no more after \d+", line))
    assert 20 <= int(forked.split()[3]) < 40
    await dock.runtime.delete("dep-1")
    ended = await one(dock.runtime, lambda r: r.status is ReplicaStatus.TERMINATED)
    assert ended.message == "It did not end within its grace period of 2 s and was killed."
    assert sum(path.stat().st_size for path in folder.glob("log.*")) < 2 * 5 * 1024**2
    await nothing_left(dock)


async def test_one_that_exits_at_once_again_and_again_is_in_a_crash_loop_and_leaves_nothing(
    dock: DockerWorld,
) -> None:
    await dock.runtime.apply(dock.spec(command=("sh", "-c", "echo nothing to do; exit 4")), 1)
    replica = await one(dock.runtime, lambda r: r.reason == "CrashLoopBackOff" and r.restarts >= 2)
    assert "times in a row" in (replica.message or "")
    assert "The process exited with code 4. Its last line: nothing to do" in (replica.message or "")
    await dock.runtime.delete("dep-1")
    await nothing_left(dock)


async def test_containers_are_found_again_by_their_labels_and_leftovers_are_removed(dock: DockerWorld) -> None:
    replica = await started(dock)
    (container,) = ours(dock, "container")
    mine = f"{INSTANCE_LABEL}={(dock.data_dir / 'containers.id').read_text()}"
    unknown = f"unknown-{uuid4().hex[:12]}"
    of_it = ("--label", f"machineshop.replica={unknown}", "--label", "machineshop.run=1")
    docker("create", "--name", f"machineshop-{unknown}-1", "--label", mine, *of_it, BASE_IMAGE, "true")
    docker("network", "create", "--label", mine, f"machineshop-test-{uuid4().hex[:12]}")

    async def lose_the_records() -> None:
        shutil.rmtree(dock.data_dir / "containers")

    await dock.restart_server(lose_the_records)
    (found,) = await dock.runtime.observe()
    assert (found.id, found.deployment_id, found.port) == (replica.id, "dep-1", replica.port)
    await dock.runtime.apply(dock.spec(), 1)
    assert [r.id for r in await ready(dock.runtime, 1)] == [replica.id]

    async def one_of_each() -> bool:
        return ours(dock, "container") == [container] and len(ours(dock, "network")) == 1

    await eventually(one_of_each)


async def test_an_engine_that_goes_away_is_waited_for(dock: DockerWorld, tmp_path: Path) -> None:
    await dock.runtime.close()
    async with flaky(tmp_path / "engine.sock", dock.endpoint.removeprefix("unix://")) as proxy:
        world = DockerWorld(dock.data_dir, f"unix://{proxy.path}")
        await world.runtime.start()
        try:
            replica = await started(world)
            await proxy.break_off()
            await world.end(replica, 3)  # it is gone while nobody can see it
            await world.runtime.apply(world.spec("r2"), 1)
            await one(world.runtime, lambda r: r.revision_id == "r2" and "does not answer" in (r.message or ""))
            await proxy.come_back()
            await ready(world.runtime, 1, "r2")
            assert world.watcher.of(replica.id)[:2] == ["key", "exited"]
        finally:
            await world.close()
    dock.runtime = dock._runtime()
    await dock.runtime.start()


async def test_what_an_engine_cannot_remove_is_removed_once_it_can(dock: DockerWorld, tmp_path: Path) -> None:
    await dock.runtime.close()
    async with flaky(tmp_path / "engine.sock", dock.endpoint.removeprefix("unix://")) as proxy:
        world = DockerWorld(dock.data_dir, f"unix://{proxy.path}")
        await world.runtime.start()
        try:
            for what in ("container", "network"):
                await started(world)
                proxy.breaks_off_at = f"DELETE /v1.41/{what}s/".encode()
                await world.runtime.delete("dep-1")
                await proxy.has_broken_off(2)
                assert ours(world, what)
                proxy.breaks_off_at, proxy.broken_off = None, 0
                await nothing_left(world)
        finally:
            await world.close()
    dock.runtime = dock._runtime()
    await dock.runtime.start()


async def test_without_an_engine_it_says_what_to_do(tmp_path: Path) -> None:
    world = DockerWorld(tmp_path / "data", f"unix://{tmp_path}/no.sock")
    with pytest.raises(RuntimeUnavailable, match=r"Start the engine, set DOCKER_HOST, or use --runtime process"):
        await world.runtime.start()
    with pytest.raises(RuntimeUnavailable, match=r"DOCKER_HOST is 'ssh://far', which cannot be used here"):
        DockerWorld(tmp_path / "data", "ssh://far")


class Proxy:
    """A socket in front of the engine's, which can be taken away, or break off at requests that begin in some way."""

    def __init__(self, path: Path, engine: str) -> None:
        self.path, self._engine = path, engine
        self.breaks_off_at: bytes | None = None
        self.broken_off = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def come_back(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def break_off(self) -> None:
        assert self._server is not None
        self._server.close()
        self.path.unlink(missing_ok=True)
        for writer in self._open:
            writer.transport.abort()

    async def has_broken_off(self, times: int) -> None:
        async def so_often() -> bool:
            return self.broken_off >= times

        await eventually(so_often)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onwards = await asyncio.open_unix_connection(self._engine)
        self._open |= {writer, onwards[1]}
        await asyncio.gather(self._pass_on(reader, onwards[1]), self._pass_on(onwards[0], writer))
        self._open -= {writer, onwards[1]}
        writer.close()
        onwards[1].close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(64 * 1024):
                if self.breaks_off_at is not None and chunk.startswith(self.breaks_off_at):
                    self.broken_off += 1
                    writer.transport.abort()
                    return
                writer.write(chunk)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            pass


@asynccontextmanager
async def flaky(path: Path, engine: str) -> AsyncIterator[Proxy]:
    proxy = Proxy(path, engine)
    await proxy.come_back()
    yield proxy
    await proxy.break_off()


async def test_containers_share_a_volume_that_not_even_root_in_them_can_write_to(dock: DockerWorld) -> None:
    await dock.runtime.apply(dock.spec(volumes=(dock.volume(),)), 2)
    for replica in await ready(dock.runtime, 2):
        assert await dock.read(replica, "model.txt") == "the first"
        assert await dock.write(replica, "model.txt") == "EROFS"
        assert await dock.write(replica, "new") == "EROFS"
    assert sorted(dock.shelf.opened) == ["model.txt", "more/tokens.txt"]
    container = ours(dock, "container")[0]
    assert docker("exec", container, "id", "-u") == "0"
    for attempt in (
        f"rm -rf {MOUNT_PATH}/model.txt",
        f"chmod 777 {MOUNT_PATH}/model.txt",
        f"mount -o remount,rw {MOUNT_PATH}",
        f"umount {MOUNT_PATH}",
        f"touch {MOUNT_PATH}/more/x",
    ):
        assert run_docker("exec", container, "sh", "-c", attempt).returncode != 0, attempt
    assert docker("exec", "--user", "12345", container, "cat", f"{MOUNT_PATH}/more/tokens.txt") == "a b c"


async def test_containers_of_another_version_see_another_tree(dock: DockerWorld) -> None:
    await started(dock, volumes=(dock.volume(0),))
    second = dock.volume(1, {"model.txt": b"the second"})
    await dock.runtime.apply(dock.spec("r2", volumes=(second,)), 1)
    (new,) = await ready(dock.runtime, 1, "r2")
    assert await dock.read(new, "model.txt") == "the second"
    await dock.restart_server()
    (adopted,) = await ready(dock.runtime, 1, "r2")
    dock.shelf.versions.clear()
    await dock.runtime._volumes.sweep()  # type: ignore[attr-defined]
    assert await dock.read(adopted, "model.txt") == "the second"
    assert [tree.name for tree in (dock.data_dir / "volumes/trees").iterdir()] == ["project-1.volume-1.1"]
