"""What a config says, after reading: frozen, complete, with every default filled in."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NO_GPU = "none"


@dataclass(frozen=True)
class ImageConfig:
    """`[tool.jig.image]`: what the code runs in."""

    python_version: str
    system_packages: tuple[str, ...]
    environment: Mapping[str, str]
    run: tuple[str, ...]
    cmd: str
    copy: tuple[str, ...]
    auto_include_git: bool
    dockerfile_path: str
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class EnvironmentVariable:
    """A variable of the deployment: a value of its own, or the name of a secret."""

    name: str
    value: str | None = None
    secret: str | None = None


@dataclass(frozen=True)
class VolumeMount:
    """A volume and where the replica sees it; without a version the platform chooses."""

    name: str
    mount_path: str
    version: int | None


@dataclass(frozen=True)
class ModelMount:
    """A model, `ml_...` or `ml_...@rv_...`, and where the replica sees it."""

    model: str
    mount_path: str


@dataclass(frozen=True)
class DeployConfig:
    """`[tool.jig.deploy]`: what runs, and how much of it. Memory and storage are GiB, cpu is cores."""

    description: str
    gpu_type: str
    gpu_count: int
    cpu: float
    memory: float
    storage: int
    min_replicas: int
    max_replicas: int
    port: int
    environment_variables: tuple[EnvironmentVariable, ...]
    command: tuple[str, ...]
    image: str | None
    health_check_path: str
    termination_grace_period_seconds: int
    rollback_on_failure: bool
    startup_timeout_seconds: int
    progress_timeout_seconds: int | None
    autoscaling: Mapping[str, object]
    volume_mounts: tuple[VolumeMount, ...]
    model_mounts: tuple[ModelMount, ...]


@dataclass(frozen=True)
class ExperimentalConfig:
    """`[tool.jig.experimental]`."""

    auto_optimize: bool
    capacity_type: str | None


@dataclass(frozen=True)
class Config:
    """A whole config.

    Args:
        name: of the deployment.
        worker: `module:Class` of the short form, or None.
        path: the file that it was read from.
        warnings: what its reader should tell the user.
    """

    name: str
    worker: str | None
    image: ImageConfig
    deploy: DeployConfig
    experimental: ExperimentalConfig
    path: Path
    warnings: tuple[str, ...] = ()

    @property
    def directory(self) -> Path:
        """The project's folder."""
        return self.path.parent

    @property
    def command(self) -> tuple[str, ...]:
        """What a bundle runs: deploy.command, else the worker, else image.cmd."""
        if self.deploy.command:
            return self.deploy.command
        if self.worker:
            return ("python", "-m", "sprocket", self.worker, "--queue")
        return tuple(shlex.split(self.image.cmd))
