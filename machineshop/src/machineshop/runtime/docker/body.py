"""What a container is created with, from a replica's record and its revision. Pure."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from machineshop.runtime.base import RevisionSpec
from machineshop.runtime.docker.images import Image
from machineshop.runtime.engine import Mount
from machineshop.runtime.record import Record
from machineshop.runtime.trust import trust_variables

INSTANCE_LABEL = "machineshop.instance"
REPLICA_LABEL = "machineshop.replica"
DEPLOYMENT_LABEL = "machineshop.deployment"
PROJECT_LABEL = "machineshop.project"
RUN_LABEL = "machineshop.run"
RECORD_LABEL = "machineshop.record"
"""The record as it was at the start, without its environment: what is left where the data directory is not."""

PLATFORM_HOST = "host.docker.internal"
"""The name of this machine inside of containers; Docker Desktop and Podman know it too."""
HOST_GATEWAY = "host-gateway"
"""Docker's word for this machine's address as containers know it; Podman 4 has none."""
PUBLISHED_AT = "127.0.0.1"
CA_FILE = "/etc/machineshop/ca.pem"

LONGEST_HOSTNAME = 63
KEPT_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID")
"""What images need that begin as root and go on as somebody else, or listen below 1024. All others are dropped."""
GIB = 1024**3


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What no deployment asks for and every container gets."""

    pids: int = 4096
    """Processes and threads: a server with data loaders has some hundreds, and one that forks without end stops here
    long before the machine does."""
    log_bytes: int = 10 * 1024**2
    """Of a file of the engine's own log, of which it keeps two. The platform copies it as it grows."""
    shared_memory_share: float = 0.5
    """Of the container's memory, for /dev/shm, through which data loaders and ranks pass tensors."""


class Network(msgspec.Struct, frozen=True):
    """A project's network."""

    name: str
    machine_address: str = HOST_GATEWAY
    """This machine's, for containers in it."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine is able to do."""

    instance: str
    cpus: int
    architecture: str
    init: bool
    """It has a small init, which passes signals on and reaps: so it is believed until a start shows that it has not."""
    sized_storage: bool
    """A container's writable layer can be bounded, as far as is known before one is tried."""
    gpu_runtime: bool = False
    """It has NVIDIA's runtime, and hands GPUs to whoever asks through the environment, so who has none must say so."""
    ca_bundle: Path | None = None
    """A file of the authorities that replicas trust; None: as their images do."""
    limits: Limits = Limits()


def container(
    record: Record,
    spec: RevisionSpec,
    image: Image,
    key: str,
    network: Network,
    machine: Machine,
    volumes: Sequence[Mount] = (),
) -> dict[str, Any]:
    """The body of the engine's create call."""
    port = f"{spec.port}/tcp"
    command = {"Entrypoint": list(spec.command)} if spec.command else {}
    args = {"Cmd": list(spec.args)} if spec.args else {}
    return {
        "Image": image.id,
        **command,
        **args,
        "Hostname": record.id[-LONGEST_HOSTNAME:].lstrip("-"),
        "Env": [f"{name}={value}" for name, value in _environment(record, spec, key, machine).items()],
        "Labels": labels(record, machine.instance),
        "ExposedPorts": {port: {}},
        "HostConfig": {
            **_resources(spec, machine),
            **_gpus(record.gpus),
            **_protection(image),
            "PortBindings": {port: [{"HostIp": PUBLISHED_AT, "HostPort": str(record.port)}]},
            "ExtraHosts": [f"{PLATFORM_HOST}:{network.machine_address}"],
            "NetworkMode": network.name,
            "Mounts": _mounts(image, machine, volumes),
            "RestartPolicy": {"Name": "no"},  # when to start again is the planner's matter
            "LogConfig": {
                "Type": "json-file",
                "Config": {"max-size": str(machine.limits.log_bytes), "max-file": "2"},
            },
            **({"Init": True} if machine.init else {}),
        },
    }


def labels(record: Record, instance: str) -> dict[str, str]:
    """By which a container is found again, and told from those of others."""
    bare = msgspec.structs.replace(record, spec=msgspec.structs.replace(record.spec, environment={}))
    return {
        INSTANCE_LABEL: instance,
        REPLICA_LABEL: record.id,
        DEPLOYMENT_LABEL: record.spec.deployment_name,
        PROJECT_LABEL: record.spec.project_id,
        RUN_LABEL: str(record.runs),
        RECORD_LABEL: msgspec.json.encode(bare).decode(),
    }


def _environment(record: Record, spec: RevisionSpec, key: str, machine: Machine) -> dict[str, str]:
    """The deployment's variables and the platform's, which win; but whom to trust is the deployment's choice."""
    trust = trust_variables(PurePosixPath(CA_FILE)) if machine.ca_bundle is not None else {}
    visible: dict[str, str] = {}
    if not spec.gpu_count:
        visible = {"CUDA_VISIBLE_DEVICES": "", **({"NVIDIA_VISIBLE_DEVICES": "void"} if machine.gpu_runtime else {})}
    return {
        "PYTHONUNBUFFERED": "1",
        **trust,
        **spec.environment,
        **visible,
        "PORT": str(spec.port),
        "MACHINESHOP_REPLICA_ID": record.id,
        "TOGETHER_API_KEY": key,
        "TOGETHER_API_BASE_URL": record.platform_url or "",
        "TOGETHER_DEPLOYMENT_NAME": spec.deployment_name,
        "TOGETHER_DEPLOYMENT_REVISION_ID": spec.revision_id,
        "TERMINATION_GRACE_PERIOD_SECONDS": str(spec.grace_period_seconds),
        "WORLD_SIZE": str(max(1, spec.gpu_count)),
    }


def _resources(spec: RevisionSpec, machine: Machine) -> dict[str, Any]:
    memory_bytes = int(spec.memory_gib * GIB)
    asked: dict[str, Any] = {
        # The engine refuses more than the machine has; the platform lets machines be shared out more than once.
        "NanoCpus": int(min(spec.cpu, machine.cpus) * 10**9),
        "Memory": memory_bytes,
        "MemorySwap": memory_bytes,  # with swap a limit would not be one
        "ShmSize": int(memory_bytes * machine.limits.shared_memory_share),
        "PidsLimit": machine.limits.pids,
    }
    if machine.sized_storage and spec.storage_gib:
        asked["StorageOpt"] = {"size": f"{spec.storage_gib}G"}
    return asked


def _gpus(gpus: tuple[int, ...]) -> dict[str, Any]:
    """These of the machine's GPUs; inside they are numbered from 0."""
    if not gpus:
        return {}
    request = {"Driver": "nvidia", "DeviceIDs": [str(gpu) for gpu in gpus], "Capabilities": [["gpu"]]}
    return {"DeviceRequests": [request]}


def _protection(image: Image) -> dict[str, Any]:
    return {
        "SecurityOpt": ["no-new-privileges"],
        "CapDrop": ["ALL"],
        "CapAdd": list(KEPT_CAPABILITIES),
        "ReadonlyRootfs": image.read_only_root,
    }


def _mounts(image: Image, machine: Machine, volumes: Sequence[Mount]) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [
        {"Type": "bind", "Source": str(volume.folder), "Target": volume.path, "ReadOnly": True} for volume in volumes
    ]
    if machine.ca_bundle is not None:
        mounts.append({"Type": "bind", "Source": str(machine.ca_bundle), "Target": CA_FILE, "ReadOnly": True})
    if image.read_only_root:  # a nameless volume, which goes with its container
        mounts.append({"Type": "volume", "Target": "/tmp"})  # noqa: S108 - the container's own
    return mounts
