"""The composition root: what one server process runs.

`Platform.start` and `Platform.stop` are the order in which the parts come and go, with the reasons.
"""

import asyncio
import contextlib
import os
import time

from machineshop.config import Settings, check, contexts_path
from machineshop.contexts import LeftContext, leave_context, write_private
from machineshop.control.duty import Duty
from machineshop.datadir import DataDir, DataDirUnusable, StorageElsewhere
from machineshop.errors import Unavailable
from machineshop.hsts import hsts_headers
from machineshop.ids import new_id
from machineshop.loops import loops_of
from machineshop.parts import Parts
from machineshop.reach import Reach
from machineshop.routes import application
from machineshop.runtime.base import ReplicaStatus
from machineshop.runtime.choice import Choice, choose
from machineshop.server import HttpServer
from machineshop.server_file import ServerFile
from machineshop.services.identity import new_key
from machineshop.store import leases
from machineshop.store import settings as stored_settings
from machineshop.store.database import sqlite_file
from machineshop.store.engines import local_address
from machineshop.tls import TlsKeeper, open_tls

# How long replicas may take to finish what they have in hand when the server is stopped from its terminal.
STOP_GRACE_SECONDS = 10.0


class Platform:
    """Everything that one server process runs."""

    def __init__(self, settings: Settings) -> None:
        self.settings = check(settings)
        self.data_dir = DataDir(settings.data_dir, settings.storage_dir)
        self.made_admin_key: str | None = None
        self.tls: TlsKeeper | None = None
        self.context: LeftContext | None = None
        self.reach = Reach(settings)
        self._server_file = ServerFile(self.data_dir.path / "server.json")

    async def start(self) -> None:
        """Begin to serve.

        Raises:
            MachineshopError: Something that the platform needs is not to be had; the message says what to do.
        """
        self._listen()
        choice = await choose(self.settings.runtime, self.data_dir.runtime)
        self.reach.let_containers_in(choice)
        self.build(choice)
        parts = self.parts
        parts.database.start()
        await self._check_storage()
        if parts.database.is_shared:
            self.reach.address_of_machine = await parts.database.read(local_address)
        self.admin_key = self._admin_key()
        # One that was given is the only one; those that servers on one database have made stand side by side.
        alone = self.settings.admin_key is not None or not parts.database.is_shared
        await parts.identity.ensure_admin(self.admin_key, alone=alone)
        await parts.secrets.open()
        await parts.signing.open()
        # The runtime finds its replicas before the first request asks for them.
        await parts.runtime.start()
        await self.server.start(self.asgi, hsts_headers(self.settings, self.base_url))
        parts.news.start()
        parts.database.listen(parts.news.heard, parts.news.missed)
        await parts.lease.start(self.duty)
        parts.note_uses.start()
        if parts.renewal is not None:
            parts.renewal.start()
        self.context = leave_context(contexts_path(), self.base_url, self.admin_key, parts.authority_pem())
        self._server_file.write({"pid": os.getpid(), "base_url": self.base_url, "server_id": parts.database.server_id})

    def build(self, choice: Choice) -> None:
        """Put everything together without starting any of it; the data directory must be open."""
        last_run = self._server_file.last_run()
        self.parts = Parts(self.settings, self.data_dir, last_run, self.tls, self.reach, choice)
        self.duty = Duty(loops_of(self.parts), self.parts.runtime)
        self.asgi = application(self.parts)

    @property
    def base_url(self) -> str:
        """Where clients reach it."""
        return self.reach.base_url

    async def running_replicas(self) -> int:
        """How many replicas run now."""
        return sum(replica.status is ReplicaStatus.RUNNING for replica in await self.parts.runtime.observe())

    async def stop(self, *, end_replicas: bool) -> None:
        """End in the order in which things need one another.

        Args:
            end_replicas: Drain and end them; otherwise they run on, and the next start adopts them.
        """
        parts = self.parts
        await self.duty.end()  # nothing may start replicas again
        await parts.deliverer.close()
        await parts.volume_sync.close()
        if end_replicas or await self._others_go_on():  # while the API still answers: workers deliver what they finish
            await parts.runtime.stop_all(STOP_GRACE_SECONDS)
        await parts.lease.give_back()
        parts.queue.close()  # ends the long polls
        parts.gateway.close_waiting_room()
        await self.server.stop()
        if parts.renewal is not None:
            await parts.renewal.stop()
        await self._end_noting_uses()
        await parts.database.hang_up()
        await parts.news.close()
        parts.relay.close()
        parts.gateway.close()
        await parts.scraper.close()
        await parts.runtime.close()
        await parts.volume_contents.close()
        await parts.images.close()
        if parts.outside_registry is not None:
            await parts.outside_registry.close()
        await asyncio.to_thread(parts.storage.close)
        await asyncio.to_thread(parts.database.close)
        self.data_dir.close()

    async def _end_noting_uses(self) -> None:
        await self.parts.note_uses.stop()
        with contextlib.suppress(Unavailable):  # it is no reason not to end
            await self.parts.identity.note_uses(time.time())

    async def _others_go_on(self) -> bool:
        """Whether another server is about to run its own replicas in the place of ours."""
        if not (self.parts.database.is_shared and self.parts.lease.held):
            return False
        try:
            return await self.parts.database.read(leases.count_others, self.parts.database.server_id) > 0
        except Unavailable:
            return False

    def _listen(self) -> None:
        self.data_dir.open()
        if (file := sqlite_file(self.settings.database_url)) is not None:
            self.data_dir.lock_database(file)
        self.tls = open_tls(self.settings, self.data_dir, time.time())
        port = self.settings.port or self._server_file.last_port(self.settings.host)
        self.server = HttpServer(self.settings.host, port, None if self.tls is None else self.tls.context)
        self.reach.opened(self.server)

    async def _check_storage(self) -> None:
        """Refuse a storage that does not work, or is not that of the other servers on a shared database.

        Raises:
            BucketUnusable: The object storage does not let us.
            StorageElsewhere: It is another one.
        """
        database, storage = self.parts.database, self.parts.storage
        await storage.check()
        if database.is_shared:
            mine = await storage.ensure_id(new_id()) or self.data_dir.storage_id()
            storage_id = await database.write(stored_settings.ensure, stored_settings.STORAGE_ID, mine)
            if storage_id != mine:
                where = f"{self.settings.storage_url or self.data_dir.storage}"
                raise StorageElsewhere(where=where.rstrip("/"), storage_id=storage_id)

    def _admin_key(self) -> str:
        """The key from the environment, or the one made at the first start."""
        if self.settings.admin_key:
            return self.settings.admin_key
        path = self.data_dir.admin_key
        try:
            if not path.exists():
                self.made_admin_key = new_key()
                write_private(path, self.made_admin_key + "\n")
            return path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DataDirUnusable(path=path, cause=getattr(error, "strerror", None) or str(error)) from error
