"""Garbage collection against a model of it: random pushes, deletes, looks, pauses and passes.

After each step all that a tag needs, and all that somebody has counted on within the grace period, must be there; at
the end, nothing else.
"""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from factory import Clock
from machineshop.models import Identity
from machineshop.services.garbage import GRACE_SECONDS, GarbageCollector
from machineshop.services.registry_errors import BlobUnknown, ManifestBlobUnknown, ManifestUnknown
from pusher import OCI_IMAGE, OCI_INDEX, descriptor, digest_of, image_manifest
from storage_server import StorageServer

BLOBS = [b"{}", b"one"]
TAGS = ["v1", "v2"]
NAME = "team/app"
blob = st.sampled_from(BLOBS)
tag = st.one_of(st.none(), st.sampled_from(TAGS))


class GarbageMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="garbage-model-"))
        self.clock = Clock()
        self.runner = asyncio.Runner()
        self.server = StorageServer(self.folder, self.clock, 0)
        self.server.database.start()
        self.registry = self.server.registry
        self.collector = GarbageCollector(self.server.database, self.server.storage.blobs, self.clock)
        identity: Identity = self.run(self.server.identity.authenticate(self.run(self.server.key("team"))))
        self.team = identity.organization
        self.repository = self.run(self.registry.ensure_repository(self.team, NAME))
        # The model: what each manifest needs and is about, what tags say, and when each thing was counted on last.
        self.needs: dict[str, set[str]] = {}
        self.subjects: dict[str, str | None] = {}
        self.contents: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.used_at: dict[str, float] = {}

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.everything_unneeded_goes_in_the_end()
        self.server.storage.close()
        self.server.database.close()
        self.runner.close()
        shutil.rmtree(self.folder)

    @rule(content=blob)
    def push_blob(self, content: bytes) -> None:
        async def parts() -> AsyncIterator[bytes]:
            yield content

        self.run(self.registry.uploads.push(self.repository, digest_of(content), parts()))
        self.used_at[digest_of(content)] = self.clock.now

    @rule(content=blob)
    def ask_for_a_blob(self, content: bytes) -> None:
        if self.has_blob(digest_of(content)):
            self.used_at[digest_of(content)] = self.clock.now

    @rule(layers=st.lists(blob, max_size=1), tag=tag)
    def push_image(self, layers: list[bytes], tag: str | None) -> None:
        self.put(image_manifest(b"{}", *layers), OCI_IMAGE, {digest_of(each) for each in [b"{}", *layers]}, tag, None)

    @rule(data=st.data(), tag=tag)
    def push_index(self, data: st.DataObject, tag: str | None) -> None:
        if self.contents:
            children = data.draw(st.lists(st.sampled_from(sorted(self.contents)), max_size=2, unique=True))
            described = [descriptor(self.contents[each], OCI_IMAGE) for each in children]
            index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": described}
            self.put(index, OCI_INDEX, set(children), tag, None)

    @rule(data=st.data(), layer=blob, tag=tag)
    def sign(self, data: st.DataObject, layer: bytes, tag: str | None) -> None:
        if self.contents:
            subject = data.draw(st.sampled_from(sorted(self.contents)))
            about = image_manifest(b"{}", layer, subject=descriptor(self.contents[subject], OCI_IMAGE))
            self.put(about, OCI_IMAGE, {digest_of(b"{}"), digest_of(layer)}, tag, subject)

    @rule(tag=st.sampled_from(TAGS))
    def delete_tag(self, tag: str) -> None:
        if self.tags.pop(tag, None) is not None:
            self.run(self.registry.delete_manifest(self.team, NAME, tag))

    @rule(data=st.data())
    def ask_for_a_manifest(self, data: st.DataObject) -> None:
        if self.contents:
            digest = data.draw(st.sampled_from(sorted(self.contents)))
            if self.has_manifest(digest):
                self.used_at[digest] = self.clock.now

    @rule(grace_periods=st.sampled_from([0.6, 0.9]))
    def time_passes_between_two_passes(self, grace_periods: float) -> None:
        self.run(self.collector.run_once(self.clock.now))
        self.clock.now += grace_periods * GRACE_SECONDS
        self.run(self.collector.run_once(self.clock.now))

    @invariant()
    def what_is_needed_is_there(self) -> None:
        # By the rows, since asking for something is to count on it.
        manifests, blobs = self.present()
        counted_on = {each for each, at in self.used_at.items() if self.clock.now - at < GRACE_SECONDS}
        needed = self.closure(set(self.tags.values())) | counted_on
        assert needed <= manifests | blobs

    def everything_unneeded_goes_in_the_end(self) -> None:
        for _ in range(20):  # more steps than anything here hangs on anything else
            self.clock.now += GRACE_SECONDS
            self.run(self.collector.run_once(self.clock.now))
        manifests, blobs = self.present()
        assert manifests | blobs == self.closure(set(self.tags.values()))
        kept = {path.name.partition("-")[0] for path in self.server.left_on_disk("blobs")}
        assert kept == {each.removeprefix("sha256:") for each in blobs}

    def put(
        self, manifest: dict[str, Any], media_type: str, needs: set[str], tag: str | None, subject: str | None
    ) -> None:
        content = msgspec.json.encode(manifest)
        digest = digest_of(content)
        manifests, blobs = self.present()
        try:
            self.run(self.registry.put_manifest(self.team, NAME, tag or digest, content, media_type))
        except ManifestBlobUnknown:
            assert not needs <= manifests | blobs
            return
        assert needs <= manifests | blobs
        self.needs[digest], self.subjects[digest], self.contents[digest] = needs, subject, content
        self.used_at |= dict.fromkeys({digest, *needs}, self.clock.now)
        if tag is not None:
            self.tags[tag] = digest

    def closure(self, roots: set[str]) -> set[str]:
        """What these keep."""
        found, todo = set(), list(roots)
        manifests, _ = self.present()
        while todo:
            digest = todo.pop()
            if digest not in found:
                found.add(digest)
                todo += self.needs.get(digest, ())
                todo += [each for each, subject in self.subjects.items() if subject == digest and each in manifests]
        return found

    def present(self) -> tuple[set[str], set[str]]:
        def look(conn: Any) -> tuple[set[str], set[str]]:
            manifests = conn.exec_driver_sql("SELECT digest FROM manifests").scalars()
            blobs = conn.exec_driver_sql("SELECT digest FROM repository_blobs").scalars()
            return set(manifests), set(blobs)

        return self.server.database.read_now(look)

    def has_blob(self, digest: str) -> bool:
        try:
            self.run(self.registry.blob_size(self.team, NAME, digest))
        except BlobUnknown:
            return False
        return True

    def has_manifest(self, digest: str) -> bool:
        try:
            self.run(self.registry.manifest(self.team, NAME, digest))
        except ManifestUnknown:
            return False
        return True


@pytest.mark.timeout(300)
def test_garbage_collection_keeps_what_is_needed_and_nothing_else() -> None:
    run_state_machine_as_test(GarbageMachine, settings=settings(max_examples=40, stateful_step_count=20, deadline=None))
