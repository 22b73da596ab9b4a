"""What a deployment's configuration must satisfy. Pure: values in, a checked configuration or an error out."""

import re
from collections import Counter
from typing import Any

import msgspec

from machineshop.errors import InsufficientCapacity, InvalidRequest
from machineshop.ids import is_id
from machineshop.models import DeploymentConfig
from machineshop.services import scaling_policy
from machineshop.services.malformed import malformed
from machineshop.services.volume_rules import check_mounts

NAME = re.compile(r"[a-z0-9][a-z0-9-]{3,62}")
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
GPU_TYPES = ("none", "h100-80gb", "h100-40gb-mig", "h200-140gb", "b200-192gb", "a100-80gb")
CPU_ONLY = "none"
_CONFIG = msgspec.json.Decoder(DeploymentConfig)
# Parts of the API's own paths: `/v1/deployments/secrets`.
RESERVED_NAMES = frozenset({"prewarm", "secrets", "storage"})

# The kernel passes no longer word or variable on to a process; its last byte is a zero.
MAX_STRING_BYTES = 128 * 1024 - 1
# Container engines take no less than 6 MB, and nothing runs in less.
MIN_MEMORY_GIB = 0.01

# A change of these alone changes nothing in what a replica runs, so it makes no new revision.
UNREVISIONED_FIELDS = frozenset(
    {
        "min_replicas",
        "max_replicas",
        "autoscaling",
        "description",
        "rollback_on_failure",
        "startup_timeout_seconds",
        "progress_timeout_seconds",
    }
)


def parse(fields: dict[str, Any]) -> DeploymentConfig:
    """A configuration from a request's fields; unknown ones are ignored, as clients of other versions send some.

    Raises:
        MalformedBody: A field is missing or has the wrong type; `param` names it.
        InvalidRequest: A field's value is not allowed, alone or beside the others.
    """
    body = msgspec.json.encode(fields)
    try:
        config = _CONFIG.decode(body)
    except msgspec.ValidationError as error:
        raise malformed(error, body, _CONFIG) from None
    _check_name(config.name)
    _check_gpu(config)
    _check_memory(config.memory)
    _check_replicas(config)
    _check_environment(config)
    _check_mounts(config)
    _check_command(config)
    _check_health_path(config.health_check_path)
    _check_description(config.description)
    return msgspec.structs.replace(
        config,
        max_replicas=config.min_replicas if config.max_replicas is None else config.max_replicas,
        autoscaling=scaling_policy.checked(config.autoscaling),
    )


def patched(config: DeploymentConfig, changes: dict[str, Any]) -> DeploymentConfig:
    """`config` with a request's fields laid over it: what is left out stays, lists are replaced whole.

    Raises:
        InvalidRequest: As `parse`, or the name would change.
    """
    if changes.get("name", config.name) != config.name:
        raise InvalidRequest(
            f"A deployment's name cannot be changed (from '{config.name}' to '{changes['name']}'); "
            "deploy under the new name and destroy the old one.",
            param="name",
        )
    fields = {**msgspec.to_builtins(config), **changes}
    if "min_replicas" in changes and "max_replicas" not in changes and config.max_replicas == config.min_replicas:
        fields["max_replicas"] = None  # the two were one number, and stay so
    return parse(fields)


def with_revision(config: DeploymentConfig, revision: DeploymentConfig) -> DeploymentConfig:
    """`config` with all that replicas run as it was in a revision."""
    kept = {field: getattr(config, field) for field in UNREVISIONED_FIELDS}
    return msgspec.structs.replace(revision, name=config.name, **kept)


def makes_revision(old: DeploymentConfig, new: DeploymentConfig) -> bool:
    """Whether replicas have to be replaced to get from one configuration to the other."""
    return any(
        getattr(old, field) != getattr(new, field)
        for field in DeploymentConfig.__struct_fields__
        if field not in UNREVISIONED_FIELDS
    )


def check_capacity(config: DeploymentConfig, gpus: int) -> None:
    """Refuse what this machine can never run.

    Raises:
        InsufficientCapacity: A replica needs more GPUs than there are.
    """
    if config.gpu_count > gpus:
        has = "no GPU" if gpus == 0 else f"{gpus} GPU{'s' if gpus > 1 else ''}"
        raise InsufficientCapacity(
            f"A replica of '{config.name}' asks for {config.gpu_count} x {config.gpu_type}, "
            f"and this machine has {has}. To run it on the CPU, set gpu_type to 'none' and gpu_count to 0 "
            '(in jig\'s short form: gpu = "none").',
            param="gpu_count",
        )


def secrets_of(config: DeploymentConfig) -> dict[str, str]:
    """The names of secrets, by the variables that are to hold them."""
    return {v.name: v.value_from_secret for v in config.environment_variables if v.value_from_secret is not None}


def mounted_versions(config: DeploymentConfig) -> dict[str, int]:
    """The versions of the volumes that a configuration mounts, by their names."""
    return {mount.name: mount.version for mount in config.volumes if mount.version is not None}


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise InvalidRequest(
            f"'{name}' cannot be a deployment's name: use 4 to 63 lowercase letters, digits and hyphens, "
            "beginning with a letter or digit.",
            param="name",
        )
    if name in RESERVED_NAMES:
        raise InvalidRequest(f"'{name}' cannot be a deployment's name: a part of the API is called that.", param="name")
    if is_id(name):
        raise InvalidRequest(
            f"'{name}' cannot be a deployment's name: it looks like the id of one. Call it otherwise.", param="name"
        )


def _check_gpu(config: DeploymentConfig) -> None:
    if config.gpu_type not in GPU_TYPES:
        raise InvalidRequest(
            f"'{config.gpu_type}' is no gpu_type that we know; use one of {', '.join(GPU_TYPES)}.", param="gpu_type"
        )
    if config.gpu_type == CPU_ONLY and config.gpu_count > 0:
        raise InvalidRequest(
            f"gpu_count is {config.gpu_count}, but gpu_type is 'none': set gpu_count to 0, or name a GPU.",
            param="gpu_count",
        )


def _check_memory(memory_gib: float) -> None:
    if memory_gib < MIN_MEMORY_GIB:
        raise InvalidRequest(
            f"memory is {memory_gib:g} GiB, in which nothing can run: it is in GiB, and at least {MIN_MEMORY_GIB}.",
            param="memory",
        )


def _check_replicas(config: DeploymentConfig) -> None:
    if config.max_replicas is not None and config.max_replicas < config.min_replicas:
        raise InvalidRequest(
            f"max_replicas ({config.max_replicas}) is below min_replicas ({config.min_replicas}): "
            "raise the one or lower the other.",
            param="max_replicas",
        )


def _check_environment(config: DeploymentConfig) -> None:
    repeated = [name for name, times in Counter(v.name for v in config.environment_variables).items() if times > 1]
    if repeated:
        raise InvalidRequest(f"The variable '{repeated[0]}' is set twice.", param="environment_variables")
    for variable in config.environment_variables:
        if not VARIABLE_NAME.fullmatch(variable.name):
            raise InvalidRequest(
                f"'{variable.name}' cannot be a variable's name: use letters, digits and '_', no digit first.",
                param="environment_variables",
            )
        if variable.value_from_secret is not None and variable.value is not None:
            raise InvalidRequest(
                f"The variable '{variable.name}' has both a value and a secret; keep one.",
                param="environment_variables",
            )
        if "\x00" in (variable.value or ""):
            raise InvalidRequest(
                f"The variable '{variable.name}' holds a NUL character, which no environment can.",
                param="environment_variables",
            )
        if _size(f"{variable.name}={variable.value or ''}") > MAX_STRING_BYTES:
            raise InvalidRequest(
                f"The variable '{variable.name}' is longer than {MAX_STRING_BYTES} bytes, which no environment can "
                "hold: put the value into a file of the artifact.",
                param="environment_variables",
            )


def _check_mounts(config: DeploymentConfig) -> None:
    if config.model_mounts:
        raise InvalidRequest(
            f"The model '{config.model_mounts[0].model_id}' cannot be mounted: there is no registry of models here. "
            "Put its files into a volume (`jig volumes create`) and mount that, or put them into the artifact.",
            param="model_mounts",
        )
    check_mounts(config.volumes)


def _check_command(config: DeploymentConfig) -> None:
    for field in ("command", "args"):
        if any("\x00" in word for word in getattr(config, field)):
            raise InvalidRequest(f"{field} holds a NUL character, which no command line can.", param=field)
        if any(_size(word) > MAX_STRING_BYTES for word in getattr(config, field)):
            raise InvalidRequest(
                f"A word of {field} is longer than {MAX_STRING_BYTES} bytes, which no command line can hold: put it "
                "into a file of the artifact.",
                param=field,
            )


def _size(text: str) -> int:
    """Bytes as a process is given them."""
    return len(text.encode())


def _check_health_path(path: str) -> None:
    if path and not (path.startswith("/") and path.isascii() and path.isprintable() and " " not in path):
        raise InvalidRequest(
            "health_check_path must begin with '/' and be fit for a URL, or be empty to turn checks off.",
            param="health_check_path",
        )


def _check_description(text: str) -> None:
    if "\x00" in text:
        raise InvalidRequest("description holds a NUL character, which not every database can.", param="description")
