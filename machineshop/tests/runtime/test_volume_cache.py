"""The volumes on a machine: how they come, what of them stays, and how the making of one fails."""

import asyncio
import os
import random
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from machineshop.runtime.base import VolumeVersion
from machineshop.runtime.engine import PreparationFailed
from machineshop.runtime.volumes.cache import VolumeCache
from machineshop.runtime.volumes.trees import TreeKey
from runtime.harness import eventually
from runtime.shelf import Shelf, file_of

MIB = 1024**2
FILES = {"config.json": b"{}", "parts/1.bin": b"one" * 1000, "parts/deep/er/2.bin": b"two" * 1000}


class Machine:
    """A cache, and what replicas have mounted of it."""

    def __init__(self, folder: Path, shelf: Shelf, limit_bytes: int | None = None) -> None:
        self.folder, self.shelf = folder, shelf
        self.cache = VolumeCache(folder, shelf, limit_bytes)
        self.in_use: frozenset[TreeKey] = frozenset()

    async def start(self) -> None:
        await self.cache.start(lambda: self.in_use)

    async def make(self, volume: VolumeVersion) -> Path:
        return await self.cache.make("project-1", volume)

    async def fails(self, volume: VolumeVersion) -> str:
        with pytest.raises(PreparationFailed) as failed:
            await self.make(volume)
        assert failed.value.reason == "FailedMount"
        return failed.value.message

    def use(self, *volumes: VolumeVersion) -> None:
        self.in_use = frozenset(TreeKey("project-1", volume.volume_id, volume.version) for volume in volumes)

    def here(self) -> list[str]:
        return sorted(folder.name for folder in (self.folder / "trees").iterdir())

    def copied_bytes(self) -> int:
        return sum(path.stat().st_size for path in (self.folder / "copies").rglob("*") if path.is_file())


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    made = Machine(tmp_path / "volumes", Shelf(), 10 * MIB)
    await made.start()
    yield made
    await made.cache.close()


def read(tree: Path) -> dict[str, bytes]:
    return {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


def names_below(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


def big(seed: int, mib: int = 4) -> dict[str, bytes]:
    return {"weights.bin": random.Random(seed).randbytes(mib * MIB)}


async def test_a_version_is_here_as_it_was_uploaded_and_nothing_in_it_is_writable(machine: Machine) -> None:
    tree = await machine.make(machine.shelf.put({**FILES, "empty": b"", "ünïcode 名.txt": b"x"}))
    assert read(tree) == {**FILES, "empty": b"", "ünïcode 名.txt": b"x"}
    assert {path.stat().st_mode & 0o777 for path in tree.rglob("*") if path.is_file()} == {0o444}
    assert {path.stat().st_mode & 0o777 for path in [tree, *tree.rglob("*")] if path.is_dir()} == {0o555}


async def test_a_version_without_files_is_an_empty_folder(machine: Machine) -> None:
    assert read(await machine.make(machine.shelf.put({}))) == {}


async def test_many_ask_and_it_comes_once(machine: Machine) -> None:
    volume = machine.shelf.put(FILES)
    trees = await asyncio.gather(*(machine.make(volume) for _ in range(10)))
    assert len(set(trees)) == 1
    assert sorted(machine.shelf.opened) == sorted(FILES)
    await machine.make(volume)
    assert len(machine.shelf.opened) == len(FILES)


async def test_several_files_come_at_once(machine: Machine) -> None:
    await machine.make(machine.shelf.put({f"{number}": bytes([number]) for number in range(40)}))
    assert 1 < machine.shelf.most_at_once <= 16


async def test_files_that_versions_have_in_common_come_and_lie_here_once(machine: Machine) -> None:
    content = big(1)["weights.bin"]
    first = await machine.make(machine.shelf.put({"a.bin": content, "again/a.bin": content}))
    second = await machine.make(machine.shelf.put({"b.bin": content, "new": b"new"}, version=1))
    assert len(machine.shelf.opened) == 2
    assert (first / "a.bin").stat().st_ino == (first / "again/a.bin").stat().st_ino == (second / "b.bin").stat().st_ino
    assert machine.copied_bytes() == len(content) + 3


async def test_what_the_storage_has_on_the_same_disk_is_linked_and_takes_nothing(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "blobs")
    machine = Machine(tmp_path / "volumes", shelf, limit_bytes=0)
    await machine.start()
    tree = await machine.make(shelf.put({**FILES, **big(1, 8)}))
    assert read(tree) == {**FILES, **big(1, 8)}
    assert (tree / "weights.bin").stat().st_ino in {path.stat().st_ino for path in (tmp_path / "blobs").rglob("*")}
    assert (machine.copied_bytes(), shelf.opened) == (0, [])
    await machine.cache.close()


async def test_thousands_of_small_files_are_quick(tmp_path: Path) -> None:
    files = {f"{number % 100}/{number}.json": b"%d" % number for number in range(5_000)}
    for shelf, kind in ((Shelf(tmp_path / "blobs"), "linked"), (Shelf(), "copied")):
        machine = Machine(tmp_path / kind, shelf)
        await machine.start()
        volume = shelf.put(files)
        began = time.process_time()
        tree = await machine.make(volume)
        assert time.process_time() - began < 30, "a millisecond of work for each, where they are copied"
        assert sum(1 for path in tree.rglob("*.json")) == len(files)
        await machine.cache.close()


async def test_what_was_not_used_for_the_longest_time_makes_room(machine: Machine) -> None:
    first, second, third = (machine.shelf.put(big(number), version=number) for number in range(3))
    await machine.make(first)
    await machine.make(second)
    await asyncio.to_thread(os.utime, machine.folder / "trees/project-1.volume-1.1/ready.json", (1, 1))
    await machine.make(third)
    assert machine.here() == ["project-1.volume-1.0", "project-1.volume-1.2"]
    assert machine.copied_bytes() == 8 * MIB
    assert read(await machine.make(second)) == big(1)


async def test_what_replicas_have_mounted_stays_and_the_rest_is_told_why_it_has_no_room(machine: Machine) -> None:
    mounted = [machine.shelf.put(big(number), version=number) for number in range(2)]
    for volume in mounted:
        await machine.make(volume)
    machine.use(*mounted)
    said = await machine.fails(machine.shelf.put(big(2, 6), version=2))
    assert said.startswith("Version 2 of volume 'weights' cannot be mounted: It needs 0.00586 GiB. Volumes may take")
    assert "those in use take 0.00781 GiB" in said
    assert "--volume-cache-gib" in said
    machine.use(mounted[0])
    assert read(await machine.make(VolumeVersion(volume_id="volume-1", name="weights", version=2))) == big(2, 6)
    assert machine.here() == ["project-1.volume-1.0", "project-1.volume-1.2"]


async def test_volumes_that_come_at_once_do_not_take_the_same_room(machine: Machine) -> None:
    volumes = [machine.shelf.put(big(number, 6), version=number) for number in range(2)]
    machine.use(*volumes)
    made = await asyncio.gather(*(machine.make(volume) for volume in volumes), return_exceptions=True)
    assert sorted(type(each).__name__ for each in made) == ["PosixPath", "PreparationFailed"]


async def test_bytes_that_differ_are_refused_and_may_come_again(machine: Machine) -> None:
    volume = machine.shelf.put(FILES)
    (key,) = (file.blob_key for file in machine.shelf.versions["volume-1", 0] if file.path == "parts/1.bin")
    for wrong, said in (
        (b"six" * 1000, "its digest is"),
        (b"o", "it has 1 of its 3000 bytes"),
        (b"one" * 1001, "it has more than its 3000 bytes"),
    ):
        machine.shelf.contents[key] = wrong
        message = await machine.fails(volume)
        assert "Its file 'parts/1.bin' did not arrive as it was uploaded" in message
        assert said in message
    machine.shelf.contents[key] = FILES["parts/1.bin"]
    assert read(await machine.make(volume)) == FILES
    assert list((machine.folder / "new").iterdir()) == []


async def test_bytes_that_are_gone_are_said(machine: Machine) -> None:
    volume = machine.shelf.put(FILES)
    machine.shelf.contents.clear()
    assert "are gone" in await machine.fails(volume)
    assert "There is no version 7" in await machine.fails(VolumeVersion(volume_id="volume-1", name="w", version=7))


async def test_a_storage_that_falls_silent_is_given_up(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machineshop.runtime.volumes.fetch.SILENCE_SECONDS", 0.05)
    machine.shelf.gate.clear()
    assert "came for 0.05 s" in await machine.fails(machine.shelf.put(big(1)))


async def test_another_projects_volume_is_not_there(machine: Machine) -> None:
    volume = machine.shelf.put(FILES)
    await machine.make(volume)
    with pytest.raises(PreparationFailed, match="There is no version"):
        await machine.cache.make("project-2", volume)


@pytest.mark.parametrize(
    "path",
    ["../x", "/etc/x", "a/../../x", "a//x", "a/./x", "", ".", "a/", "a\0b", "x" * 256, "d/" * 1600 + "x", "\udc80"],
    ids=lambda path: repr(path[:9]),
)
async def test_a_path_that_leaves_the_tree_is_refused(machine: Machine, path: str, tmp_path: Path) -> None:
    volume = machine.shelf.put({"fine": b""})
    machine.shelf.versions["volume-1", 0].append(file_of(path, b""))
    assert "cannot be made here" in await machine.fails(volume)
    assert "x" not in names_below(tmp_path)


async def test_a_file_that_is_a_folder_or_there_twice_is_refused(machine: Machine) -> None:
    volume = machine.shelf.put({"a/b": b"", "a": b""})
    assert "'a', which cannot be made here: it is a folder of others, too" in await machine.fails(volume)
    machine.shelf.versions["volume-1", 0] = [file_of("a", b""), file_of("a", b"")]
    assert "it is there twice" in await machine.fails(volume)


async def test_a_deleted_version_leaves_the_machine_once_no_replica_has_it(machine: Machine) -> None:
    volume = machine.shelf.put(FILES)
    await machine.make(volume)
    machine.use(volume)
    machine.shelf.versions.clear()
    await machine.cache.sweep()
    assert read(await machine.make(volume)) == FILES
    machine.use()
    await machine.cache.sweep()
    assert (machine.here(), machine.copied_bytes()) == ([], 0)


async def test_a_deletion_that_is_told_of_frees_the_disk_at_once_or_after_the_last_replica(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machineshop.runtime.volumes.cache.SWEEP_AGAIN_SECONDS", 0.01)
    mounted, idle, other = (machine.shelf.put(FILES, volume_id=f"volume-{number}") for number in range(3))
    for volume in (mounted, idle, other):
        await machine.make(volume)
    machine.use(mounted)
    for volume in (mounted, idle):
        del machine.shelf.versions[volume.volume_id, 0]
    machine.cache.drop_deleted()

    async def only_the_mounted_one_and_the_other() -> bool:
        return machine.here() == ["project-1.volume-0.0", "project-1.volume-2.0"]

    await eventually(only_the_mounted_one_and_the_other)
    machine.use()

    async def only_the_other() -> bool:
        return machine.here() == ["project-1.volume-2.0"]

    await eventually(only_the_other)


PRELOAD = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from machineshop.runtime.volumes.cache import VolumeCache
from runtime.shelf import Shelf
async def main():
    shelf = Shelf()
    shelf.let_through = 12
    volume = shelf.put({f"{n}.bin": bytes([n]) * 1_000_000 for n in range(30)})
    cache = VolumeCache(Path(sys.argv[1]), shelf)
    await cache.start(frozenset)
    await cache.make("project-1", volume)
asyncio.run(main())
"""


async def test_a_preload_that_a_kill_interrupted_goes_on_with_the_next_server(machine: Machine) -> None:
    tests = str(Path(__file__).parents[1])
    arguments = [sys.executable, "-c", PRELOAD, str(machine.folder), tests]
    interrupted = await asyncio.create_subprocess_exec(*arguments)

    async def some_are_here() -> bool:
        return machine.copied_bytes() >= 12_000_000

    await eventually(some_are_here)
    interrupted.kill()
    await interrupted.wait()
    assert not (machine.folder / "trees/project-1.volume-1.0/ready.json").exists()
    content = {f"{number}.bin": bytes([number]) * 1_000_000 for number in range(30)}
    successor = Machine(machine.folder, Shelf())
    successor.use(VolumeVersion(volume_id="volume-1", name="weights", version=0))
    await successor.start()
    assert read(await successor.make(successor.shelf.put(content))) == content
    assert len(successor.shelf.opened) == 18
    assert list((machine.folder / "new").iterdir()) == []
    await successor.cache.close()


async def test_a_server_that_ends_does_not_wait_for_a_tree_that_it_removes(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"folder{number}/file{other}": b"x" for number in range(100) for other in range(10)}
    await machine.make(machine.shelf.put(files))
    machine.shelf.versions.clear()
    half, unlink, removed = threading.Event(), Path.unlink, list[Path]()

    def noted(self: Path, missing_ok: bool = False) -> None:
        unlink(self, missing_ok=missing_ok)
        removed.append(self)
        if len(removed) == 500:
            half.set()
            assert machine.cache._trees.stopping.wait(60)

    monkeypatch.setattr(Path, "unlink", noted)
    sweep = asyncio.create_task(machine.cache.sweep())
    assert await asyncio.to_thread(half.wait, 60)
    await machine.cache.close()
    await asyncio.gather(sweep, return_exceptions=True)
    assert len(removed) == 500
    monkeypatch.undo()

    again = Machine(machine.folder, Shelf())
    (key,) = again.cache._trees.known()
    assert again.cache._trees.made(key) is None, "what is left does not look complete"
    await again.start()

    async def nothing_is_left() -> bool:
        await again.cache.sweep()  # it leaves alone what the cache's own is removing
        return again.here() == []

    await eventually(nothing_is_left)
    await again.cache.close()


async def test_after_a_restart_of_the_machine_what_was_not_complete_is_brought_anew(machine: Machine) -> None:
    content = {f"{number}": b"%d" % number for number in range(40)}
    volume = machine.shelf.put(content)
    missing = machine.shelf.versions["volume-1", 0][-1].blob_key
    del machine.shelf.contents[missing]
    await machine.fails(volume)
    assert machine.copied_bytes() > 0
    (machine.folder / "boot-id").write_text("an earlier one")
    again = Machine(machine.folder, Shelf())
    await again.start()
    assert again.copied_bytes() == 0
    assert read(await again.make(again.shelf.put(content))) == content
    await again.cache.close()


@pytest.fixture
def few_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system on which a file has five names at most."""
    link = Path.hardlink_to

    def counted(self: Path, target: Path) -> None:
        if target.stat().st_nlink >= 5:
            raise OSError(31, "Too many links")
        link(self, target)

    monkeypatch.setattr(Path, "hardlink_to", counted)


@pytest.mark.usefixtures("few_names")
async def test_copies_are_a_bounded_number_of_names(machine: Machine) -> None:
    files = {f"package{number}/__init__.py": b"same" for number in range(20)}
    tree = await machine.make(machine.shelf.put(files))
    assert read(tree) == files
    taken = {path.stat().st_ino: path.stat().st_size for path in tree.rglob("*.py")}
    assert len(taken) == 5
    assert machine.cache._copies.used_bytes() == machine.copied_bytes() == sum(taken.values())
    machine.shelf.versions.clear()
    await machine.cache.sweep()
    assert machine.copied_bytes() == 0


@pytest.mark.usefixtures("few_names")
async def test_a_copy_that_few_names_ask_for_asks_for_room(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "volumes", Shelf(), 5 * MIB)
    await machine.start()
    same = big(1, 2)["weights.bin"]
    first = machine.shelf.put({f"{number}": same for number in range(4)})
    machine.use(first)
    await machine.make(first)
    second = machine.shelf.put({f"{number}": same for number in range(4)}, version=1)
    machine.use(first, second)
    await machine.make(second)
    assert (len(machine.shelf.opened), machine.copied_bytes()) == (2, 4 * MIB), "it has come once more"
    third = machine.shelf.put({f"{number}": same for number in range(4)}, version=2)
    assert "those in use take 0.00391 GiB" in await machine.fails(third)
    assert machine.copied_bytes() == 4 * MIB
    machine.use(second)
    tree = await machine.make(third)
    assert set(read(tree).values()) == {same}
    assert machine.copied_bytes() <= 5 * MIB
    await machine.cache.close()


async def test_a_full_disk_is_said_and_heals(small_disk: Path) -> None:
    machine = Machine(small_disk / "volumes", Shelf(), 100 * MIB)
    await machine.start()
    first, second = (machine.shelf.put(big(number, 5), version=number) for number in range(2))
    await machine.make(first)
    machine.use(first)
    assert "This machine's disk has 0.00" in await machine.fails(second)
    machine.use()
    assert read(await machine.make(second)) == big(1, 5)
    await machine.cache.close()


async def test_a_disk_that_others_fill_meanwhile_is_said(small_disk: Path) -> None:
    machine = Machine(small_disk / "volumes", Shelf(), 100 * MIB)
    await machine.start()
    volume = machine.shelf.put(big(1, 5))
    machine.shelf.gate.clear()
    making = asyncio.create_task(machine.make(volume))

    async def has_begun() -> bool:
        return bool(machine.shelf.opened)

    await eventually(has_begun)
    (small_disk / "others").write_bytes(bytes(5 * MIB))
    machine.shelf.gate.set()
    with pytest.raises(PreparationFailed, match=r"This machine's disk is full\. Make room on it\."):
        await making
    assert list((machine.folder / "new").iterdir()) == []
    (small_disk / "others").unlink()
    assert read(await machine.make(volume)) == big(1, 5)
    await machine.cache.close()
