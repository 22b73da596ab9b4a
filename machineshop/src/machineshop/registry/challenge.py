"""What a 401 asks for: a token, and where it is to be had. Pure.

Clients read `WWW-Authenticate`, fetch a token with the scope that it names, and send the request again.
"""

from starlette.datastructures import Headers

from machineshop.services.references import is_host, is_name
from machineshop.services.registry_tokens import DELETE, PULL, PUSH

TOKEN_PATH = "/v2/token"  # noqa: S105 - no secret
# Where a key is asked for, and not a token.
KEY_CHALLENGE = 'Basic realm="machineshop"'

# Whoever pushes looks first for what is there.
_SCOPES = {PULL: "pull", PUSH: "pull,push", DELETE: "delete"}


def token_challenge(origin: str, name: str | None, action: str, *, insufficient: bool) -> str:
    """The value of `WWW-Authenticate` where a token is wanted.

    Arguments:
        origin: Scheme, host and port by which the client reaches us.
        name: The repository, unchecked; None: no particular one.
        action: What it is about to do there.
        insufficient: It has a token, for something else.
    """
    fields = {"realm": f"{origin}{TOKEN_PATH}", "service": origin.partition("://")[2]}
    if name is not None and is_name(name):
        fields["scope"] = f"repository:{name}:{_SCOPES[action]}"
    if insufficient:
        fields["error"] = "insufficient_scope"
    return "Bearer " + ",".join(f'{field}="{value}"' for field, value in fields.items())


def origin_of(scheme: str, headers: Headers, base_url: str) -> str:
    """Where the client reaches us: as it says itself; with the scheme of our own base URL where that is the same host.

    A proxy that ends TLS speaks plain HTTP with us, and only the base URL that we were given knows.
    """
    host = headers.get("host", "")
    own_scheme, _, own_host = base_url.rstrip("/").partition("://")
    if host == own_host or not is_host(host):
        return f"{own_scheme}://{own_host}"
    return f"{scheme}://{host}"
