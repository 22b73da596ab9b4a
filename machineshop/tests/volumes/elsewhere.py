"""A place in an object storage of other people, from which a project's volumes are copied."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

from factory import Clock, eventually
from machineshop.blobs.origin import Address
from machineshop.control.copies import MAX_PAUSE_SECONDS
from machineshop.control.volume_sync import VolumeSync
from machineshop.services.secret_rules import SecretFields
from machineshop.services.secrets import SecretService
from machineshop.services.volume_origins import VolumeOrigins
from object_storage import ObjectStorage

if TYPE_CHECKING:
    from volumes.conftest import Volumes

PATH = "/v1/deployments/storage/volumes"
KEYS = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "canary-of-the-keys"}


class Elsewhere:
    """A place in an object storage of other people, the project's keys to it, and the loop that copies from there."""

    def __init__(self, team: "Volumes", objects: ObjectStorage, secrets: SecretService, clock: Clock) -> None:
        self.team = team
        self.objects = objects
        self.secrets = secrets
        self.url = objects.make_place()
        self.clock = clock
        self.allowed = {objects.port}
        self.origins = VolumeOrigins(secrets, self._allows)
        self.by_machine = False
        self.sync = self.new_sync()

    def give_machine_rights(self) -> None:
        """Have what the machine may read copied from now on, where the environment says how."""
        self.by_machine = True
        self.origins = VolumeOrigins(self.secrets, lambda *_: False, by_machine=True)
        self.sync = self.new_sync()

    def new_sync(self) -> VolumeSync:
        """As another start of the server makes one."""
        shop = self.team.shop
        return VolumeSync(shop.database, shop.files, shop.storage.blobs, self.origins.open, self.clock)

    def put(self, **objects: bytes) -> None:
        for path, data in objects.items():
            self.objects.client.put_object(Bucket=self.url.bucket, Key=self.url.prefix + path, Body=data)

    async def give_keys(self, name: str = "s3-keys", **more: Any) -> None:
        value = json.dumps(KEYS | {"endpoint_url": self.objects.endpoint} | more)
        await self.secrets.create(self.team.project_id, SecretFields(name=name, value=value), "key-1")

    def content(self, secret: str = "s3-keys") -> dict[str, Any]:
        rights = {} if self.by_machine else {"role_arn": f"secret:{secret}"}
        return {"type": "files", "origin": {"s3": {"uri": str(self.url), **rights}}}

    async def create(self, name: str = "weights") -> dict[str, Any]:
        return await self.team.create_of(self.content(), name)

    async def update(self, secret: str = "s3-keys") -> dict[str, Any]:
        """The next version, copied to its end."""
        await self.team.answer("PATCH", f"{PATH}/weights", {"content": self.content(secret)})
        return await self.pass_until("ready")

    async def pass_until(self, status: str, name: str = "weights") -> dict[str, Any]:
        """Passes of the loop, each after all waits are over, until the volume is so."""
        async with asyncio.timeout(60):
            while (seen := await self.team.describe(name))["status"] != status:
                assert seen["status"] in {"pending", "syncing"}, seen
                self.clock.now += MAX_PAUSE_SECONDS
                await self.sync.run_once(self.clock.now)
                await self.settled()
        return seen

    async def pass_once(self, status: str) -> dict[str, Any]:
        """One pass, after which it is so."""
        await self.sync.run_once(self.clock.now)
        await self.settled()
        seen = await self.team.describe()
        assert seen["status"] == status, seen
        return seen

    async def settled(self) -> None:
        """Until no copy is under way."""
        await self.settled_to(0)

    async def settled_to(self, number: int) -> None:
        """Until no more copies than that are under way."""
        await eventually(lambda: self.sync.busy <= number)

    def _allows(self, _: Address, port: int) -> bool:
        return port in self.allowed


def files_of(volume: dict[str, Any]) -> dict[str, int]:
    return {file["name"]: file["size"] for file in volume["content"]["files"]}
