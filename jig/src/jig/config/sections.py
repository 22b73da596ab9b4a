"""From TOML to a Config: one function a section, long form and short form alike. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from jig.config.model import (
    NO_GPU,
    Config,
    DeployConfig,
    EnvironmentVariable,
    ExperimentalConfig,
    ImageConfig,
    ModelMount,
    VolumeMount,
)
from jig.config.table import Table

GPU_TYPES = {
    "a100": "a100-80gb",
    "h100": "h100-80gb",
    "h200": "h200-140gb",
    "b200": "b200-192gb",
    "none": NO_GPU,
    "cpu": NO_GPU,
}
LONG_FORM_GPU = ("h100-80gb", 1)
AUTOSCALING_KEYS = (
    "metric",
    "target",
    "model",
    "time_interval_minutes",
    "custom_metric_name",
    "stabilization_seconds",
    "idle_seconds",
    "max_step",
    "profile",
    "targetValue",
)
MOVED_TO_DEPLOY = ("autoscaling", "volume_mounts", "model_mounts")
CAPACITY_TYPES = ("stable", "preemptible")
NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]{3,62}")
NAME_RULE = "4 to 63 lowercase letters, digits and hyphens, starting with a letter or digit"
EXAMPLE_NAME = "hello-world"
WORKER_PATTERN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
MODEL_PATTERN = re.compile(r"ml_[^@]+(@rv_[^@]+)?")
MOUNT_HINT = "Mount paths are absolute and plain, like /data, and stand beside each other."


def read_config(values: Mapping[str, object], path: Path, prefix: str, fallback_name: str) -> Config:
    """A config from the values of its table.

    Args:
        values: what `[tool.jig]`, or the whole of jig.toml, holds.
        path: the file, for errors and as the project's place.
        prefix: the table's name in that file, `tool.jig` or empty.
        fallback_name: the project's or the folder's name, where the config has none.

    Raises:
        ConfigError: a key is unknown, of the wrong type, out of bounds, or at odds with another.
    """
    table = Table(values, path.name, prefix)
    values, warnings = with_moved_keys(table, values)
    table = Table(values, path.name, prefix)
    name = read_name(table, fallback_name)
    worker = read_worker(table)
    image = read_image(table.table("image"))
    deploy = read_deploy(table.table("deploy"), name, read_gpu(table, worker))
    experimental = read_experimental(table.table("experimental"))
    table.done()
    return Config(name, worker, image, deploy, experimental, path, tuple(warnings))


def with_moved_keys(table: Table, values: Mapping[str, object]) -> tuple[Mapping[str, object], list[str]]:
    """The values with the deprecated top-level keys put where they belong, and a warning for each."""
    moved = [key for key in MOVED_TO_DEPLOY if key in values]
    if not moved:
        return values, []
    deploy = {**table.mapping("deploy"), **{key: values[key] for key in moved}}
    kept = {key: value for key, value in values.items() if key not in moved}
    warnings = [
        f"{table.full_name(key)} is deprecated: write {table.full_name('deploy')}.{key} instead." for key in moved
    ]
    return {**kept, "deploy": deploy}, warnings


def read_name(table: Table, fallback: str) -> str:
    """The deployment's name, checked."""
    name = table.text("name", fallback)
    if NAME_PATTERN.fullmatch(name):
        return name
    hint = f'Write name = "{nearest_name(name)}".'
    if "name" in table:
        raise table.wrong("name", NAME_RULE, hint)
    raise table.missing("name", f'"{name}" cannot stand in: a name is {NAME_RULE}.', hint)


def nearest_name(text: str) -> str:
    """What a deployment may be called instead: the text itself where it can be a name."""
    near = slug(text)
    if not near:
        return EXAMPLE_NAME
    return near if NAME_PATTERN.fullmatch(near) else f"{near}-worker"  # too short


def slug(text: str) -> str:
    """The text in lowercase, with hyphens for all that a name may not hold."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63]


def read_worker(table: Table) -> str | None:
    """The short form's `module:Class`."""
    worker = table.text_or_none("worker")
    if worker is not None and not WORKER_PATTERN.fullmatch(worker):
        raise table.wrong("worker", '"module:Class", like "worker:Hello"')
    return worker


def read_gpu(table: Table, worker: str | None) -> tuple[str, int]:
    """The GPU type and count that hold where `deploy` says nothing: the short form's, else the long form's default."""
    gpu = table.text_or_none("gpu")
    gpu_count = table.whole("gpu_count", 1, at_most=64)
    if gpu is None:
        if worker is None:
            return LONG_FORM_GPU[0], gpu_count
        if gpu_count > 0 and "gpu_count" in table:
            raise table.wrong("gpu_count", "0 without a gpu", 'Say which: gpu = "H100".')
        return NO_GPU, 0
    gpu_type = GPU_TYPES.get(gpu.lower(), gpu.lower())
    if gpu_type not in (*GPU_TYPES.values(), "h100-40gb-mig"):
        raise table.wrong("gpu", "one of A100, H100, H200, B200, none")
    return gpu_type, 0 if gpu_type == NO_GPU else gpu_count


def read_image(table: Table) -> ImageConfig:
    """`[tool.jig.image]`."""
    image = ImageConfig(
        python_version=table.text("python_version", "3.11"),
        system_packages=table.texts("system_packages"),
        environment=read_environment_values(table.table("environment"), table.mapping("environment")),
        run=table.texts("run"),
        cmd=table.text("cmd", "python app.py"),
        copy=table.texts("copy"),
        auto_include_git=table.flag("auto_include_git", default=False),
        dockerfile_path=table.text("dockerfile_path", "Dockerfile"),
        extras=table.texts("extras"),
        groups=table.texts("groups"),
    )
    table.done()
    return image


def read_environment_values(table: Table, values: Mapping[str, object]) -> dict[str, str]:
    """Names and values, where secrets have no place."""
    return {name: table.text(name, "") for name in values}


def read_deploy(table: Table, name: str, gpu: tuple[str, int]) -> DeployConfig:
    """`[tool.jig.deploy]`, with the GPU that holds where it names none."""
    gpu_type, gpu_count = read_deploy_gpu(table, gpu)
    min_replicas = table.whole("min_replicas", 1)
    max_replicas = table.whole("max_replicas", max(1, min_replicas))
    if max_replicas < min_replicas:
        raise table.wrong("max_replicas", f"at least min_replicas, {min_replicas}")
    deploy = DeployConfig(
        description=table.text("description", ""),
        gpu_type=gpu_type,
        gpu_count=gpu_count,
        cpu=table.number("cpu", 1, at_least=0.1),
        memory=table.number("memory", 8, at_least=0.1, at_most=1000),
        storage=table.whole("storage", 100, at_most=400),
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        port=table.whole("port", 8000, at_least=1, at_most=65535),
        environment_variables=read_environment(table),
        command=table.texts("command"),
        image=table.text_or_none("image"),
        health_check_path=table.text("health_check_path", "/health"),
        termination_grace_period_seconds=table.whole("termination_grace_period_seconds", 300),
        rollback_on_failure=table.flag("rollback_on_failure", default=False),
        startup_timeout_seconds=table.whole("startup_timeout_seconds", 1800, at_least=1, at_most=86400),
        progress_timeout_seconds=read_progress_timeout(table),
        autoscaling=read_autoscaling(table, name),
        volume_mounts=read_volume_mounts(table),
        model_mounts=tuple(read_model_mount(mount) for mount in table.tables("model_mounts")),
    )
    table.done()
    return deploy


def read_deploy_gpu(table: Table, gpu: tuple[str, int]) -> tuple[str, int]:
    """What `deploy` says about GPUs, over the short form or the default; none means a count of 0."""
    gpu_type = table.text("gpu_type", gpu[0])
    inherited = gpu[1] if gpu_type == gpu[0] else 1
    gpu_count = table.whole("gpu_count", 0 if gpu_type == NO_GPU else inherited, at_most=64)
    if gpu_type == NO_GPU and gpu_count > 0:
        raise table.wrong("gpu_count", "0 without a GPU", 'Say which: gpu_type = "h100-80gb".')
    return gpu_type, gpu_count


def read_environment(table: Table) -> tuple[EnvironmentVariable, ...]:
    """`environment_variables`: `NAME = "value"`, or `NAME = {secret = "..."}`."""
    variables = table.table("environment_variables")
    return tuple(
        read_variable(variables, name, value) for name, value in table.mapping("environment_variables").items()
    )


def read_variable(table: Table, name: str, value: object) -> EnvironmentVariable:
    """One variable of the deployment."""
    if isinstance(value, dict):
        reference = table.table(name)
        secret = reference.required("secret")
        reference.done()
        return EnvironmentVariable(name=name, secret=secret)
    if not isinstance(value, str):
        raise table.wrong(name, 'a string, or {secret = "..."}')
    return EnvironmentVariable(name=name, value=value)


def read_autoscaling(table: Table, name: str) -> dict[str, object]:
    """The scaling policy as the platform takes it; a queue's backlog is this deployment's unless it names another."""
    policy = dict(table.mapping("autoscaling"))
    table.table("autoscaling").no_slips(AUTOSCALING_KEYS)
    return {"model": name, **policy} if policy else {}


def read_progress_timeout(table: Table) -> int | None:
    """How long a model may say nothing of its job; None for ever."""
    seconds = table.whole("progress_timeout_seconds", 0, at_most=86400)
    return seconds or None


def read_volume_mounts(table: Table) -> tuple[VolumeMount, ...]:
    """`volume_mounts`, none of which is where another one is, or in it."""
    tables = table.tables("volume_mounts")
    mounts = tuple(read_volume_mount(each) for each in tables)
    for at, mount in enumerate(mounts):
        for other in mounts[:at]:
            if mount.mount_path == other.mount_path:
                raise tables[at].wrong("mount_path", f"another path than that of the volume {other.name}", MOUNT_HINT)
            if PurePosixPath(mount.mount_path).is_relative_to(other.mount_path) or PurePosixPath(
                other.mount_path
            ).is_relative_to(mount.mount_path):
                beside = (
                    f"beside {other.mount_path}, where the volume {other.name} is mounted, not one within the other"
                )
                raise tables[at].wrong("mount_path", beside, MOUNT_HINT)
    return mounts


def read_volume_mount(table: Table) -> VolumeMount:
    """One item of `volume_mounts`."""
    version = table.whole("version", 0) if "version" in table else None
    mount = VolumeMount(name=table.required("name"), mount_path=read_mount_path(table), version=version)
    table.whole("version", 0)
    table.done()
    return mount


def read_model_mount(table: Table) -> ModelMount:
    """One item of `model_mounts`."""
    mount = ModelMount(model=table.required("model"), mount_path=read_mount_path(table))
    if not MODEL_PATTERN.fullmatch(mount.model):
        raise table.wrong("model", '"ml_..." or "ml_...@rv_..."')
    table.done()
    return mount


def read_mount_path(table: Table) -> str:
    """Where a mount is seen."""
    path = table.required("mount_path")
    if not path.startswith("/"):
        raise table.wrong("mount_path", "an absolute path", MOUNT_HINT)
    if any(part in ("", ".", "..") for part in path[1:].split("/")):
        raise table.wrong("mount_path", "the plain path of a folder, and not that of the root", MOUNT_HINT)
    return path


def read_experimental(table: Table) -> ExperimentalConfig:
    """`[tool.jig.experimental]`."""
    capacity_type = table.text_or_none("capacity_type")
    if capacity_type is not None and capacity_type not in CAPACITY_TYPES:
        raise table.wrong("capacity_type", f"one of {', '.join(CAPACITY_TYPES)}")
    experimental = ExperimentalConfig(table.flag("auto_optimize", default=False), capacity_type)
    table.done()
    return experimental
