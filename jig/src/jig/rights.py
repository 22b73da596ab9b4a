"""Whether a key may change anything, asked before work goes into what the platform would refuse at its end."""

from __future__ import annotations

from jig.answers import NOT_PERMITTED, login_hint
from jig.client import Client
from jig.errors import NotFoundError, PlatformError

NO_CHANGES = frozenset({"viewer", "worker"})


def check_may_change(client: Client) -> None:
    """Refuse a key that can only look, or only work a queue; a platform that doesn't tell scopes is taken to let it.

    Raises:
        PlatformError: the key may change nothing.
    """
    try:
        identity = client.get("/v3/whoami")
    except NotFoundError:
        return
    scope = (identity.get("api_key") or {}).get("scope")
    if scope in NO_CHANGES:
        message = f"This API key may not do that: it needs the scope admin or developer, and has {scope}."
        hint = login_hint(client.target.key_source)
        raise PlatformError(message, status=403, body={"type": "permission_error", "code": NOT_PERMITTED}, hint=hint)
