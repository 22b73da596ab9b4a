"""The nouns of the platform as immutable values. Times are seconds since the epoch, sizes are bytes."""

from machineshop.models.deployments import (
    Deployment,
    DeploymentConfig,
    EnvironmentVariable,
    ModelMount,
    Revision,
    RevisionEvent,
    RevisionFailure,
    ScalingDecision,
    VolumeMount,
)
from machineshop.models.files import MAX_VOLUME_VERSION, Contents, StoredFile, Volume, VolumeOrigin, VolumeVersion
from machineshop.models.queues import Claim, FairKey, Include, Job, QueueCounts, QueueSettings, Worker
from machineshop.models.secrets import SealedValue, Secret
from machineshop.models.tenants import DEFAULT_SLUG, Actor, ApiKey, AuditEvent, Identity, Organization, Project, Scope

__all__ = [
    "DEFAULT_SLUG",
    "MAX_VOLUME_VERSION",
    "Actor",
    "ApiKey",
    "AuditEvent",
    "Claim",
    "Contents",
    "Deployment",
    "DeploymentConfig",
    "EnvironmentVariable",
    "FairKey",
    "Identity",
    "Include",
    "Job",
    "ModelMount",
    "Organization",
    "Project",
    "QueueCounts",
    "QueueSettings",
    "Revision",
    "RevisionEvent",
    "RevisionFailure",
    "ScalingDecision",
    "Scope",
    "SealedValue",
    "Secret",
    "StoredFile",
    "Volume",
    "VolumeMount",
    "VolumeOrigin",
    "VolumeVersion",
    "Worker",
]
