"""What is particular to replicas that are processes: what they get, and that nothing of them is ever left behind."""

import asyncio
import itertools
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from machineshop.errors import RuntimeUnavailable
from machineshop.runtime import supervisor
from machineshop.runtime.base import MountedVolume, Replica, ReplicaStatus
from machineshop.runtime.fake import Behaviour
from machineshop.runtime.process import ProcessRuntime
from runtime.harness import PLATFORM_URL, WORKER, ProcessWorld, Registry, Watcher, eventually, kill, one, ready, runs
from runtime.shelf import Shelf


async def started(machine: ProcessWorld, **fields: object) -> Replica:
    await machine.runtime.apply(machine.spec(**fields), 1)  # type: ignore[arg-type]
    (replica,) = await ready(machine.runtime, 1)
    return replica


def holding(secrets: tuple[bytes, ...], files: list[Path]) -> list[Path]:
    return [path for path in files if any(secret in path.read_bytes() for secret in secrets)]


async def gone(*pids: int) -> None:
    async def none_runs() -> bool:
        return not any(runs(pid) for pid in pids)

    await eventually(none_runs)


async def test_a_replica_gets_the_platforms_variables_and_none_of_the_servers(
    machine: ProcessWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {"MINE": "1", "PORT": "1", "TOGETHER_API_KEY": "users", "FROM_BUNDLE": "overridden"}
    monkeypatch.setenv("MACHINESHOP_ADMIN_KEY", "the server's secret")
    replica = await started(machine, environment=chosen)
    seen = json.loads(await machine.get(replica, "/env"))
    env = seen["env"]
    assert env["PORT"] == str(replica.port)
    assert env["MACHINESHOP_REPLICA_ID"] == replica.id
    assert env["TOGETHER_API_KEY"] == machine.watcher.keys[replica.id]
    assert env["TOGETHER_API_BASE_URL"] == PLATFORM_URL
    assert (env["TOGETHER_DEPLOYMENT_NAME"], env["TOGETHER_DEPLOYMENT_REVISION_ID"]) == ("hello", "r1")
    assert (env["TERMINATION_GRACE_PERIOD_SECONDS"], env["WORLD_SIZE"]) == ("5", "1")
    assert (env["CUDA_VISIBLE_DEVICES"], env["PYTHONUNBUFFERED"]) == ("", "1")
    assert (env["MINE"], env["FROM_BUNDLE"]) == ("1", "overridden")
    assert "127.0.0.1" in env["NO_PROXY"].split(",")
    assert env["PATH"].startswith(env["VIRTUAL_ENV"])
    assert "MACHINESHOP_ADMIN_KEY" not in env
    assert (Path(seen["cwd"]) / "notes/read.me").read_text() == "a file"


async def test_no_secret_is_on_a_command_line_or_on_disk(machine: ProcessWorld) -> None:
    replica = await started(machine, environment={"PASSWORD": "open-sesame"})
    note = machine.run_note(replica)
    secrets = (machine.watcher.keys[replica.id].encode(), b"open-sesame")
    for pid in (note["pid"], note["supervisor_pid"]):
        assert not holding(secrets, [Path(f"/proc/{pid}/cmdline")])
    files = [path for path in machine.data_dir.joinpath("replicas").rglob("*") if path.is_file()]
    assert len(files) > 4
    assert holding(secrets, files) == []
    assert machine.data_dir.joinpath("replicas").stat().st_mode & 0o077 == 0


async def test_replicas_have_their_own_copy_of_the_source(machine: ProcessWorld) -> None:
    await machine.runtime.apply(machine.spec(), 2)
    first, second = await ready(machine.runtime, 2)
    places = [Path(json.loads(await machine.get(replica, "/env"))["cwd"]) for replica in (first, second)]
    (places[0] / "notes/read.me").write_text("changed")
    assert (places[1] / "notes/read.me").read_text() == "a file"
    await machine.end(first, 1)
    await one(machine.runtime, lambda r: r.restarts == 1)
    await ready(machine.runtime, 2)
    assert (places[0] / "notes/read.me").read_text() == "a file"


async def test_a_deployments_own_command_and_arguments_are_run(machine: ProcessWorld) -> None:
    shell = ("sh", "-c", 'echo "$0 and $1"; exec python worker.py')
    replica = await started(machine, command=shell, args=("this", "that"))

    async def printed() -> bool:
        lines = machine.runtime.logs("dep-1", replica.id, tail=None, follow=False)
        return [line.text async for line in lines] == ["this and that", "worker starting"]

    await eventually(printed)


async def test_a_program_that_is_not_there_is_named(machine: ProcessWorld) -> None:
    await machine.runtime.apply(machine.spec(command=("no-such-program",)), 1)
    replica = await one(machine.runtime, lambda r: r.reason == "Error")
    assert replica.exit_code == 127
    assert "cannot start 'no-such-program': no such program" in (replica.message or "")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"command": ("sh", "-c", "a\0b")}, "cannot start 'sh': the command or its environment cannot be passed on"),
        ({"command": ("\0" * 5000,)}, "its environment cannot be passed on ("),
        ({"environment": {"A=B": "1"}}, "cannot start 'python': the command or its environment cannot be passed on"),
        ({"command": ("x" * 200_000,)}, "cannot start 'xxx"),
    ],
    ids=["a NUL", "only NULs", "a variable's name", "a long name"],
)
async def test_what_cannot_be_started_is_said(machine: ProcessWorld, spec: dict[str, Any], said: str) -> None:
    await machine.runtime.apply(machine.spec(**spec), 1)
    replica = await one(machine.runtime, lambda r: r.reason == "Error")
    assert replica.exit_code == 127
    assert said in (replica.message or "")


async def test_a_supervisor_told_to_start_nothing_says_so(tmp_path: Path) -> None:
    order = {"command": [], "cwd": "/", "env": {}, "grace_seconds": 1, "memory_bytes": 0, "log_bytes": 1000}
    run = await asyncio.to_thread(supervisor.spawn, tmp_path, 1, order)
    async with asyncio.timeout(60):
        await run.gone()
    note = run.exit_note()
    assert note is not None
    assert (note.code, note.last_line) == (127, "cannot start anything: the command is empty")


async def test_a_killed_worker_is_seen_and_started_again(machine: ProcessWorld) -> None:
    replica = await started(machine)
    kill(machine.run_note(replica)["pid"], signal.SIGKILL)
    waiting = await one(machine.runtime, lambda r: r.status is ReplicaStatus.WAITING and r.reason == "Error")
    assert waiting.exit_code == 137
    assert (
        "want of memory, of which it may have 8 GiB. The process was ended by signal SIGKILL. Its last line: worker"
        in (waiting.message or "")
    )
    (again,) = await ready(machine.runtime, 1)
    assert again.id == replica.id


async def test_a_killed_supervisor_takes_its_replica_with_it_children_included(
    machine: ProcessWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machineshop.runtime.replica.FIRST_BACK_OFF_SECONDS", 2.0)  # for long enough to be seen
    replica = await started(machine)
    children = [int(await machine.get(replica, f"/spawn?session={session}")) for session in ("same", "new")]
    note = machine.run_note(replica)
    kill(note["supervisor_pid"], signal.SIGKILL)
    waiting = await one(machine.runtime, lambda r: r.status is ReplicaStatus.WAITING and r.reason == "Error")
    assert "supervisor was killed" in (waiting.message or "")
    await gone(note["pid"], *children)
    await ready(machine.runtime, 1)
    assert machine.watcher.of(replica.id) == ["key", "exited", "key"]


@pytest.mark.parametrize("how", ["drained", "exits"])
async def test_no_child_of_a_replica_outlives_it(machine: ProcessWorld, how: str) -> None:
    replica = await started(machine)
    children = [int(await machine.get(replica, f"/spawn?session={session}")) for session in ("same", "new")]
    assert all(runs(pid) for pid in children)
    if how == "drained":
        await machine.runtime.apply(machine.spec(), 0)
        await ready(machine.runtime, 0)
    else:
        await machine.end(replica, 1)
        await one(machine.runtime, lambda r: r.status is ReplicaStatus.WAITING)
    await gone(*children)


async def test_a_port_that_was_taken_meanwhile_is_changed_with_the_next_start(machine: ProcessWorld) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1]])
        engine: Any = machine.runtime._engine
        choose = engine.free_port
        engine.free_port = lambda others: next(ports, None) or choose(others)
        await machine.runtime.apply(machine.spec(), 1)
        crashed = await one(machine.runtime, lambda r: r.reason == "Error")
        assert "Address already in use" in (crashed.message or "")
        (replica,) = await ready(machine.runtime, 1)
        assert replica.port != taken.getsockname()[1]


async def test_a_replica_that_takes_more_memory_than_it_asked_for_is_ended(machine: ProcessWorld) -> None:
    replica = await started(machine, memory_gib=0.1)
    await machine.get(replica, "/hold?mib=50")
    with suppress(OSError, IndexError):  # it may be ended before it has answered
        await machine.get(replica, "/hold?mib=100")
    waiting = await one(machine.runtime, lambda r: r.reason == "OOMKilled")
    assert waiting.exit_code == 137
    assert "0.1 GiB" in (waiting.message or "")


async def test_a_log_without_end_is_bounded_and_the_replica_still_ends(
    machine: ProcessWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machineshop.runtime.process.LOG_FILE_BYTES", 200_000)
    replica = await started(machine)
    await machine.get(replica, "/chatter")
    folder = machine.data_dir / "replicas" / replica.id

    async def rotated() -> bool:
        return not (folder / "log.3").exists() and max(int(p.name[4:]) for p in folder.glob("log.*")) > 5

    await eventually(rotated)
    followed = machine.runtime.logs("dep-1", replica.id, tail=5, follow=True)
    seen = [await anext(aiter(followed)) for _ in range(5000)]
    assert all(line.text == "a line that says nothing at all, again and again and again" for line in seen[100:])
    await machine.runtime.apply(machine.spec(), 0)
    await ready(machine.runtime, 0)
    assert sum(path.stat().st_size for path in folder.glob("log.*")) <= 500_000


async def test_a_line_that_never_ends_shows_in_pieces(machine: ProcessWorld) -> None:
    replica = await started(machine)
    for _ in range(3):
        await machine.get(replica, f"/print?end=&text={'x' * 20_000}")

    async def printed() -> bool:
        lines = machine.runtime.logs("dep-1", None, tail=3, follow=False)
        return [len(line.text) async for line in lines] == [16 * 1024] * 3

    await eventually(printed)
    await machine.end(replica, 1)
    waiting = await one(machine.runtime, lambda r: r.reason == "Error")
    assert len(waiting.message or "") < 500


async def told_by_a_server_that_is_then_killed(
    machine: ProcessWorld,
    folder: Path,
    variables: dict[str, str] | None = None,
    volumes: tuple[MountedVolume, ...] = (),
) -> list[dict[str, object]]:
    config, layer = machine.registry.bundles[machine.image]
    (folder / "config").write_bytes(config)
    (folder / "layer").write_bytes(layer)
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("server_process.py"))),
        *(str(machine.data_dir), machine.image, str(folder / "config"), str(folder / "layer")),
        msgspec.json.encode(volumes).decode(),
        *([] if variables is None else [json.dumps(variables)]),
        stdout=asyncio.subprocess.PIPE,
    )
    assert server.stdout is not None
    lines = [await asyncio.wait_for(server.stdout.readline(), 60) for _ in range(1 if variables is None else 2)]
    server.kill()
    await server.wait()
    return [json.loads(line) for line in lines]


async def test_a_server_killed_in_a_failing_rollout_leaves_the_old_replica_serving(
    machine: ProcessWorld, tmp_path: Path
) -> None:
    old, new = await told_by_a_server_that_is_then_killed(machine, tmp_path, {"EXIT_CODE": "3"})
    await machine.restart_server()
    await machine.runtime.apply(machine.spec("r2", Behaviour(exit_code=3), grace_period_seconds=300), 1)
    crashing = await one(machine.runtime, lambda r: r.id == new["id"] and r.restarts >= 3)
    assert (crashing.revision_id, crashing.ready_since) == ("r2", None)
    serving = await one(machine.runtime, lambda r: r.id == old["id"])
    assert (serving.port, serving.ready_since) == (old["port"], old["ready_since"])
    assert not serving.draining
    assert await machine.get(serving, "/health") == ""
    await machine.runtime.apply(machine.spec("r3"), 1)
    await ready(machine.runtime, 1, "r3")


async def test_a_killed_server_leaves_its_replicas_to_the_next_one(machine: ProcessWorld, tmp_path: Path) -> None:
    (told,) = await told_by_a_server_that_is_then_killed(machine, tmp_path)
    await machine.restart_server()
    (replica,) = await ready(machine.runtime, 1)
    assert told == {"id": replica.id, "port": replica.port, "ready_since": replica.ready_since}
    assert (await machine.get(replica, "/health")) == ""
    await machine.print(replica, "still here")

    async def is_copied() -> bool:
        lines = machine.runtime.logs("dep-1", None, tail=None, follow=False)
        return [line.text async for line in lines] == ["worker starting", "still here"]

    await eventually(is_copied)
    await machine.runtime.delete("dep-1")
    await ready(machine.runtime, 0)
    await gone(machine.run_note(replica)["pid"])


async def test_a_supervisor_without_its_order_ends_and_starts_nothing(machine: ProcessWorld) -> None:
    replica = await started(machine)
    shim = Path(sys.modules["machineshop.runtime.supervisor"].__file__ or "").with_name("shim.py")
    lock = os.open(machine.data_dir / "lock", os.O_CREAT | os.O_RDWR)
    become_shim = f"import os, sys; os.dup2({lock}, 3); os.execv(sys.executable, [sys.executable, '-IS', '{shim}'])"
    orphan = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", become_shim), stdin=asyncio.subprocess.PIPE, pass_fds=[lock]
    )
    os.close(lock)
    # The server dies in the middle of the order.
    await orphan.communicate(b'{"folder": "')
    assert orphan.returncode == 1
    assert replica.ready_since


async def test_sources_and_replicas_of_unknown_shape_are_left_alone(machine: ProcessWorld) -> None:
    (machine.data_dir / "replicas" / "strange").mkdir()
    (machine.data_dir / "replicas" / "broken").mkdir()
    (machine.data_dir / "replicas" / "broken" / "replica.json").write_text("{")
    await machine.restart_server()
    assert await machine.runtime.observe() == []
    await started(machine)


async def test_a_data_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    runtime = ProcessRuntime(
        tmp_path / "data",
        bundles=Registry(),
        volumes=Shelf(),
        watcher=Watcher(),
        platform_url=lambda: PLATFORM_URL,
    )
    with pytest.raises(RuntimeUnavailable, match="cannot be used"):
        await runtime.start()


async def test_a_frozen_replica_is_killed_when_its_time_is_over(machine: ProcessWorld) -> None:
    replica = await started(machine, grace_period_seconds=1)
    pid = machine.run_note(replica)["pid"]
    kill(pid, signal.SIGSTOP)
    await machine.runtime.apply(machine.spec(grace_period_seconds=1), 0)
    await ready(machine.runtime, 0)
    await gone(pid)


async def test_only_an_idle_replica_has_to_answer_to_stay_ready(
    machine: ProcessWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machineshop.runtime.health.PROBE_TIMEOUT_SECONDS", 0.5)
    await machine.runtime.apply(machine.spec(), 2)
    busy, idle = await ready(machine.runtime, 2)
    await machine.runtime.apply(machine.spec(), 2, frozenset({busy.id}))
    pids = [machine.run_note(replica)["pid"] for replica in (busy, idle)]
    for pid in pids:
        kill(pid, signal.SIGSTOP)
    await one(machine.runtime, lambda r: r.id == idle.id and r.ready_since is None)
    await asyncio.sleep(1.0)  # the other one's checks come within one of them
    seen = await one(machine.runtime, lambda r: r.id == busy.id)
    assert (seen.ready_since, seen.restarts) == (busy.ready_since, 0)
    for pid in pids:
        kill(pid, signal.SIGCONT)
    await ready(machine.runtime, 2)


async def test_replicas_share_the_gpus_and_see_only_their_own(
    machine: ProcessWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machineshop.runtime.machine._gpu_names", lambda: dict.fromkeys(range(3), "NVIDIA H100"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    await machine.restart_server()
    assert machine.runtime.capacity().gpus == 3
    await machine.runtime.apply(machine.spec(gpu_count=1), 2)
    seen = [json.loads(await machine.get(r, "/env"))["env"] for r in await ready(machine.runtime, 2)]
    assert {env["CUDA_VISIBLE_DEVICES"] for env in seen} == {"0", "1"}
    await machine.runtime.apply(machine.spec("s1", deployment_id="dep-2", gpu_count=2), 1)
    waiting = await one(machine.runtime, lambda r: r.reason == "Insufficient GPU")
    assert waiting.message == "It needs 2 GPUs; 1 of this machine's 3 are free."
    await machine.restart_server()
    await machine.runtime.apply(machine.spec("s1", deployment_id="dep-2", gpu_count=2), 1)
    await machine.runtime.apply(machine.spec(gpu_count=1), 1)
    both = await ready(machine.runtime, 2)
    held = [json.loads(await machine.get(r, "/env"))["env"]["CUDA_VISIBLE_DEVICES"].split(",") for r in both]
    assert sorted(itertools.chain.from_iterable(held)) == ["0", "1", "2"]


async def test_where_no_gpu_is_spare_a_rollout_lets_the_old_replica_go_first(
    machine: ProcessWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machineshop.runtime.machine._gpu_names", lambda: {0: "NVIDIA H100"})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    await machine.restart_server()
    await machine.runtime.apply(machine.spec("r1", gpu_count=1), 1)
    await ready(machine.runtime, 1, "r1")
    await machine.runtime.apply(machine.spec("r2", gpu_count=1), 1)
    await ready(machine.runtime, 1, "r2")


async def test_a_real_worker_of_sprocket_serves(machine: ProcessWorld) -> None:
    model = (
        "import sprocket\n"
        "class Double(sprocket.Sprocket):\n"
        "    def setup(self): self.factor = 2\n"
        "    def predict(self, args): return {'doubled': args['number'] * self.factor}\n"
    )
    machine.image = machine.registry.add({"double.py": model}, "python", "-m", "sprocket", "double:Double")
    replica = await started(machine)
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{replica.port}/generate", json={"number": 21}) as answer,
    ):
        assert await answer.json() == {"doubled": 42}
    await machine.runtime.apply(machine.spec(), 0)
    await ready(machine.runtime, 0)
    ended = await one(machine.runtime, lambda r: r.id == replica.id)
    assert (ended.reason, ended.exit_code) == ("Completed", 0)


async def test_a_revision_whose_environment_cannot_be_made_says_what_uv_said(machine: ProcessWorld) -> None:
    machine.image = machine.registry.add({"worker.py": WORKER}, "python", "worker.py", requirements="sprocket>=99999")
    await machine.runtime.apply(machine.spec(), 1)
    replica = await one(machine.runtime, lambda r: r.reason == "CreateContainerConfigError")
    assert replica.status is ReplicaStatus.WAITING
    assert "uv could not install the bundle's requirements" in (replica.message or "")
    assert "99999" in (replica.message or "")


async def test_sprocket_is_in_the_environment_of_every_bundle(machine: ProcessWorld) -> None:
    program = "import runpy, sprocket; print(sprocket.__name__, flush=True); runpy.run_path('worker.py')"
    replica = await started(machine, command=("python", "-c", program))
    lines = machine.runtime.logs("dep-1", replica.id, tail=None, follow=False)
    assert (await anext(aiter(lines))).text == "sprocket"
