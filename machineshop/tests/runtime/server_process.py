"""A server that owns a process runtime, as a program of its own, so that a test can kill it.

Usage: server_process.py DATA_DIR IMAGE CONFIG LAYER; prints a line of JSON about its replica once that is ready.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop

from machineshop.runtime.base import Bundle, RevisionSpec
from machineshop.runtime.process import ProcessRuntime


class OneBundle:
    def __init__(self, config: bytes, layer: bytes) -> None:
        self.config, self.layer = config, layer

    async def open_bundle(self, project_id: str, image: str) -> Bundle:
        async def chunks() -> AsyncIterator[bytes]:
            yield self.layer

        return Bundle(digest=image.partition("@")[2], config=self.config, layer=chunks())


class Silent:
    async def issue_key(self, spec: RevisionSpec, replica_id: str) -> str:
        return "key"

    async def replica_exited(self, replica_id: str) -> None:
        pass


async def main(data_dir: Path, image: str, config: bytes, layer: bytes) -> None:
    runtime = ProcessRuntime(
        data_dir, bundles=OneBundle(config, layer), watcher=Silent(), platform_url=lambda: "http://127.0.0.1:1"
    )
    await runtime.start()
    spec = RevisionSpec(
        deployment_id="dep-1", deployment_name="hello", project_id="project-1", revision_id="r1", image=image
    )
    await runtime.apply(spec, 1)
    while not any(replica.ready_since for replica in await runtime.observe()):
        await asyncio.sleep(0.01)
    (replica,) = await runtime.observe()
    print(json.dumps({"id": replica.id, "port": replica.port, "ready_since": replica.ready_since}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    data_dir, image, config, layer = sys.argv[1:]
    uvloop.run(main(Path(data_dir), image, Path(config).read_bytes(), Path(layer).read_bytes()))
