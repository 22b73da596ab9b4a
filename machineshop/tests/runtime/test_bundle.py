"""Bundles from a registry: kept once they are sound, and refused for good when they are not."""

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from machineshop.runtime import bundle
from machineshop.runtime.base import Bundle, RevisionSpec
from machineshop.runtime.bundle import Bundles
from machineshop.runtime.engine import PreparationFailed
from runtime.harness import Registry


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
        (b'{"version": 1}', "`command` is empty"),
        (b'{"version": 1, "command": []}', "`command` is empty"),
        (b'{"version": 1, "command": ["", "x"]}', "`command` is empty"),
        (b'{"version": 1, "command": ["x", "a\\u0000b"]}', "`command` holds a NUL"),
        (b'{"version": 1, "command": ["x"], "environment": {"A=B": ""}}', "a variable 'A=B'"),
        (b'{"version": 1, "command": ["x"], "environment": {"": ""}}', "a variable ''"),
        (b'{"version": 1, "command": ["x"], "environment": {"A\\u0000": ""}}', "a variable 'A"),
        (b'{"version": 1, "command": ["x"], "environment": {"A": "\\u0000"}}', "NUL character in 'A'"),
        (b'{"version": 1, "command": ["x"], "python_version": "3.11\\u0000"}', "python_version"),
        (b'{"version": 1, "command": ["x"], "python_version": "--help"}', "python_version"),
    ],
)
async def test_a_configuration_that_makes_no_sense_is_said(tmp_path: Path, config: bytes, complaint: str) -> None:
    registry = Registry()
    image = registry.add_raw(config, b"")
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


class CountingRegistry(Registry):
    """Counts the layers of which anything was read."""

    def __init__(self) -> None:
        super().__init__()
        self.layers_read = 0

    async def open_bundle(self, project_id: str, image: str) -> Bundle:
        opened = await super().open_bundle(project_id, image)

        async def counted() -> AsyncIterator[bytes]:
            self.layers_read += 1
            async for chunk in opened.layer:
                yield chunk

        return msgspec.structs.replace(opened, layer=counted())


async def test_what_was_unsound_once_is_not_fetched_again(tmp_path: Path) -> None:
    registry = CountingRegistry()
    image = registry.add({"../worker.py": "print()"}, "python")
    bundles = Bundles(tmp_path, registry)
    for _ in range(3):
        with pytest.raises(PreparationFailed, match=r"not a sound bundle: the path '\.\./worker\.py' does not stay"):
            await bundles.fetch(spec(image))
    assert registry.layers_read == 1
    assert os.listdir(tmp_path) == []  # noqa: PTH208
    # One that is only gone for a while may come back.
    (config, layer) = registry.bundles[registry.add({"worker.py": "print()"}, "python")]
    fine = registry.add_raw(config, layer)
    del registry.bundles[fine]
    with pytest.raises(PreparationFailed, match="no artifact"):
        await bundles.fetch(spec(fine))
    registry.add_raw(config, layer)
    await bundles.fetch(spec(fine))
