"""The tables. The migrations build them; a test holds the two together."""

from machineshop.store.tables.base import metadata
from machineshop.store.tables.deployments import deployments, revision_events, revisions, scaling_decisions, secrets
from machineshop.store.tables.files import attempt_files, files, gone_volumes, volume_versions, volumes
from machineshop.store.tables.queues import attempts, chunks, fair_keys, jobs, lines, queues
from machineshop.store.tables.registry import (
    blob_keys,
    manifest_references,
    manifests,
    repositories,
    repository_blobs,
    tags,
)
from machineshop.store.tables.server import leases, settings
from machineshop.store.tables.tenants import api_keys, audit_events, organizations, projects
from machineshop.store.tables.webhooks import webhook_secrets, webhook_signing, webhooks

__all__ = [
    "api_keys",
    "attempt_files",
    "attempts",
    "audit_events",
    "blob_keys",
    "chunks",
    "deployments",
    "fair_keys",
    "files",
    "gone_volumes",
    "jobs",
    "leases",
    "lines",
    "manifest_references",
    "manifests",
    "metadata",
    "organizations",
    "projects",
    "queues",
    "repositories",
    "repository_blobs",
    "revision_events",
    "revisions",
    "scaling_decisions",
    "secrets",
    "settings",
    "tags",
    "volume_versions",
    "volumes",
    "webhook_secrets",
    "webhook_signing",
    "webhooks",
]
