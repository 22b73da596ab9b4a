"""The control loops that one server at a time runs: each with how often it looks, and what wakes it."""

from collections.abc import Awaitable, Callable

from machineshop.control.loop import Loop
from machineshop.control.reclaimer import Reclaimer
from machineshop.control.reconciler import Reconciler
from machineshop.control.rollouts import Rollouts
from machineshop.control.strangers import Strangers
from machineshop.control.wedged import Wedged
from machineshop.parts import Parts
from machineshop.services.garbage import GarbageCollector
from machineshop.store.volumes import VOLUMES, VOLUMES_GONE
from machineshop.store.webhooks import WEBHOOKS

RECONCILE_SECONDS = 1.0
SCALE_SECONDS = 1.0
SETTLE_SECONDS = 1.0
WEDGED_SECONDS = 2.0
RECLAIM_SECONDS = 1.0
DELIVER_SECONDS = 1.0
CLEAN_SECONDS = 60.0
COLLECT_SECONDS = 600.0
EXPIRE_FILES_SECONDS = 600.0
DISOWN_SECONDS = 5.0
HASH_SECONDS = 1.0
SYNC_SECONDS = 1.0


def loops_of(parts: Parts) -> list[Loop]:
    """Those that one server at a time runs."""

    def loop(name: str, run_once: Callable[[float], Awaitable[object]], interval_seconds: float) -> Loop:
        return Loop(name, run_once, interval_seconds, hold=parts.lease)

    reconciler = Reconciler(parts.database, parts.runtime, parts.upkeep, parts.traffic, parts.images)
    reconcile = loop("reconcile", reconciler.run_once, RECONCILE_SECONDS)
    parts.deployments.on_change(reconcile.wake)
    scale = loop("scale", parts.scaler.run_once, SCALE_SECONDS)
    parts.deployments.on_change(scale.wake)
    parts.scaler.on_work(scale.wake)
    deliver = loop("deliver-webhooks", parts.deliverer.run_once, DELIVER_SECONDS)
    parts.database.on_announced(WEBHOOKS, deliver.wake)
    parts.deliverer.on_room(deliver.wake)
    sync = loop("sync-volumes", parts.volume_sync.run_once, SYNC_SECONDS)
    parts.database.on_announced(VOLUMES, sync.wake)
    remove = loop("remove-volumes", parts.volume_removal.run_once, CLEAN_SECONDS)
    parts.database.on_announced(VOLUMES_GONE, remove.wake)
    loops = [
        reconcile,
        scale,
        loop("settle-rollouts", Rollouts(parts.database, parts.runtime, parts.deployments).run_once, SETTLE_SECONDS),
        loop("restart-wedged", Wedged(parts.database, parts.upkeep, parts.runtime).run_once, WEDGED_SECONDS),
        loop("reclaim", Reclaimer(parts.upkeep, parts.runtime).run_once, RECLAIM_SECONDS),
        deliver,
        sync,
        remove,
        loop("clean-registry", parts.registry.clean, CLEAN_SECONDS),
        loop("collect-garbage", GarbageCollector(parts.database, parts.storage.blobs).run_once, COLLECT_SECONDS),
        loop("expire-secrets", parts.secrets.expire, CLEAN_SECONDS),
        loop("clean-queues", parts.upkeep.clean, CLEAN_SECONDS),
        loop("hash-volumes", parts.volume_contents.hash_new, HASH_SECONDS),
        loop("clean-files", parts.files.clean, CLEAN_SECONDS),
        loop("expire-files", parts.file_retention.run_once, EXPIRE_FILES_SECONDS),
        loop("clean-multipart", parts.multipart.clean, CLEAN_SECONDS),
        loop("clean-audit", parts.audit.clean, CLEAN_SECONDS),
        loop("purge-projects", parts.projects.purge, CLEAN_SECONDS),
    ]
    if parts.database.is_shared:
        strangers = Strangers(parts.lease, parts.identity, parts.upkeep, parts.runtime, parts.watcher)
        loops.append(loop("disown-replicas", strangers.run_once, DISOWN_SECONDS))
    return loops
