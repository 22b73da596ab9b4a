"""Secrets; never their values."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from machineshop.api.described.shapes import Id, Listed, Time
from machineshop.api.operation import Link, Operation
from machineshop.services.secret_rules import MAX_DESCRIPTION_LENGTH, MAX_TTL_SECONDS, MIN_TTL_SECONDS


class SecretShown(msgspec.Struct, kw_only=True):
    """A secret; never its value."""

    object: Literal["secret"]
    id: Id
    name: str
    description: str
    created_at: Time
    updated_at: Time
    created_by: Id
    last_updated_by: Id
    ttl_seconds: int | UnsetType = UNSET
    expires_at: Time | UnsetType = UNSET


class SecretSet(SecretShown, kw_only=True):
    """A secret as it is now, and whose replicas are replaced for it."""

    redeployed: list[str]


class SecretDeleted(msgspec.Struct):
    """A secret that is gone."""

    object: Literal["secret"]
    id: Id
    name: str
    deleted: Literal[True]
    used_by: list[str]


_NAME: dict[str, Any] = {"pattern": "^[A-Za-z0-9_-]([A-Za-z0-9_./-]{0,98}[A-Za-z0-9_-])?$"}
_Value = Annotated[str, Meta(min_length=1, max_length=65536)]
_Description = Annotated[str, Meta(max_length=MAX_DESCRIPTION_LENGTH)]
_Lifetime = Annotated[int, Meta(ge=MIN_TTL_SECONDS, le=MAX_TTL_SECONDS)]


class NewSecret(msgspec.Struct):
    """A secret to be."""

    name: Annotated[str, Meta(extra_json_schema=_NAME)]
    value: _Value
    description: _Description | UnsetType | None = UNSET
    ttl_seconds: _Lifetime | UnsetType | None = UNSET
    redeploy: bool | UnsetType = UNSET


class SecretChanges(msgspec.Struct):
    """What to change of a secret: what is left out stays."""

    value: _Value | UnsetType = UNSET
    description: _Description | UnsetType | None = UNSET
    ttl_seconds: _Lifetime | UnsetType | None = UNSET
    redeploy: bool | UnsetType = UNSET


_OF_IT = {"secret": "$response.body#/name"}


def operations(base: str) -> dict[str, Operation]:
    """By method, for the secrets below a path; `LIST` is its list."""
    one = f"{base}/{{secret}}"
    return {
        "LIST": Operation(about="The project's secrets, by name.", answer=Listed[SecretShown]),
        "POST": Operation(
            about="Set a new secret.",
            body=NewSecret,
            answer=SecretSet,
            errors={409: None},
            links=[Link(f"{method} {one}", _OF_IT) for method in ("GET", "PATCH", "DELETE")],
        ),
        "GET": Operation(about="What is known of a secret.", answer=SecretShown),
        "PATCH": Operation(about="Change a secret.", body=SecretChanges, answer=SecretSet, errors={409: None}),
        "DELETE": Operation(about="Take a secret away.", answer=SecretDeleted),
    }
