"""The process runtime: replicas are plain processes on this machine, made from bundles.

It isolates nothing: a replica can read what the server's user can. It is for a laptop, a test, a trusted machine.

Place in the flow: `local.py` decides, this engine does. Below its data folder:

    bundles/<digest>/         sources, unpacked
    environments/<hash>/      Python environments
    volumes/                  as `volumes/` says
    replicas/<id>/            replica.json, the files of shim.py, work/ (the replica's own copy of its source),
                              environment (a link), staging/ (empty; see view.py)
"""

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

from machineshop.errors import RuntimeUnavailable
from machineshop.runtime import health, supervisor
from machineshop.runtime.base import ArtifactKind, BundleSource, Capacity, ReplicaWatcher, RevisionSpec, VolumeSource
from machineshop.runtime.bundle import BundleConfig, Bundles
from machineshop.runtime.engine import Mount
from machineshop.runtime.environment import Environments
from machineshop.runtime.exits import Exit
from machineshop.runtime.folders import ReplicaFolders
from machineshop.runtime.local import LocalRuntime
from machineshop.runtime.machine import Machine, free_port
from machineshop.runtime.record import Record
from machineshop.runtime.replica_log import FileLog
from machineshop.runtime.supervisor import Supervisor
from machineshop.runtime.trust import trust_variables
from machineshop.runtime.views import Views
from machineshop.runtime.volumes.cache import VolumeCache

LOG_FILE_BYTES = 5 * 1024**2
HOST = "127.0.0.1"
VOLUMES = "volumes"
"""The folder of those on this machine, below the runtime's own."""
ENVIRONMENT = "environment"
"""A link in a replica's folder to the environment that it runs in."""

INHERITED = (
    # Where programs are, and where people and libraries keep caches: without HOME a model is downloaded every time.
    *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LD_LIBRARY_PATH"),
    # How text and times are shown.
    *("LANG", "LC_ALL", "LC_CTYPE", "TZ"),
    # How the network outside is reached; a machine behind a proxy or a private CA has no other way.
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)
"""What a replica gets of the server's environment. Nothing else: the rest may hold the server's secrets, and a replica
that works because of a variable in somebody's shell does not work anywhere else."""


class ProcessRuntime(LocalRuntime):
    """Runs bundles as processes.

    Args:
        data_dir: The folder for bundles, environments and replicas.
        bundles: Where bundles come from.
        volumes: Where the files of volumes come from.
        watcher: What the platform does around the life of a replica.
        platform_url: Asked at each start for the address at which replicas reach the platform.
        ca_bundle: A file of the authorities that replicas trust; None: as the system does.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        bundles: BundleSource,
        volumes: VolumeSource,
        watcher: ReplicaWatcher,
        platform_url: Callable[[], str],
        ca_bundle: Path | None = None,
    ) -> None:
        engine = ProcessEngine(data_dir, bundles, platform_url, ca_bundle)
        super().__init__(engine, watcher, VolumeCache(data_dir / VOLUMES, volumes))


class ProcessEngine:
    """The engine of the process runtime."""

    name = "process"
    accepts = frozenset({ArtifactKind.BUNDLE})

    def __init__(
        self,
        data_dir: Path,
        bundles: BundleSource,
        platform_url: Callable[[], str],
        ca_bundle: Path | None = None,
    ) -> None:
        self._replicas = data_dir / "replicas"
        self._folders = ReplicaFolders(self._replicas)
        self._bundles = Bundles(data_dir / "bundles", bundles)
        wheels = Path(str(files("machineshop"))) / "wheels"
        self._inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        self._environments = Environments(data_dir / "environments", wheels, self._inherited)
        self._platform_url = platform_url
        self._trust = {} if ca_bundle is None else trust_variables(ca_bundle)
        self._machine = Machine()
        self._views = Views(data_dir / VOLUMES)
        self._supervisors: dict[str, Supervisor] = {}

    async def open(self) -> list[Record]:
        """Find the replicas of earlier."""
        if sys.platform != "linux":
            raise RuntimeUnavailable(message="The process runtime needs Linux; use the docker runtime on this machine.")
        self._folders.open()
        used = frozenset(path.resolve() for path in self._replicas.glob(f"*/{ENVIRONMENT}"))
        await asyncio.to_thread(self._environments.prune, used, time.time())
        await asyncio.to_thread(self._bundles.prune, time.time())
        records = self._folders.load()
        for record in records:
            self._views.note(record)
        return records

    def capacity(self) -> Capacity:
        """What this machine has in all."""
        return self._machine.capacity

    def gpus(self) -> tuple[int, ...]:
        """The indices of the GPUs that replicas may use."""
        return self._machine.gpus

    def free_port(self, taken: frozenset[int]) -> int:
        """A port that nothing listens on, neither here nor among replicas that are still starting."""
        return free_port(taken)

    def platform_url(self, spec: RevisionSpec) -> str:  # noqa: ARG002 - the protocol's
        """The address at which replicas that start now reach the platform."""
        return self._platform_url()

    def doing(self, spec: RevisionSpec) -> str:  # noqa: ARG002 - the protocol's
        """Both steps, since the first one is short."""
        return "Its bundle is being unpacked, and its requirements installed."

    async def prepare(self, spec: RevisionSpec) -> None:
        """Fetch the bundle and make its environment."""
        config = (await self._bundles.fetch(spec)).config
        await self._environments.make(config.python_version, config.requirements)

    async def launch(self, record: Record, spec: RevisionSpec, key: str, mounts: Sequence[Mount]) -> None:
        """Give the replica a fresh copy of its source and start it there."""
        bundle = await self._bundles.fetch(spec)
        environment = await self._environments.make(bundle.config.python_version, bundle.config.requirements)
        folder = self._replicas / record.id
        await asyncio.to_thread(_copy_afresh, bundle.source, folder / "work")
        _point(folder / ENVIRONMENT, environment)
        platform = self._platform_variables(record, spec, key)
        command = [*(spec.command or bundle.config.command), *spec.args]
        order = {
            "command": await self._views.show(mounts, command, folder / "staging"),
            "cwd": str(folder / "work"),
            "env": {**self._own_variables(record, environment), **_chosen_variables(bundle.config, spec), **platform},
            "grace_seconds": spec.grace_period_seconds,
            "memory_bytes": int(spec.memory_gib * 1024**3),
            "log_bytes": LOG_FILE_BYTES,
        }
        self._supervisors[record.id] = await asyncio.to_thread(supervisor.spawn, folder, record.runs, order)

    async def wait(self, record: Record) -> Exit:
        """Wait for the run's end, and say what its supervisor says of it."""
        run = self._supervisor(record)
        await run.gone()
        self._supervisors.pop(record.id, None)
        note = run.exit_note()
        if note is None:
            await asyncio.to_thread(run.kill_leftovers, record.id)
            killed = "Its supervisor was killed, and the replica with it."
            return Exit(at=time.time(), began=run.began, message=killed)
        reason, message = _explain(note, record)
        return Exit(
            at=note.at, code=note.code, signal=note.signal, last_line=note.last_line, reason=reason, message=message
        )

    async def probe(self, record: Record) -> health.Probe:
        """Ask the replica's health check once."""
        return await health.probe(HOST, record.port or 0, record.spec.health_check_path)

    def terminate(self, record: Record) -> None:
        """Pass SIGTERM on to the replica's process group."""
        self._supervisor(record).terminate()

    def kill(self, record: Record) -> None:
        """Kill the replica's process group."""
        if record.id in self._supervisors:
            self._supervisors[record.id].kill()

    def save(self, record: Record) -> None:
        """Write the record down, without the variables of its environment, which hold secrets."""
        self._folders.save(record)
        self._views.note(record)

    def forget(self, record: Record) -> None:
        """Remove the replica's folder."""
        self._folders.remove(record.id)

    def log(self, replica_id: str) -> FileLog:
        """A reader of the replica's log."""
        return self._folders.log(replica_id)

    async def prefetch(self, project_id: str, image: str) -> None:
        """Nothing: bundles are small, and in the registry of the same process."""

    async def pin(self, image: str) -> str:
        """As it is: the registry has pinned it."""
        return image

    async def close(self) -> None:
        """Nothing is held open."""

    def _supervisor(self, record: Record) -> Supervisor:
        return self._supervisors.setdefault(record.id, Supervisor(self._replicas / record.id, record.runs))

    def _own_variables(self, record: Record, environment: Path) -> dict[str, str]:
        """What every replica gets first; the bundle and the deployment may override it."""
        host = urlsplit(record.platform_url or "").hostname or HOST
        # A proxy for the world outside must not stand between a replica and the platform.
        direct = {
            name: ",".join(filter(None, [self._inherited.get(name), host, HOST])) for name in ("no_proxy", "NO_PROXY")
        }
        path = self._inherited.get("PATH", os.defpath)
        places = {"VIRTUAL_ENV": str(environment), "PATH": f"{environment}/bin:{path}"}
        return {**self._inherited, **self._trust, **direct, **places}

    def _platform_variables(self, record: Record, spec: RevisionSpec, key: str) -> dict[str, str]:
        """What nobody can override."""
        return {
            "PORT": str(record.port),
            "MACHINESHOP_REPLICA_ID": record.id,
            "TOGETHER_API_KEY": key,
            "TOGETHER_API_BASE_URL": record.platform_url or self._platform_url(),
            "TOGETHER_DEPLOYMENT_NAME": spec.deployment_name,
            "TOGETHER_DEPLOYMENT_REVISION_ID": spec.revision_id,
            "TERMINATION_GRACE_PERIOD_SECONDS": str(spec.grace_period_seconds),
            "WORLD_SIZE": str(max(1, spec.gpu_count)),
            "PYTHONUNBUFFERED": "1",
            "CUDA_VISIBLE_DEVICES": ",".join(str(gpu) for gpu in record.gpus),
            # Without it CUDA numbers the GPUs in its own order, and not as the driver does.
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        }


def _chosen_variables(config: BundleConfig, spec: RevisionSpec) -> dict[str, str]:
    return {**config.environment, **spec.environment}


def _copy_afresh(source: Path, target: Path) -> None:
    """A replica starts as its bundle says, whatever its last run left behind; and none can disturb another."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)


def _point(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def _explain(note: supervisor.ExitNote, record: Record) -> tuple[str | None, str | None]:
    """The reasons that a supervisor alone knows."""
    if note.reason == "OOMKilled":
        limit = f"{record.spec.memory_gib:g} GiB"
        return (
            "OOMKilled",
            f"It used more than the {limit} of memory that it asked for. Raise memory in [tool.jig.deploy].",
        )
    if note.reason == "Overstayed":
        return (
            "Error",
            f"It did not end within its grace period of {record.spec.grace_period_seconds} s and was killed.",
        )
    return None, None
