"""The parts of the platform, put together and not yet started: the store, the services, the runtime and the gateway."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from machineshop.api import events as events_api
from machineshop.api.job_view import job_view
from machineshop.blobs.choice import open_storage
from machineshop.config import Settings, cache_bytes, parse_kept_files, parse_storage_url
from machineshop.control.deliverer import Deliverer
from machineshop.control.lease import Lease
from machineshop.control.loop import Loop
from machineshop.control.reconciler import PlatformWatcher
from machineshop.control.scaler import Scaler
from machineshop.control.scraper import Scraper
from machineshop.control.sender import Sender
from machineshop.control.volume_sync import VolumeSync
from machineshop.datadir import DataDir
from machineshop.gateway.proxy import Gateway
from machineshop.gateway.relay import Relay
from machineshop.reach import Reach
from machineshop.runtime.choice import Choice
from machineshop.runtime.choice import build as build_runtime
from machineshop.services.audit import AuditLog
from machineshop.services.deployments import DeploymentService
from machineshop.services.feed import Feed
from machineshop.services.file_retention import FileRetention
from machineshop.services.files import FileService
from machineshop.services.identity import IdentityService
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
from machineshop.services.upkeep import QueueUpkeep
from machineshop.services.volume_downloads import VolumeDownloads
from machineshop.services.volume_files import VolumeContents
from machineshop.services.volume_origins import VolumeOrigins
from machineshop.services.volume_removal import VolumeRemoval
from machineshop.services.volume_uploads import VolumeUploads
from machineshop.services.volumes import VolumeService
from machineshop.services.webhooks import WebhookService
from machineshop.services.work import WorkService
from machineshop.store.database import Database, sqlite_url
from machineshop.store.deployment_rows import DEPLOYMENTS
from machineshop.store.schema import migrate
from machineshop.store.volumes import VOLUMES_GONE
from machineshop.tls import TlsKeeper

WHEELS = Path(__file__).parent / "wheels"
NOTE_USES_SECONDS = 60.0
# A machine that gets another address is soon reached by it.
RENEW_SECONDS = 60.0


class Parts:
    """What one server process is made of.

    Arguments:
        settings: What was asked for.
        data_dir: Where everything is kept; it must be open.
        last_run: What the server before this one has left about itself.
        tls: The certificate, where it serves HTTPS.
        reach: How everybody reaches the server.
        choice: What runs replicas here.
    """

    def __init__(
        self,
        settings: Settings,
        data_dir: DataDir,
        last_run: Mapping[str, Any],
        tls: TlsKeeper | None,
        reach: Reach,
        choice: Choice,
    ) -> None:
        self.settings = settings
        self.data_dir = data_dir
        self.tls = tls
        self.reach = reach
        self.choice = choice
        self._build_store(last_run)
        self._build_registry()
        self._build_deployments()
        self._build_volumes()
        self._build_queue()
        self._build_runtime()
        self._build_gateway()
        self._build_scaling()
        self._watch_store()

    def authority_pem(self) -> str | None:
        """Of the authority that whoever connects has to trust; None where everybody does."""
        return None if self.tls is None else self.tls.authority_pem

    def _build_store(self, last_run: Mapping[str, Any]) -> None:
        url = self.settings.database_url or sqlite_url(self.data_dir.database)
        migrate(url)
        self.database = Database(url)
        self.lease = Lease(self.database, self.reach.server_url, last_run.get("server_id"))
        self.identity = IdentityService(self.database)
        self.note_uses = Loop("note-uses-of-keys", self.identity.note_uses, NOTE_USES_SECONDS)
        self.projects = ProjectService(self.database, self.identity.forget)
        self.audit = AuditLog(self.database, self.settings.audit_days * 86400.0)
        self.storage = open_storage(
            self.data_dir.storage,
            self.settings.storage_url,
            self.settings.storage_endpoint,
            redirects=self.settings.storage_redirects,
        )
        self.renewal = None if self.tls is None else Loop("renew-certificate", self.tls.run_once, RENEW_SECONDS)

    def _build_registry(self) -> None:
        self.registry = RegistryService(self.database, self.storage, lambda: self.reach.base_url)
        self.registry_access = RegistryAccess(self.database, self.identity)
        self.outside_registry = None
        if (registry_url := self.settings.registry_url) is not None:
            self.outside_registry = OutsideRegistry(registry_url, self.settings.registry_login, self.database)
        self.images = Images(
            self.registry,
            self.registry_access,
            lambda image: self.runtime.pin(image),  # noqa: PLW0108 - as below
            self.reach.registry_host,
            self.outside_registry,
        )
        self.packages = PackageIndex(read_wheels(WHEELS), self.settings.package_index)

    def _build_deployments(self) -> None:
        self.deployments = DeploymentService(
            self.database,
            self.images,
            lambda: self.runtime.capacity(),  # noqa: PLW0108 - the runtime is built after its sources
            self.choice.accepts,
        )
        self.keys = KeyRing(self.data_dir.secrets_key, self.settings.secrets_key)
        self.secrets = SecretService(self.database, self.keys, self.deployments)

    def _build_volumes(self) -> None:
        settings, own, shared = self.settings, None, self.database.is_shared
        self.files = FileService(self.database, self.storage, lambda: self.reach.base_url, storage_is_shared=shared)
        self.multipart = MultipartService(self.database, self.storage, self.files, lambda: self.reach.base_url)
        self.file_retention = FileRetention(self.database, self.files.leftovers, parse_kept_files(settings.kept_files))
        self.volume_contents = VolumeContents(self.database, self.storage.blobs)
        if settings.storage_url is not None:
            own = parse_storage_url(settings.storage_url).bucket
        origins = VolumeOrigins(
            self.secrets,
            targets_of(settings, lambda: self.reach.port, settings.volume_networks).allows,
            by_machine=settings.volume_machine_credentials,
            own_bucket=own,
        )
        self.volumes = VolumeService(self.database, self.files.leftovers, origins.check)
        self.volume_removal = VolumeRemoval(self.database, self.files.leftovers)
        self.volume_downloads = VolumeDownloads(self.database, self.storage.blobs)
        self.volume_uploads = VolumeUploads(self.database, self.storage.blobs, self.files.leftovers)
        self.volume_sync = VolumeSync(self.database, self.files, self.storage.blobs, origins.open)

    def _build_queue(self) -> None:
        targets = targets_of(self.settings, lambda: self.reach.port)
        self.queue = QueueService(self.database, self.deployments, check_webhook_url=targets.check_url)
        self.work = WorkService(self.database, self.deployments, self.queue.dispatcher, self.queue.changes)
        self.upkeep = QueueUpkeep(self.database, self.queue.dispatcher, self.queue.changes)
        self.feed = Feed(self.database, self.queue.changes, events_api.render)
        self.news = News(self.queue)
        self.signing = SigningService(self.database, self.keys)
        self.webhooks = WebhookService(self.database, self.signing, job_view)
        self.deliverer = Deliverer(self.database, self.webhooks, Sender(targets))

    def _build_runtime(self) -> None:
        self.traffic = Traffic()
        self.watcher = PlatformWatcher(self.identity, self.upkeep, self.secrets, self.lease, self.traffic)
        self.runtime = build_runtime(
            self.choice,
            self.data_dir.runtime,
            bundles=self.images,
            images=self.images,
            volumes=self.volume_contents,
            watcher=self.watcher,
            platform_url=lambda: self.reach.base_url,
            container_url=self.reach.url_in_containers,
            ca_bundle=self._ca_bundle,
            volume_cache_bytes=cache_bytes(self.settings),
        )
        self.places = Places(self.database, self.deployments, self.runtime, self.queue.dispatcher.waiters)

    def _build_gateway(self) -> None:
        limits = self.settings.gateway
        self.gateway = Gateway(self.identity, self.deployments, self.runtime, self.traffic, limits)
        self.relay = Relay(self.lease, self.database.server_id, self._ca_bundle, limits, self._admit)

    def _build_scaling(self) -> None:
        self.scraper = Scraper()
        self.scaler = Scaler(self.database, self.runtime, self.traffic, self.scraper)
        self.queue.dispatcher.on_pending.append(self.scaler.work_came)
        self.traffic.on_held(self.scaler.work_came)
        self.scaling = ScalingService(self.database, self.deployments, self.scaler)

    def _watch_store(self) -> None:
        """Hear what other servers on the same database have changed."""
        self.database.on_announced(DEPLOYMENTS, self.deployments.changed)
        # The followers of one that is deleted are to see its end.
        self.database.on_announced(DEPLOYMENTS, self.queue.changes.wake_all)
        self.database.on_announced(VOLUMES_GONE, self.runtime.drop_deleted_volumes)

    @property
    def _ca_bundle(self) -> Path | None:
        return None if self.tls is None else self.tls.bundle

    async def _admit(self, key: str | None, address: str) -> None:
        await self.identity.authenticate(key, address)
