"""Which runtime this server has, and putting it together.

Place in the flow: the composition root asks before it builds anything else, since what the platform accepts, and where
it listens, depend on whether a container engine answers.
"""

import asyncio
import ipaddress
import logging
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from machineshop.errors import RuntimeUnavailable
from machineshop.runtime.base import ArtifactKind, BundleSource, ImageSource, ReplicaWatcher, VolumeSource
from machineshop.runtime.docker.api import EngineApi, EngineError, answers, endpoint_here
from machineshop.runtime.docker.body import PLATFORM_HOST
from machineshop.runtime.docker.engine import DockerEngine
from machineshop.runtime.docker.instance import has_had_containers
from machineshop.runtime.docker.networks import gateway_of
from machineshop.runtime.either import EitherEngine
from machineshop.runtime.engine import Engine
from machineshop.runtime.local import LocalRuntime
from machineshop.runtime.process import VOLUMES, ProcessEngine
from machineshop.runtime.volumes.cache import VolumeCache

BRIDGE = "bridge"
"""The network that Docker has from the beginning; a container's `host-gateway` is its gateway. Podman's containers have
that of their own network, which is not there before they are."""
LOOPBACK_NAMES = ("localhost", "")
PATIENCE_SECONDS = 30.0
"""An engine that starts with the machine takes seconds; one that hangs for longer is not about to come."""
RETRY_SECONDS = 0.5

logger = logging.getLogger(__name__)


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What runs replicas here."""

    processes: bool = True
    endpoint: str | None = None
    """Of the container engine; None: there are no containers."""
    gateway: str | None = None
    """This machine's address as containers know it, where the engine says it."""

    @property
    def accepts(self) -> frozenset[ArtifactKind]:
        """What can be deployed."""
        kinds = {ArtifactKind.BUNDLE: self.processes, ArtifactKind.IMAGE: self.endpoint is not None}
        return frozenset(kind for kind, runs in kinds.items() if runs)


async def choose(asked: str, data_dir: Path, patience_seconds: float = PATIENCE_SECONDS) -> Choice:
    """The runtime that was asked for; `auto` has containers where an engine answers, and processes for bundles.

    Where there have been containers, they are not forgotten because their engine hangs or is not up yet: it is waited
    for, and without it only `process` goes on.

    Args:
        asked: auto, process or docker.
        data_dir: The runtime's folder.
        patience_seconds: How long such an engine is waited for.

    Raises:
        RuntimeUnavailable: Containers were asked for, or have been here, and no engine answers.
    """
    has_had = has_had_containers(data_dir)
    if asked == "process":
        if has_had and any((data_dir / "containers").glob("*/replica.json")):
            logger.warning("containers are left alone, running ones too: the next start with an engine sees to them")
        return Choice()
    endpoint = endpoint_here()
    if await answers(endpoint) or (has_had and await _comes(endpoint, patience_seconds)):
        return Choice(processes=asked == "auto", endpoint=endpoint, gateway=await _gateway(endpoint))
    if has_had:
        raise RuntimeUnavailable(
            message=f"No container engine answers at {endpoint}, and this data directory has had containers. Start it, "
            "set DOCKER_HOST, or use --runtime process, which needs none: it runs bundles only, and leaves containers "
            "as they are."
        )
    if asked == "docker":
        raise RuntimeUnavailable(
            message=f"No container engine answers at {endpoint}. Start it, set DOCKER_HOST, or use --runtime process, "
            "which needs none."
        )
    return Choice()


def build(
    choice: Choice,
    data_dir: Path,
    *,
    bundles: BundleSource,
    images: ImageSource,
    volumes: VolumeSource,
    watcher: ReplicaWatcher,
    platform_url: Callable[[], str],
    container_url: Callable[[], str],
    ca_bundle: Path | None = None,
    volume_cache_bytes: int | None = None,
) -> LocalRuntime:
    """The runtime.

    Args:
        choice: What it is made of.
        data_dir: Its folder.
        bundles: Where bundles come from.
        images: Who knows the platform's own images.
        volumes: Where the files of volumes come from.
        watcher: What the platform does around the life of a replica.
        platform_url: Asked at each start for the address at which processes reach the platform.
        container_url: The same for containers.
        ca_bundle: A file of the authorities that replicas trust; None: as their images do.
        volume_cache_bytes: What copies of volumes may take here; None: half of the disk.
    """
    engines: list[Engine] = []
    if choice.processes:
        engines.append(ProcessEngine(data_dir, bundles, platform_url, ca_bundle))
    if choice.endpoint is not None:
        engines.append(
            DockerEngine(data_dir, choice.endpoint, images=images, platform_url=container_url, ca_bundle=ca_bundle)
        )
    engine = engines[0] if len(engines) == 1 else EitherEngine(engines, "docker")
    return LocalRuntime(engine, watcher, VolumeCache(data_dir / VOLUMES, volumes, volume_cache_bytes))


def url_in_containers(base_url: str, server_url: str) -> str:
    """Where containers reach the platform: as everybody does, unless that is this machine's loopback.

    Args:
        base_url: Where clients reach it.
        server_url: Where the server itself listens.
    """
    host = urlsplit(base_url).hostname or ""
    if not is_loopback(host):
        return base_url
    own = urlsplit(server_url)
    return f"{own.scheme}://{PLATFORM_HOST}:{own.port}"


def is_loopback(host: str) -> bool:
    """Whether this name or address means whatever machine asks."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host in LOOPBACK_NAMES
    return address.is_loopback or address.is_unspecified


async def _comes(endpoint: str, within_seconds: float) -> bool:
    """Whether an engine answers at last."""
    logger.warning(
        "no container engine answers at %s, and this data directory has had containers: the start waits for it, for "
        "%.0f s at most",
        endpoint,
        within_seconds,
    )
    try:
        async with asyncio.timeout(within_seconds):
            while True:
                if await answers(endpoint):
                    return True
                await asyncio.sleep(RETRY_SECONDS)
    except TimeoutError:
        return False


async def _gateway(endpoint: str) -> str | None:
    api = EngineApi(endpoint)
    try:
        if await api.is_podman():
            return None
        network = await api.get(f"/networks/{BRIDGE}")
        pools = (network.get("IPAM") or {}).get("Config") or ()
        return next((address for pool in pools if (address := gateway_of(pool)) is not None), None)
    except (EngineError, OSError):
        return None
    finally:
        await api.close()
