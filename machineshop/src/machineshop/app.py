"""The composition root: builds the store, the runtime, the services, the loops and the ASGI application.

`Platform.start` and `Platform.stop` are the order in which they come and go, with the reasons.
"""

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from machineshop import __version__
from machineshop.api import authority as authority_api
from machineshop.api import deployments as deployments_api
from machineshop.api import events as events_api
from machineshop.api import files as files_api
from machineshop.api import identity as identity_api
from machineshop.api import images as images_api
from machineshop.api import job_status, openapi
from machineshop.api import multipart as multipart_api
from machineshop.api import packages as packages_api
from machineshop.api import queue as queue_api
from machineshop.api import scaling as scaling_api
from machineshop.api import secrets as secrets_api
from machineshop.api import volumes as volumes_api
from machineshop.api import webhooks as webhooks_api
from machineshop.api import work as work_api
from machineshop.api.addresses import Addresses
from machineshop.api.described.identity import HEALTH
from machineshop.api.endpoint import Api
from machineshop.api.job_view import job_view
from machineshop.api.operation import DescribedRoute
from machineshop.blobs.choice import open_storage
from machineshop.config import Settings, cache_bytes, check, contexts_path, parse_storage_url
from machineshop.contexts import LeftContext, leave_context, write_private
from machineshop.control.deliverer import Deliverer
from machineshop.control.duty import Duty
from machineshop.control.lease import Lease
from machineshop.control.loop import Loop
from machineshop.control.reclaimer import Reclaimer
from machineshop.control.reconciler import PlatformWatcher, Reconciler
from machineshop.control.rollouts import Rollouts
from machineshop.control.scaler import Scaler
from machineshop.control.scraper import Scraper
from machineshop.control.sender import Sender
from machineshop.control.strangers import Strangers
from machineshop.control.volume_sync import VolumeSync
from machineshop.control.wedged import Wedged
from machineshop.datadir import DataDir, DataDirUnusable, StorageElsewhere
from machineshop.errors import NotFound, Unavailable
from machineshop.front import Front, not_allowed
from machineshop.gateway.proxy import Gateway
from machineshop.gateway.relay import Relay
from machineshop.hsts import hsts_headers
from machineshop.http import error_response, json_response
from machineshop.ids import new_id
from machineshop.registry import app as registry_app
from machineshop.runtime.base import ReplicaStatus
from machineshop.runtime.choice import Choice, choose, is_loopback, url_in_containers
from machineshop.runtime.choice import build as build_runtime
from machineshop.server import EVERYWHERE, HttpServer, PortTaken, listen
from machineshop.services.audit import AuditLog
from machineshop.services.deployments import DeploymentService
from machineshop.services.feed import Feed
from machineshop.services.files import FileService
from machineshop.services.garbage import GarbageCollector
from machineshop.services.identity import IdentityService, new_key
from machineshop.services.images import Images
from machineshop.services.keyring import KeyRing
from machineshop.services.multipart import MultipartService
from machineshop.services.news import News
from machineshop.services.outside_registry import OutsideRegistry
from machineshop.services.packages import PackageIndex, read_wheels
from machineshop.services.place import Places
from machineshop.services.projects import ProjectService
from machineshop.services.queue import QueueService
from machineshop.services.registry import RegistryService
from machineshop.services.registry_access import RegistryAccess
from machineshop.services.scaling import ScalingService
from machineshop.services.secrets import SecretService
from machineshop.services.signing import SigningService
from machineshop.services.targets import targets_of
from machineshop.services.traffic import Traffic
from machineshop.services.volume_files import VolumeContents
from machineshop.services.volume_origins import VolumeOrigins
from machineshop.services.volume_removal import VolumeRemoval
from machineshop.services.volume_uploads import VolumeUploads
from machineshop.services.volumes import VolumeService
from machineshop.services.webhooks import WebhookService
from machineshop.store import leases
from machineshop.store import settings as stored_settings
from machineshop.store.database import Database, sqlite_file, sqlite_url
from machineshop.store.deployment_rows import DEPLOYMENTS
from machineshop.store.engines import local_address
from machineshop.store.schema import migrate
from machineshop.store.volumes import VOLUMES, VOLUMES_GONE
from machineshop.store.webhooks import WEBHOOKS
from machineshop.tls import TlsKeeper, open_tls

log = logging.getLogger(__name__)

WHEELS = Path(__file__).parent / "wheels"
RECONCILE_SECONDS = 1.0
SCALE_SECONDS = 1.0
SETTLE_SECONDS = 1.0
WEDGED_SECONDS = 2.0
RECLAIM_SECONDS = 1.0
DELIVER_SECONDS = 1.0
CLEAN_SECONDS = 60.0
COLLECT_SECONDS = 600.0
DISOWN_SECONDS = 5.0
HASH_SECONDS = 1.0
SYNC_SECONDS = 1.0
NOTE_USES_SECONDS = 60.0
# A machine that gets another address is soon reached by it.
RENEW_SECONDS = 60.0
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
        self._address_of_machine: str | None = None
        self._address_file = self.data_dir.path / "server.json"
        self.choice = Choice()

    async def start(self) -> None:
        """Begin to serve.

        Raises:
            MachineshopError: Something that the platform needs is not to be had; the message says what to do.
        """
        self.data_dir.open()
        if (file := sqlite_file(self.settings.database_url)) is not None:
            self.data_dir.lock_database(file)
        self.tls = open_tls(self.settings, self.data_dir, time.time())
        context = None if self.tls is None else self.tls.context
        self.server = HttpServer(self.settings.host, self.settings.port or self._last_port(), context)
        self.base_url = self.settings.public_url or self.server.url()
        self.choice = await choose(self.settings.runtime, self._runtime_dir)
        self._let_containers_in()
        self.build()
        self.database.start()
        await self._check_storage()
        if self.database.is_shared:
            self._address_of_machine = await self.database.read(local_address)
        self.admin_key = self._admin_key()
        # One that was given is the only one; those that servers on one database have made stand side by side.
        alone = self.settings.admin_key is not None or not self.database.is_shared
        await self.identity.ensure_admin(self.admin_key, alone=alone)
        await self.secrets.open()
        await self.signing.open()
        # The runtime finds its replicas before the first request asks for them.
        await self.runtime.start()
        await self.server.start(self.asgi, hsts_headers(self.settings, self.base_url))
        self.news.start()
        self.database.listen(self.news.heard, self.news.missed)
        await self.lease.start(self.duty)
        self.note_uses.start()
        if self.renewal is not None:
            self.renewal.start()
        self.context = leave_context(contexts_path(), self.base_url, self.admin_key, self._authority_pem())
        self._write_address()

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return self.server.port

    async def running_replicas(self) -> int:
        """How many replicas run now."""
        return sum(replica.status is ReplicaStatus.RUNNING for replica in await self.runtime.observe())

    async def stop(self, *, end_replicas: bool) -> None:
        """End in the order in which things need one another.

        Args:
            end_replicas: Drain and end them; otherwise they run on, and the next start adopts them.
        """
        await self.duty.end()  # nothing may start replicas again
        await self.deliverer.close()
        await self.volume_sync.close()
        if end_replicas or await self._others_go_on():  # while the API still answers: workers deliver what they finish
            await self.runtime.stop_all(STOP_GRACE_SECONDS)
        await self.lease.give_back()
        self.queue.close()  # ends the long polls
        self.gateway.close_waiting_room()
        await self.server.stop()
        if self.renewal is not None:
            await self.renewal.stop()
        await self._end_noting_uses()
        await self.database.hang_up()
        await self.news.close()
        self.relay.close()
        self.gateway.close()
        await self.scraper.close()
        await self.runtime.close()
        await self.volume_contents.close()
        await self.images.close()
        if self.outside_registry is not None:
            await self.outside_registry.close()
        await asyncio.to_thread(self.storage.close)
        await asyncio.to_thread(self.database.close)
        self.data_dir.close()

    async def _end_noting_uses(self) -> None:
        await self.note_uses.stop()
        with contextlib.suppress(Unavailable):  # it is no reason not to end
            await self.identity.note_uses(time.time())

    async def _admit(self, key: str | None, address: str) -> None:
        await self.identity.authenticate(key, address)

    async def _others_go_on(self) -> bool:
        """Whether another server is about to run its own replicas in the place of ours."""
        if not (self.database.is_shared and self.lease.held):
            return False
        try:
            return await self.database.read(leases.count_others, self.database.server_id) > 0
        except Unavailable:
            return False

    def build(self) -> None:
        """Put everything together without starting any of it; the data directory must be open."""
        url = self.settings.database_url or sqlite_url(self.data_dir.database)
        migrate(url)
        self.database = Database(url)
        self.lease = Lease(self.database, self._server_url, self._last_run().get("server_id"))
        self.identity = IdentityService(self.database)
        self.projects = ProjectService(self.database, self.identity.forget)
        self.audit = AuditLog(self.database, self.settings.audit_days * 86400.0)
        self.storage = open_storage(
            self.data_dir.storage,
            self.settings.storage_url,
            self.settings.storage_endpoint,
            redirects=self.settings.storage_redirects,
        )
        self.registry = RegistryService(self.database, self.storage, lambda: self.base_url)
        self.registry_access = RegistryAccess(self.database, self.identity)
        self.files = FileService(
            self.database, self.storage, lambda: self.base_url, storage_is_shared=self.database.is_shared
        )
        self.multipart = MultipartService(self.database, self.storage, self.files, lambda: self.base_url)
        self.volume_contents = VolumeContents(self.database, self.storage.blobs)
        self.outside_registry = None
        if (registry_url := self.settings.registry_url) is not None:
            self.outside_registry = OutsideRegistry(registry_url, self.settings.registry_login, self.database)
        self.images = Images(
            self.registry,
            self.registry_access,
            lambda image: self.runtime.pin(image),  # noqa: PLW0108 - as below
            self._registry_host,
            self.outside_registry,
        )
        self.deployments = DeploymentService(
            self.database,
            self.images,
            lambda: self.runtime.capacity(),  # noqa: PLW0108 - the runtime is built after its sources
            self.choice.accepts,
        )
        keys = KeyRing(self.data_dir.secrets_key, self.settings.secrets_key)
        self.secrets = SecretService(self.database, keys, self.deployments)
        self._build_volumes()
        targets = targets_of(self.settings, lambda: self.port)
        self.queue = QueueService(self.database, self.deployments, check_webhook_url=targets.check_url)
        self.signing = SigningService(self.database, keys)
        self.webhooks = WebhookService(self.database, self.signing, job_view)
        self.deliverer = Deliverer(self.database, self.webhooks, Sender(targets))
        self.traffic = Traffic()
        watcher = PlatformWatcher(self.identity, self.queue, self.secrets, self.lease, self.traffic)
        bundle = None if self.tls is None else self.tls.bundle
        self.runtime = build_runtime(
            self.choice,
            self._runtime_dir,
            bundles=self.images,
            images=self.images,
            volumes=self.volume_contents,
            watcher=watcher,
            platform_url=lambda: self.base_url,
            container_url=self._container_url,
            ca_bundle=bundle,
            volume_cache_bytes=cache_bytes(self.settings),
        )
        self.feed = Feed(self.database, self.queue.changes, events_api.render)
        self.places = Places(self.database, self.deployments, self.runtime, self.queue.dispatcher.waiters)
        self.gateway = Gateway(self.identity, self.deployments, self.runtime, self.traffic, self.settings.gateway)
        self.relay = Relay(self.lease, self.database.server_id, bundle, self.settings.gateway, self._admit)
        self.note_uses = Loop("note-uses-of-keys", self.identity.note_uses, NOTE_USES_SECONDS)
        self.renewal = None if self.tls is None else Loop("renew-certificate", self.tls.run_once, RENEW_SECONDS)
        self.news = News(self.queue)
        self.scraper = Scraper()
        self.scaler = Scaler(self.database, self.runtime, self.traffic, self.scraper)
        self.queue.dispatcher.on_pending.append(self.scaler.work_came)
        self.traffic.on_held(self.scaler.work_came)
        self.scaling = ScalingService(self.database, self.deployments, self.scaler)
        self.duty = Duty(self._loops(watcher), self.runtime)
        self.database.on_announced(DEPLOYMENTS, self.deployments.changed)
        # The followers of one that is deleted are to see its end.
        self.database.on_announced(DEPLOYMENTS, self.queue.changes.wake_all)
        self.database.on_announced(VOLUMES_GONE, self.runtime.drop_deleted_volumes)
        self.packages = PackageIndex(read_wheels(WHEELS), self.settings.package_index)
        self.asgi = self._application()

    def _build_volumes(self) -> None:
        settings, own = self.settings, None
        if settings.storage_url is not None:
            own = parse_storage_url(settings.storage_url).bucket
        origins = VolumeOrigins(
            self.secrets,
            targets_of(settings, lambda: self.port, settings.volume_networks).allows,
            by_machine=settings.volume_machine_credentials,
            own_bucket=own,
        )
        self.volumes = VolumeService(self.database, self.files.leftovers, origins.check)
        self.volume_removal = VolumeRemoval(self.database, self.files.leftovers)
        self.volume_uploads = VolumeUploads(self.database, self.storage.blobs, self.files.leftovers)
        self.volume_sync = VolumeSync(self.database, self.files, self.storage.blobs, origins.open)

    def _loops(self, watcher: PlatformWatcher) -> list[Loop]:
        """Those that one server at a time runs."""

        def loop(name: str, run_once: Callable[[float], Awaitable[object]], interval_seconds: float) -> Loop:
            return Loop(name, run_once, interval_seconds, hold=self.lease)

        reconciler = Reconciler(self.database, self.runtime, self.queue, self.traffic, self.images)
        reconcile = loop("reconcile", reconciler.run_once, RECONCILE_SECONDS)
        self.deployments.on_change(reconcile.wake)
        scale = loop("scale", self.scaler.run_once, SCALE_SECONDS)
        self.deployments.on_change(scale.wake)
        self.scaler.on_work(scale.wake)
        deliver = loop("deliver-webhooks", self.deliverer.run_once, DELIVER_SECONDS)
        self.database.on_announced(WEBHOOKS, deliver.wake)
        self.deliverer.on_room(deliver.wake)
        sync = loop("sync-volumes", self.volume_sync.run_once, SYNC_SECONDS)
        self.database.on_announced(VOLUMES, sync.wake)
        remove = loop("remove-volumes", self.volume_removal.run_once, CLEAN_SECONDS)
        self.database.on_announced(VOLUMES_GONE, remove.wake)
        loops = [
            reconcile,
            scale,
            loop("settle-rollouts", Rollouts(self.database, self.runtime, self.deployments).run_once, SETTLE_SECONDS),
            loop("restart-wedged", Wedged(self.database, self.queue, self.runtime).run_once, WEDGED_SECONDS),
            loop("reclaim", Reclaimer(self.queue, self.runtime).run_once, RECLAIM_SECONDS),
            deliver,
            sync,
            remove,
            loop("clean-registry", self.registry.clean, CLEAN_SECONDS),
            loop("collect-garbage", GarbageCollector(self.database, self.storage.blobs).run_once, COLLECT_SECONDS),
            loop("expire-secrets", self.secrets.expire, CLEAN_SECONDS),
            loop("clean-queues", self.queue.clean, CLEAN_SECONDS),
            loop("hash-volumes", self.volume_contents.hash_new, HASH_SECONDS),
            loop("clean-files", self.files.clean, CLEAN_SECONDS),
            loop("clean-multipart", self.multipart.clean, CLEAN_SECONDS),
            loop("clean-audit", self.audit.clean, CLEAN_SECONDS),
            loop("purge-projects", self.projects.purge, CLEAN_SECONDS),
        ]
        if self.database.is_shared:
            strangers = Strangers(self.lease, self.identity, self.queue, self.runtime, watcher)
            loops.append(loop("disown-replicas", strangers.run_once, DISOWN_SECONDS))
        return loops

    def _application(self) -> Front:
        (gateway,) = self._where_the_replicas_are(self.gateway.routes())
        api = Api(self.identity, self.audit)
        guard = self.relay.guard if self.database.is_shared else None
        routes: list[BaseRoute] = [
            *work_api.routes(api, self.queue, time.time, Addresses(lambda: self.base_url, self._address_inside)),
            *queue_api.routes(api, self.queue, job_status.handler(api, self.queue, self.places, self.webhooks, guard)),
            *events_api.routes(api, self.queue, self.deployments, self.feed),
            *webhooks_api.routes(api, self.webhooks, self.signing),
            gateway,
            *registry_app.routes(self.registry, self.registry_access, lambda: self.base_url, self.audit),
            *multipart_api.routes(api, self.multipart),
            *volumes_api.routes(api, self.volumes, self.volume_uploads),
            *files_api.routes(api, self.files),
            *secrets_api.routes(api, self.secrets),
            *self._where_the_replicas_are(
                deployments_api.runtime_routes(api, self.deployments, self.secrets, self.runtime, self.volumes)
            ),
            *self._where_the_replicas_are(scaling_api.routes(api, self.scaling)),
            *deployments_api.store_routes(api, self.deployments, self.secrets),
            *identity_api.routes(api, self.identity, self.projects, self.audit),
            *images_api.routes(api, self.registry, self.outside_registry),
            *packages_api.routes(self.packages),
            *authority_api.routes(self._authority_pem),
            DescribedRoute("GET", "/health", _health, HEALTH),
        ]
        routes += openapi.routes(routes, lambda: self.base_url)
        handlers = {404: _not_found, 405: _not_allowed}
        return Front(Starlette(routes=routes, exception_handlers=handlers), gateway)

    def _where_the_replicas_are(self, routes: list[Route]) -> list[Route]:
        """Routes that only the server with the replicas can answer."""
        return self.relay.guard(routes) if self.database.is_shared else routes

    @property
    def _runtime_dir(self) -> Path:
        return self.data_dir.path / "runtime"

    def _let_containers_in(self) -> None:
        """Listen where containers look for this machine, when the server would only hear what runs on it itself."""
        hears_itself_alone = is_loopback(self.settings.host) and self.settings.host not in EVERYWHERE
        if self.choice.endpoint is None or not hears_itself_alone:
            return
        if self.choice.gateway is None:
            log.warning("containers of this engine cannot reach a platform on the loopback: use --host 0.0.0.0")
            return
        try:
            self.server.listen_also(self.choice.gateway)
        except PortTaken as error:
            log.warning("containers may not reach the platform: %s With --host 0.0.0.0 they do.", error.message)

    def _container_url(self) -> str:
        return url_in_containers(self.base_url, self.server.url())

    def _address_inside(self) -> str | None:
        """Where workers in containers find the platform; None where there are none."""
        return None if self.choice.endpoint is None else self._container_url()

    def _registry_host(self) -> str:
        """Where the container engine, which is on this machine, finds the registry."""
        # Engines take what is on the loopback for safe without TLS, and nothing else.
        host = self.settings.host
        return f"127.0.0.1:{self.port}" if is_loopback(host) else urlsplit(self.server.url()).netloc

    def _server_url(self) -> str:
        """Where other servers on the same database reach this one."""
        return self.settings.server_url or self.server.url(self._address_of_machine)

    async def _check_storage(self) -> None:
        """Refuse a storage that does not work, or is not that of the other servers on a shared database.

        Raises:
            BucketUnusable: The object storage does not let us.
            StorageElsewhere: It is another one.
        """
        await self.storage.check()
        if self.database.is_shared:
            mine = await self.storage.ensure_id(new_id()) or self.data_dir.storage_id()
            storage_id = await self.database.write(stored_settings.ensure, stored_settings.STORAGE_ID, mine)
            if storage_id != mine:
                where = f"{self.settings.storage_url or self.data_dir.storage}"
                raise StorageElsewhere(where=where.rstrip("/"), storage_id=storage_id)

    def _authority_pem(self) -> str | None:
        return None if self.tls is None else self.tls.authority_pem

    def _address(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "base_url": self.base_url, "server_id": self.database.server_id}

    def _write_address(self) -> None:
        """Leave the address for the next start, which goes without where the disk is full: the sweep makes room."""
        try:
            write_private(self._address_file, json.dumps(self._address()) + "\n")
        except OSError as error:
            log.warning("address.not_written path=%s error=%s", self._address_file, error)

    def _last_run(self) -> dict[str, Any]:
        """What this data directory's server wrote down about itself when it started last; it has ended since."""
        try:
            address = json.loads(self._address_file.read_text())
        except (OSError, ValueError):
            return {}
        return address if isinstance(address, dict) else {}

    def _last_port(self) -> int:
        """The free port of the last run, where it is still free: replicas that run on know the platform by it."""
        try:
            port = urlsplit(self._last_run().get("base_url") or "").port or 0
            listen(self.settings.host, port).close()
        except (ValueError, TypeError, AttributeError, PortTaken):
            return 0
        return port

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


async def _health(_request: Request) -> Response:
    return json_response({"status": "healthy", "version": __version__})


async def _not_found(request: Request, _error: Exception) -> Response:
    return error_response(NotFound(what="route", id=request.url.path[:256], where=""))


async def _not_allowed(request: Request, _error: Exception) -> Response:
    return not_allowed(request.app, request.scope)
