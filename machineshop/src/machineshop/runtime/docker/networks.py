"""A network for each project, there while it has containers: those of two projects cannot reach each other."""

import asyncio
import hashlib
import ipaddress
import logging

from machineshop.runtime.docker.api import EngineApi, EngineError
from machineshop.runtime.docker.body import HOST_GATEWAY, INSTANCE_LABEL, PROJECT_LABEL, Network

logger = logging.getLogger(__name__)


class Networks:
    """The networks that this server makes.

    Args:
        api: The engine.
        instance: Whose they are.
    """

    def __init__(self, api: EngineApi, instance: str) -> None:
        self._api, self._instance = api, instance
        self._members: dict[str, set[str]] = {}
        self._lock = asyncio.Lock()

    async def join(self, project_id: str, container: str) -> Network:
        """The project's network, which is there until this container, like all others, has left it.

        Raises:
            EngineError: The engine cannot make it.
        """
        name = self._name(project_id)
        async with self._lock:
            members = self._members.setdefault(project_id, set())
            if not members:
                await self._ensure(name, project_id)
            members.add(container)
        if not await self._api.is_podman():
            return Network(name)
        pools = ((await self._api.get(f"/networks/{name}")).get("IPAM") or {}).get("Config") or ()
        addresses = (gateway_of(pool) for pool in pools)
        return Network(name, next((address for address in addresses if address is not None), HOST_GATEWAY))

    async def leave(self, project_id: str, container: str) -> None:
        """The container is gone; the last one takes the network with it.

        Raises:
            EngineError: The engine cannot remove it; asking again does no harm.
            EngineAway: The engine is not there.
        """
        async with self._lock:
            members = self._members.get(project_id, set())
            members.discard(container)
            if members:
                return
            self._members.pop(project_id, None)
            try:
                await self._api.delete(f"/networks/{self._name(project_id)}")
            except EngineError as error:
                if error.status != 404:
                    raise

    def adopt(self, project_id: str, container: str) -> None:
        """A container of earlier is in its network."""
        self._members.setdefault(project_id, set()).add(container)

    async def sweep(self) -> None:
        """Remove the networks of earlier that nobody is in."""
        filters = {"label": [f"{INSTANCE_LABEL}={self._instance}"]}
        for network in await self._api.get("/networks", filters=filters):
            if (network.get("Labels") or {}).get(PROJECT_LABEL) not in self._members:
                try:
                    await self._api.delete(f"/networks/{network['Id']}")
                except EngineError as error:
                    logger.warning("network not removed: network=%s error=%s", network["Name"], error)

    async def _ensure(self, name: str, project_id: str) -> None:
        filters = {"label": [f"{INSTANCE_LABEL}={self._instance}", f"{PROJECT_LABEL}={project_id}"]}
        if await self._api.get("/networks", filters=filters):
            return
        labels = {INSTANCE_LABEL: self._instance, PROJECT_LABEL: project_id}
        await self._api.post("/networks/create", {"Name": name, "Driver": "bridge", "Labels": labels})

    def _name(self, project_id: str) -> str:
        digest = hashlib.sha256(f"{self._instance} {project_id}".encode()).hexdigest()
        return f"machineshop-{digest[:16]}"


def gateway_of(pool: dict[str, str]) -> str | None:
    """The IPv4 gateway of a network's address pool; an engine does not always say that it is the first address."""
    try:
        network = ipaddress.ip_network(pool["Subnet"])
        gateway = ipaddress.ip_address(pool.get("Gateway") or str(next(network.hosts())))
    except (KeyError, ValueError, StopIteration):
        return None
    return str(gateway) if gateway.version == 4 else None
