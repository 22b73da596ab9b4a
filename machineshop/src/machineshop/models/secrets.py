"""Secrets, and their values as they are stored."""

import msgspec


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a secret; its value is in `SealedValue` alone."""

    id: str
    project_id: str
    name: str
    description: str = ""
    ttl_seconds: int | None = None
    expires_at: float | None = None
    """When it is deleted; None: never."""
    created_at: float
    updated_at: float
    created_by: str
    """The id of the API key that made it."""
    last_updated_by: str


class SealedValue(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a secret as it is stored: encrypted, and bound to its project and name."""

    key_id: str
    """Which key it was sealed with."""
    nonce: bytes
    ciphertext: bytes
