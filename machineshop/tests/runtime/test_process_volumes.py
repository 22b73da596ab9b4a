"""How replicas that are processes see volumes: each in a view of its own, or through links where there is none."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from machineshop.runtime import view
from machineshop.runtime.base import MountedVolume, Replica
from machineshop.runtime.volumes.trees import TreeKey
from runtime.harness import MOUNT_PATH, ProcessWorld, kill, one, ready
from runtime.test_process import gone, told_by_a_server_that_is_then_killed


@pytest.fixture
def views(machine: ProcessWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    from machineshop.runtime.views import try_out  # noqa: PLC0415 - as it is, whatever other tests make of it

    if (why_not := try_out()) is not None:
        pytest.skip(why_not)


@pytest.fixture
def no_views(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machineshop.runtime.views.try_out", lambda: "this machine gives replicas no view of their own")


async def started(
    machine: ProcessWorld, *volumes: MountedVolume, revision: str = "r1", count: int = 1
) -> list[Replica]:
    await machine.runtime.apply(machine.spec(revision, volumes=volumes), count)
    return await ready(machine.runtime, count, revision)


def is_there(path: str) -> bool:
    return Path(path).exists()


def at(volume: MountedVolume, path: Path | str) -> MountedVolume:
    return msgspec.structs.replace(volume, mount_path=str(path))


@pytest.mark.usefixtures("views")
async def test_replicas_read_the_volume_where_they_expect_it_and_cannot_write(machine: ProcessWorld) -> None:
    for replica in await started(machine, machine.volume(), count=2):
        assert await machine.read(replica, "model.txt") == "the first"
        assert await machine.read(replica, "more/tokens.txt") == "a b c"
        assert await machine.write(replica, "model.txt") == "EROFS"
        assert await machine.write(replica, "more/new.txt") == "EROFS"
    assert sorted(machine.shelf.opened) == ["model.txt", "more/tokens.txt"], "they share one tree"
    assert not is_there(MOUNT_PATH), "nobody else sees it"


@pytest.mark.usefixtures("views")
async def test_a_new_version_is_another_tree_and_the_old_replicas_keep_theirs(machine: ProcessWorld) -> None:
    (old,) = await started(machine, machine.volume(0))
    second = machine.volume(1, {"model.txt": b"the second"})
    spec = machine.spec("r2", volumes=(second,), environment={"START_SECONDS": "600"})
    await machine.runtime.apply(spec, 1)
    await one(machine.runtime, lambda r: r.revision_id == "r2" and r.started_at is not None)
    assert await machine.read(old, "model.txt") == "the first"
    (new,) = await started(machine, second, revision="r3")
    assert await machine.read(new, "model.txt") == "the second"
    assert await machine.read(new, "more/tokens.txt") == "ENOENT"


@pytest.mark.usefixtures("views")
async def test_a_killed_servers_replicas_keep_their_volume_and_its_tree_stays(
    machine: ProcessWorld, tmp_path: Path
) -> None:
    volume = machine.volume()
    await told_by_a_server_that_is_then_killed(machine, tmp_path, volumes=(volume,))
    machine.shelf.versions.clear()
    await machine.restart_server()
    (replica,) = await ready(machine.runtime, 1)
    assert machine.runtime._mounted() == {TreeKey("project-1", "volume-1", 0)}
    await machine.runtime._volumes.sweep()  # type: ignore[attr-defined]
    assert await machine.read(replica, "model.txt") == "the first"
    await machine.runtime.delete("dep-1")
    await ready(machine.runtime, 0)
    await gone(machine.run_note(replica)["pid"])
    await machine.runtime._volumes.sweep()  # type: ignore[attr-defined]
    assert list((machine.data_dir / "volumes/trees").iterdir()) == []


@pytest.mark.usefixtures("views")
async def test_a_replica_with_a_view_is_ended_as_any_other(machine: ProcessWorld) -> None:
    (replica,) = await started(machine, machine.volume())
    children = [int(await machine.get(replica, f"/spawn?session={session}")) for session in ("same", "new")]
    note = machine.run_note(replica)
    assert os.getpgid(note["pid"]) == note["pid"]
    kill(note["supervisor_pid"], signal.SIGKILL)
    await one(machine.runtime, lambda r: "supervisor was killed" in (r.message or ""))
    await gone(note["pid"], *children)
    (again,) = await ready(machine.runtime, 1)
    assert await machine.read(again, "model.txt") == "the first"
    await machine.runtime.apply(machine.spec(volumes=(machine.volume(),)), 0)
    await ready(machine.runtime, 0)
    ended = await one(machine.runtime, lambda r: r.id == replica.id)
    assert (ended.reason, ended.exit_code) == ("Completed", 128 + signal.SIGTERM)


@pytest.mark.usefixtures("views")
async def test_volumes_may_lie_in_folders_that_are_there_and_in_new_ones(machine: ProcessWorld, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "hidden").write_text("by the volume")
    paths = [f"{MOUNT_PATH}/a", f"{MOUNT_PATH}/b/c", str(tmp_path / "there"), str(tmp_path / "new" / "one")]
    volume = machine.volume()
    (replica,) = await started(machine, *(at(volume, path) for path in paths))
    for path in paths:
        assert await machine.read(replica, "model.txt", path) == "the first"
        assert await machine.write(replica, "new", path) == "EROFS"
    assert await machine.read(replica, "hidden", paths[2]) == "ENOENT"
    assert await machine.write(replica, "beside", str(tmp_path)) == "4"
    assert (tmp_path / "beside").read_text() == "mine", "what is beside them is as it was"
    assert (tmp_path / "there" / "hidden").read_text() == "by the volume"


@pytest.mark.usefixtures("views")
async def test_a_path_that_is_a_file_is_said(machine: ProcessWorld, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    await machine.runtime.apply(machine.spec(volumes=(at(machine.volume(), tmp_path / "file"),)), 1)
    failed = await one(machine.runtime, lambda r: f"cannot mount {tmp_path}/file: " in (r.message or ""))
    assert failed.exit_code == 127


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may look into, with a volume's files and the program that shows them."""
    folder = Path(tempfile.mkdtemp(prefix="machineshop-test-"))
    folder.chmod(0o755)
    (folder / "files").mkdir()
    (folder / "files" / "model.txt").write_text("the first")
    (folder / "staging").mkdir(mode=0o777)
    (folder / "locked").mkdir(mode=0o755)
    (folder / "locked" / "beside").write_text("still there")
    shutil.copy(view.__file__, folder / "view.py")
    yield folder
    shutil.rmtree(folder)


def run_as_nobody(folder: Path, path: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script with a view, as a user who has no right to anything."""
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if os.geteuid() != 0 or python is None:
        pytest.skip("only the superuser can be somebody else, who needs a Python of the system's")
    mounts = json.dumps({"mounts": [[str(folder / "files"), path]], "staging": str(folder / "staging")})
    command = [python, "-I", "-S", str(folder / "view.py"), mounts, "sh", "-c", script]
    return subprocess.run(
        command, user=65534, group=65534, extra_groups=[], capture_output=True, text=True, check=False, cwd="/"
    )


@pytest.mark.parametrize(
    "path", ["/machineshop-test-models", "locked/models"], ids=["in the root", "in a locked folder"]
)
def test_a_user_without_any_right_gets_a_view_of_its_own(open_folder: Path, path: str) -> None:
    path = path if path.startswith("/") else str(open_folder / path)
    beside = open_folder / "locked" / "beside"
    script = f"cat {path}/model.txt; id -u; cat {beside}; touch {path}/new; grep CapEff /proc/self/status"
    done = run_as_nobody(open_folder, path, script)
    if "Operation not permitted" in done.stderr:
        pytest.skip("this machine gives its users no namespaces")
    assert done.stdout.startswith("the first65534\nstill there"), done.stderr
    assert "Read-only file system" in done.stderr
    assert done.stdout.endswith("CapEff:\t0000000000000000\n"), "it has no right that its user lacks"
    assert not Path(path).exists()


def test_a_pipe_that_breaks_still_ends_a_program_with_a_view(open_folder: Path) -> None:
    done = run_as_nobody(open_folder, "/machineshop-test-models", "yes | head -1; kill -PIPE $$; echo survived")
    assert (done.stdout, done.returncode) == ("y\n", -signal.SIGPIPE), done.stderr


@pytest.mark.usefixtures("no_views")
async def test_without_views_a_link_leads_there_while_a_replica_needs_it(machine: ProcessWorld, tmp_path: Path) -> None:
    path = tmp_path / "new" / "models"
    volume = at(machine.volume(), path)
    for replica in await started(machine, volume, count=2):
        assert await machine.read(replica, "model.txt", str(path)) == "the first"
        # The superuser may write to any folder that is not mounted read-only.
        assert await machine.write(replica, "x", str(path)) == ("4" if os.geteuid() == 0 else "EACCES")
    await machine.runtime.apply(machine.spec(volumes=(volume,)), 1)
    await ready(machine.runtime, 1)
    assert path.is_symlink()
    await machine.restart_server()
    await machine.runtime.apply(machine.spec(volumes=(volume,)), 0)
    await ready(machine.runtime, 0)
    assert not path.is_symlink()


@pytest.mark.usefixtures("no_views")
async def test_without_views_what_stands_at_the_path_is_not_touched(machine: ProcessWorld, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    await machine.runtime.apply(machine.spec(volumes=(at(machine.volume(), tmp_path / "models"),)), 1)
    failed = await one(machine.runtime, lambda r: r.reason == "FailedMount")
    assert f"something stands at {tmp_path}/models, and this machine gives replicas no view" in (failed.message or "")
    assert "Choose another mount_path" in (failed.message or "")
    (tmp_path / "models").rmdir()
    await ready(machine.runtime, 1)


@pytest.mark.usefixtures("no_views")
async def test_without_views_a_path_leads_to_one_version_at_a_time(machine: ProcessWorld, tmp_path: Path) -> None:
    path = tmp_path / "models"
    (old,) = await started(machine, at(machine.volume(0), path))
    second = at(machine.volume(1, {"model.txt": b"the second"}), path)
    await machine.runtime.apply(machine.spec("r2", volumes=(second,)), 1)
    failed = await one(machine.runtime, lambda r: r.revision_id == "r2" and r.reason == "FailedMount")
    assert "they must end first" in (failed.message or "")
    assert await machine.read(old, "model.txt", str(path)) == "the first"
    await machine.runtime.apply(machine.spec("r2", volumes=(second,)), 0)
    await ready(machine.runtime, 0)
    (new,) = await started(machine, second, revision="r2")
    assert await machine.read(new, "model.txt", str(path)) == "the second"


@pytest.mark.usefixtures("no_views")
async def test_without_views_one_place_by_two_paths_is_one(machine: ProcessWorld, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    (old,) = await started(machine, at(machine.volume(0), tmp_path / "real" / "models"))
    second = at(machine.volume(1, {"model.txt": b"the second"}), tmp_path / "alias" / "models")
    await machine.runtime.apply(machine.spec("r2", volumes=(second,)), 1)
    failed = await one(machine.runtime, lambda r: r.revision_id == "r2" and r.reason == "FailedMount")
    assert "they must end first" in (failed.message or "")
    assert await machine.read(old, "model.txt", str(tmp_path / "real" / "models")) == "the first"


@pytest.mark.usefixtures("no_views")
async def test_without_views_nothing_is_mounted_in_another_volume(machine: ProcessWorld, tmp_path: Path) -> None:
    await started(machine, at(machine.volume(0), tmp_path / "models"))
    within = at(machine.volume(1, {"model.txt": b"the second"}), tmp_path / "models" / "more" / "here")
    await machine.runtime.apply(machine.spec("r2", volumes=(within,)), 1)
    failed = await one(machine.runtime, lambda r: r.revision_id == "r2" and r.reason == "FailedMount")
    assert "lies in another volume" in (failed.message or "")
    assert not (tmp_path / "models" / "more" / "here").exists()


@pytest.mark.usefixtures("views")
async def test_paths_that_meet_through_a_link_are_refused(machine: ProcessWorld, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    paths = [tmp_path / "real" / "models", tmp_path / "alias" / "models" / "more"]
    await machine.runtime.apply(machine.spec(volumes=tuple(at(machine.volume(), path) for path in paths)), 1)
    failed = await one(machine.runtime, lambda r: r.reason == "FailedMount")
    assert f"at or below {paths[0]}: mount them beside each other" in (failed.message or "")
