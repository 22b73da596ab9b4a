"""Unpacking archives from people who may mean no good."""

import gzip
import io
import os
import tarfile
import time
from pathlib import Path

import pytest

from machineshop.runtime import bundle
from machineshop.runtime.base import RevisionSpec
from machineshop.runtime.bundle import Bundles, UnsafeArchive, unpack
from machineshop.runtime.engine import PreparationFailed
from runtime.harness import Registry

Entry = tuple[tarfile.TarInfo, bytes]


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, *, to: str = "", text: str = "", mode: int = 0o644
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, to, mode, len(text)
    return info, text.encode()


def archive(*entries: Entry) -> io.BytesIO:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    file.seek(0)
    return file


def test_files_folders_and_links_inside_are_unpacked(tmp_path: Path) -> None:
    target = tmp_path / "source"
    entries = [
        entry("./src", tarfile.DIRTYPE),
        entry("src/worker.py", text="print()"),
        entry("run.sh", text="#!/bin/sh", mode=0o4777),
        entry("src/link", tarfile.SYMTYPE, to="../run.sh"),
        entry("deep/er/file", text="x"),
    ]
    unpack(archive(*entries), target)
    assert (target / "src/worker.py").read_text() == "print()"
    assert (target / "src/link").read_text() == "#!/bin/sh"
    assert (target / "deep/er/file").read_text() == "x"
    assert (target / "run.sh").stat().st_mode & 0o7777 == 0o755
    assert (target / "src/worker.py").stat().st_mode & 0o7777 == 0o644


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ([entry("/etc/passwd", text="x")], "does not stay inside"),
        ([entry("../x", text="x")], "does not stay inside"),
        ([entry("a/../../x", text="x")], "does not stay inside"),
        ([entry("n" * 2000, text="x")], "does not stay inside"),
        ([entry("link", tarfile.SYMTYPE, to="/etc/passwd")], "points outside"),
        ([entry("link", tarfile.SYMTYPE, to="..")], "points outside"),
        ([entry("a/link", tarfile.SYMTYPE, to="../../x")], "points outside"),
        ([entry("d/e", tarfile.DIRTYPE), entry("l", tarfile.SYMTYPE, to="d/e/../../..")], "points outside"),
        ([entry("d", tarfile.SYMTYPE, to="."), entry("d/x", text="x")], "not a folder"),
        ([entry("f", text="x"), entry("f/x", text="x")], "not a folder"),
        ([entry("f", text="x"), entry("./f", text="y")], "twice"),
        ([entry("d", tarfile.DIRTYPE), entry("d", tarfile.SYMTYPE, to="x")], "twice"),
        ([entry("hard", tarfile.LNKTYPE, to="/etc/passwd")], "neither a file nor a folder"),
        ([entry("null", tarfile.CHRTYPE)], "neither a file nor a folder"),
        ([entry("pipe", tarfile.FIFOTYPE)], "neither a file nor a folder"),
    ],
)
def test_what_reaches_outside_or_is_no_file_is_refused(tmp_path: Path, entries: list[Entry], complaint: str) -> None:
    with pytest.raises(UnsafeArchive, match=complaint):
        unpack(archive(*entries), tmp_path / "source")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_link_behind_a_link_cannot_climb_out(tmp_path: Path) -> None:
    entries = [
        entry("a/b/c/file", text="x"),
        entry("l", tarfile.SYMTYPE, to="a/b"),
        entry("m", tarfile.SYMTYPE, to="l/c"),
    ]
    unpack(archive(*entries), tmp_path / "source")
    assert (tmp_path / "source/m/file").read_text() == "x"
    with pytest.raises(UnsafeArchive, match="points outside"):
        unpack(archive(*entries, entry("n", tarfile.SYMTYPE, to="m/../../..")), tmp_path / "again")


def test_too_many_or_too_large_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MOST_FILES", 3)
    monkeypatch.setattr(bundle, "LARGEST_SOURCE_BYTES", 10 * 1024)
    with pytest.raises(UnsafeArchive, match="more than 3 entries"):
        unpack(archive(*[entry(f"f{n}") for n in range(4)]), tmp_path / "many")
    with pytest.raises(UnsafeArchive, match="unpacks to more than"):
        unpack(archive(entry("zeros", text="0" * 20_000)), tmp_path / "large")
    assert not (tmp_path / "large/zeros").exists()


@pytest.mark.parametrize(
    "broken",
    [b"", b"no archive", archive(entry("f", text="x" * 5000)).getvalue()[:60], gzip.compress(b"neither" * 200)],
    ids=["empty", "text", "cut off", "not a tar"],
)
def test_a_broken_archive_is_refused(tmp_path: Path, broken: bytes) -> None:
    with pytest.raises(UnsafeArchive, match="broken"):
        unpack(io.BytesIO(broken), tmp_path / "source")


def spec(image: str) -> RevisionSpec:
    return RevisionSpec(deployment_id="d", deployment_name="n", project_id="p", revision_id="r", image=image)


async def test_a_bundle_is_unpacked_once_but_the_registry_is_asked_each_time(tmp_path: Path) -> None:
    registry = Registry()
    image = registry.add({"worker.py": "print()"}, "python", "worker.py")
    bundles = Bundles(tmp_path / "bundles", registry)
    first = await bundles.fetch(spec(image))
    (first.source / "mark").touch()
    again = await bundles.fetch(spec(image))
    assert again.config.command == ("python", "worker.py")
    assert (again.source / "mark").exists()
    assert registry.opened == 2
    assert os.listdir(tmp_path / "bundles") == [image.partition("sha256:")[2]]  # noqa: PTH208


async def test_bundles_that_nothing_starts_from_any_more_are_removed(tmp_path: Path) -> None:
    registry = Registry()
    bundles = Bundles(tmp_path, registry)
    source = (await bundles.fetch(spec(registry.add({"worker.py": "print()"}, "python")))).source
    (tmp_path / "new-half").mkdir()
    bundles.prune(time.time())
    assert os.listdir(tmp_path) == [source.name]  # noqa: PTH208
    bundles.prune(time.time() + 8 * 86_400)
    assert os.listdir(tmp_path) == []  # noqa: PTH208


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (b"{}", "version"),
        (b"nonsense", "malformed"),
        (b'{"version": 2}', "version"),
        (b'{"version": 1, "command": "x"}', "command"),
    ],
)
async def test_a_configuration_that_makes_no_sense_is_said(tmp_path: Path, config: bytes, complaint: str) -> None:
    registry = Registry()
    image = registry.add_raw(config, archive().getvalue())
    with pytest.raises(PreparationFailed, match=complaint) as caught:
        await Bundles(tmp_path, registry).fetch(spec(image))
    assert caught.value.reason == "ErrImagePull"


async def test_a_layer_larger_than_allowed_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "LARGEST_LAYER_BYTES", 100)
    registry = Registry()
    image = registry.add({"worker.py": "".join(map(str, range(5000)))}, "python")
    with pytest.raises(PreparationFailed, match="layer is larger"):
        await Bundles(tmp_path, registry).fetch(spec(image))
    assert os.listdir(tmp_path) == []  # noqa: PTH208
