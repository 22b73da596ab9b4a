"""A server that owns a process runtime, as a program of its own, so that a test can kill it.

Usage: server_process.py DATA_DIR IMAGE CONFIG LAYER VOLUMES [VARIABLES]. VOLUMES is a JSON list of what its replica
mounts, each with the files of the tests' shelf. It prints a line of JSON about the replica once that is ready. With
VARIABLES, a JSON object, it then rolls out a second revision that has these in its environment, and prints a second
line as soon as that crashes again and again.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import uvloop

from machineshop.runtime import replica as lives
from machineshop.runtime.base import Bundle, MountedVolume, Replica, RevisionSpec
from machineshop.runtime.process import ProcessRuntime

sys.path.insert(0, str(Path(__file__).parents[1]))
from runtime.shelf import FILES, Shelf

lives.FIRST_BACK_OFF_SECONDS = 0.25
PLATFORM_URL = "http://127.0.0.1:8799"


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

    async def reveal(self, spec: RevisionSpec) -> RevisionSpec:
        return spec

    def replica_leaving(self, replica_id: str) -> bool:
        return False

    async def replica_exited(self, replica_id: str, run: object = None) -> bool:
        return False


async def tell_of(runtime: ProcessRuntime, condition: Callable[[Replica], bool]) -> None:
    while not (found := [replica for replica in await runtime.observe() if condition(replica)]):
        await asyncio.sleep(0.01)
    (replica,) = found
    print(json.dumps({"id": replica.id, "port": replica.port, "ready_since": replica.ready_since}), flush=True)


async def main(
    data_dir: Path,
    image: str,
    bundle: OneBundle,
    volumes: tuple[MountedVolume, ...],
    variables: dict[str, str] | None,
) -> None:
    shelf = Shelf()
    for volume in volumes:
        shelf.put(FILES, volume.version, volume.volume_id)
    runtime = ProcessRuntime(
        data_dir, bundles=bundle, volumes=shelf, watcher=Silent(), platform_url=lambda: PLATFORM_URL
    )
    await runtime.start()
    spec = RevisionSpec(
        deployment_id="dep-1",
        deployment_name="hello",
        project_id="project-1",
        revision_id="r1",
        image=image,
        volumes=volumes,
    )
    await runtime.apply(spec, 1)
    await tell_of(runtime, lambda replica: replica.ready_since is not None)
    if variables is not None:
        await runtime.apply(msgspec.structs.replace(spec, revision_id="r2", environment=variables), 1)
        await tell_of(runtime, lambda replica: replica.reason == "CrashLoopBackOff")
    await asyncio.Event().wait()


if __name__ == "__main__":
    data_dir, image, config, layer, mounted, *variables = sys.argv[1:]
    volumes = msgspec.json.decode(mounted, type=tuple[MountedVolume, ...])
    bundle = OneBundle(Path(config).read_bytes(), Path(layer).read_bytes())
    uvloop.run(main(Path(data_dir), image, bundle, volumes, json.loads(variables[0]) if variables else None))
