"""Short-lived tokens for the registry: who has one may do some things in some repositories, for a while. Pure.

A client that has an API key gets one for what it is about to do, and shows it with each request in the key's place.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable

import msgspec

from machineshop.errors import NotAuthenticated
from machineshop.models import Identity, Scope

# What tells a token from an API key.
TOKEN_PREFIX = "mrt_"  # noqa: S105 - no secret
# Clients ask for another before this is over; what a token has begun, such as a long upload, may take longer.
LIFETIME_SECONDS = 300
# As many as one client pushes or mounts from at once, many times over.
MAX_GRANTS = 100

PULL, PUSH, DELETE = "pull", "push", "delete"
ACTIONS = (PULL, PUSH, DELETE)
# What a key may do in its organization's repositories.
ACTIONS_OF_KEYS = {Scope.ADMIN: ACTIONS, Scope.DEVELOPER: ACTIONS, Scope.VIEWER: (PULL,), Scope.WORKER: (PULL,)}

_WANTED = re.compile(r"repository(?:\([a-z0-9]+\))?:([^:]{1,255}):([a-z*]+(?:,[a-z*]+)*)")


class Grant(msgspec.Struct, frozen=True, array_like=True):
    """What a token lets its bearer do in one repository."""

    name: str
    actions: tuple[str, ...]


class Claims(msgspec.Struct, frozen=True, array_like=True):
    """What a token says: whose key it was made for, until when it holds (seconds since the epoch), and for what."""

    key_id: str
    expires_at: int
    grants: tuple[Grant, ...]

    def allow(self, name: str, action: str) -> bool:
        """Whether its bearer may do this in the repository of this name."""
        return any(grant.name == name and action in grant.actions for grant in self.grants)


_CLAIMS = msgspec.json.Decoder(Claims)


def grants(identity: Identity, scopes: Iterable[str]) -> tuple[Grant, ...]:
    """What of these scopes (`repository:<name>:<actions>`) is granted; what is not is left out, as clients expect.

    Arguments:
        identity: Who asks.
        scopes: As they came, several in one with spaces between them.
    """
    granted: dict[str, set[str]] = {}
    for wanted in " ".join(scopes).split():
        match = _WANTED.fullmatch(wanted)
        if match is None or not match[1].startswith(f"{identity.organization.slug}/"):
            continue
        actions = set(ACTIONS) if "*" in match[2].split(",") else set(match[2].split(","))
        if allowed := actions.intersection(ACTIONS_OF_KEYS[identity.key.scope]):
            granted.setdefault(match[1], set()).update(allowed)
    return tuple(Grant(name, tuple(sorted(actions))) for name, actions in list(granted.items())[:MAX_GRANTS])


def sign(secret: bytes, claims: Claims) -> str:
    """The token that says this."""
    body = _encoded(msgspec.json.encode(claims))
    return f"{TOKEN_PREFIX}{body}.{_signature(secret, body)}"


def read(secret: bytes, token: str, now: float) -> Claims:
    """What a token says.

    Raises:
        NotAuthenticated: We did not sign it, or it has expired.
    """
    body, _, signature = token.removeprefix(TOKEN_PREFIX).partition(".")
    if not hmac.compare_digest(_signature(secret, body).encode(), signature.encode(errors="replace")):
        raise NotAuthenticated("The registry token is not one of ours: ask for another.")
    try:
        claims = _CLAIMS.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (binascii.Error, msgspec.MsgspecError):
        raise NotAuthenticated("The registry token is from another version: ask for another.") from None
    if now >= claims.expires_at:
        raise NotAuthenticated("The registry token has expired: ask for another.")
    return claims


def _signature(secret: bytes, body: str) -> str:
    return _encoded(hmac.digest(secret, body.encode(errors="replace"), hashlib.sha256))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
