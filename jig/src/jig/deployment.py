"""What a config asks the platform for, and what a deployment's answer says about the machine. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jig.config.model import Config, EnvironmentVariable, ModelMount, VolumeMount
from jig.errors import DeployError

REVISION_VARIABLE = "TOGETHER_DEPLOYMENT_REVISION_ID"
REVISION_SHOWN = 8
BUNDLE, IMAGE = "bundle", "image"  # what GET /v1/runtime says under `accepts`
LOCAL_RUNTIMES = ("process", "docker")  # their GPUs are those of one machine, which GET /v1/runtime counts


@dataclass(frozen=True)
class Artifact:
    """What a deployment runs.

    Args:
        reference: of the image or bundle.
        has_command: it brings the config's command along, which the deployment then need not name.
    """

    reference: str
    has_command: bool


def wants_image(runtime: Mapping[str, Any], *, is_image_project: bool) -> bool:
    """True where an image is to be built: the runtime takes nothing else, or takes it too and the project needs it.

    Args:
        runtime: what the platform says of its runtime; one that says nothing takes images.
        is_image_project: the project has something that a bundle cannot have.
    """
    accepts = runtime.get("accepts") or [IMAGE]
    return BUNDLE not in accepts or (IMAGE in accepts and is_image_project)


def create_body(config: Config, image: str, *, has_command: bool) -> dict[str, Any]:
    """The body of POST /v1/deployments."""
    return {"name": config.name, **update_body(config, image, has_command=has_command)}


def update_body(config: Config, image: str, *, has_command: bool) -> dict[str, Any]:
    """The body of PATCH: every field, so that what is no longer in the config is no longer in force.

    Args:
        config: the project's config.
        image: the reference of what should run.
        has_command: the image or bundle brings the config's command along.
    """
    deploy = config.deploy
    body: dict[str, Any] = {
        "description": deploy.description,
        "image": image,
        "gpu_type": deploy.gpu_type,
        "gpu_count": deploy.gpu_count,
        "cpu": deploy.cpu,
        "memory": deploy.memory,
        "storage": deploy.storage,
        "min_replicas": deploy.min_replicas,
        "max_replicas": deploy.max_replicas,
        "port": deploy.port,
        "command": [] if has_command else list(deploy.command),
        "environment_variables": [variable_body(variable) for variable in deploy.environment_variables],
        "autoscaling": dict(deploy.autoscaling),
        "health_check_path": deploy.health_check_path,
        "termination_grace_period_seconds": deploy.termination_grace_period_seconds,
        "rollback_on_failure": deploy.rollback_on_failure,
        "startup_timeout_seconds": deploy.startup_timeout_seconds,
        "progress_timeout_seconds": deploy.progress_timeout_seconds,
        "volumes": [volume_body(mount) for mount in deploy.volume_mounts],
        "model_mounts": [model_body(mount) for mount in deploy.model_mounts],
    }
    if config.experimental.capacity_type:
        body["capacity_type"] = config.experimental.capacity_type
    if config.experimental.auto_optimize:
        body["experimental"] = {"auto_optimize": True}
    return body


def variable_body(variable: EnvironmentVariable) -> dict[str, str]:
    """One of environment_variables."""
    if variable.secret is not None:
        return {"name": variable.name, "value_from_secret": variable.secret}
    return {"name": variable.name, "value": variable.value or ""}


def volume_body(mount: VolumeMount) -> dict[str, object]:
    """One of volumes."""
    version = {} if mount.version is None else {"version": mount.version}
    return {"name": mount.name, "mount_path": mount.mount_path, **version}


def model_body(mount: ModelMount) -> dict[str, str]:
    """One of model_mounts."""
    model_id, _, revision_id = mount.model.partition("@")
    revision = {"revision_id": revision_id} if revision_id else {}
    return {"model_id": model_id, "mount_path": mount.mount_path, **revision}


def revision_of(deployment: Mapping[str, Any]) -> str | None:
    """The revision that the deployment should be at."""
    for variable in deployment.get("environment_variables") or []:
        if variable.get("name") == REVISION_VARIABLE:
            return str(variable.get("value"))
    return None


def revision_name(number: object, revision: object) -> str:
    """`14 (7d675543)`: a revision's number, where it is known, and as much of its id as people compare."""
    short = str(revision or "-")[-REVISION_SHOWN:]
    return short if number is None else f"{number} ({short})"


def check_gpus(config: Config, runtime: Mapping[str, Any]) -> None:
    """Refuse to ask a machine without GPUs for one.

    Raises:
        DeployError: the config wants a GPU, and this platform has none.
    """
    deploy = config.deploy
    if deploy.gpu_count == 0 or runtime.get("runtime") not in LOCAL_RUNTIMES or runtime.get("gpus", 0) > 0:
        return
    mend = 'gpu = "none"' if config.worker else 'gpu_type = "none" under deploy'
    message = f"{config.name} asks for {deploy.gpu_count} x {deploy.gpu_type}, and this platform has no GPU."
    raise DeployError(message, hint=f"To run it on the CPU, write {mend} in {config.path.name}.")
