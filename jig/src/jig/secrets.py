"""A project's secrets: which it has is remembered in `.jig.json`, the values are the platform's alone.

The secret of the variable NAME is called `<deployment>-NAME` there. What is remembered becomes part of the deployment
with the next `jig deploy`; a folder that remembers nothing yet takes it from the deployment as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from jig.client import Client
from jig.config.model import Config, EnvironmentVariable
from jig.deployment import revision_of
from jig.errors import ConfigError, NotFoundError
from jig.state import State
from jig.units import moment

SECRETS = "/v1/deployments/secrets"
# As long as the shortest of the longer lifetimes: whoever deploys once a week sees it in time.
WARNING_WINDOW = timedelta(days=7)


def full_name(deployment: str, variable: str) -> str:
    """What the secret of a variable is called on the platform."""
    return f"{deployment}-{variable}"


def kept_secrets(client: Client, state: State, deployment: str) -> dict[str, str]:
    """The names of a project's secrets by variable; where none were ever kept, those of the deployment as it is."""
    kept = state.secrets()
    if kept is not None:
        return kept
    try:
        return adopted(deployment, client.get(f"/v1/deployments/{deployment}"))
    except NotFoundError:
        return {}


def adopted(deployment: str, answer: Mapping[str, Any] | None) -> dict[str, str]:
    """The secrets that somebody has set for a deployment with this command; others come from its config."""
    variables = (answer or {}).get("environment_variables") or []
    named = {each["name"]: each.get("value_from_secret") for each in variables}
    return {name: secret for name, secret in named.items() if secret == full_name(deployment, name)}


def with_secrets(config: Config, secrets: Mapping[str, str]) -> Config:
    """The config with a variable for each of a project's secrets.

    Raises:
        ConfigError: a variable has a secret, and another value in the config.
    """
    own = {variable.name: variable for variable in config.deploy.environment_variables}
    for name, secret in secrets.items():
        if name in own and own[name].secret != secret:
            hint = f"Take {name} out of {config.path.name}, or forget the secret: jig secrets unset {name}"
            raise ConfigError(f"{config.path.name}: {name} has a value there, and a secret as well.", hint=hint)
    added = [EnvironmentVariable(name, secret=secret) for name, secret in sorted(secrets.items()) if name not in own]
    variables = (*config.deploy.environment_variables, *added)
    return replace(config, deploy=replace(config.deploy, environment_variables=variables))


def expiry_warnings(deployment: Mapping[str, Any], now: datetime) -> list[str]:
    """What to tell of the secrets that end soon."""
    return [
        f"The secret of {variable['name']} expires at {shown_time(expires_at)} and is deleted then; "
        f"a new value keeps it: jig secrets set {variable['name']} --ttl 14d"
        for variable in deployment.get("environment_variables") or []
        if (expires_at := moment(variable.get("value_from_secret_expires_at"))) and expires_at <= now + WARNING_WINDOW
    ]


def late_warnings(client: Client, deployment: Mapping[str, Any]) -> list[str]:
    """What to tell of the secrets that have changed since replicas got ready, which go on with what they had."""
    variables = {
        each["name"]: each["value_from_secret"]
        for each in deployment.get("environment_variables") or []
        if each.get("value_from_secret")
    }
    if not variables:
        return []
    changed = {each["name"]: moment(each.get("updated_at")) for each in client.get(SECRETS)["data"]}
    return stale_values(deployment, variables, changed)


def stale_values(
    deployment: Mapping[str, Any], variables: Mapping[str, str], changed: Mapping[str, datetime | None]
) -> list[str]:
    """The warnings for variables whose secret has changed since a replica got ready.

    Args:
        deployment: as the platform tells it.
        variables: its secrets by variable.
        changed: when each secret was changed.
    """
    ready = [
        since
        for each in (deployment.get("replica_events") or {}).values()
        if each.get("replica_status") == "Running"
        and each.get("revision_id") == revision_of(deployment)  # those of an earlier one are replaced anyway
        and (since := moment(each.get("replica_ready_since")))
    ]
    return [
        f"{variable} has changed since replicas started, and those go on with what they had. "
        f"To replace them: jig secrets redeploy {variable}"
        for variable, secret in variables.items()
        if (changed_at := changed.get(secret)) and any(since < changed_at for since in ready)
    ]


def shown_time(when: datetime) -> str:
    """A time to the minute, in UTC."""
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
