"""Signed upload URLs: who has one may put the bytes of one file, for a while. Pure."""

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import quote, urlencode

from machineshop.errors import SignatureInvalid

SIGNED_PATH = "/v1/storage/signed"


def signed_path(key: bytes, project_id: str, name: str, expires: int) -> str:
    """The path and query of an upload URL.

    Arguments:
        key: The platform's secret.
        project_id: Whose file it is.
        name: The file's name.
        expires: Until when the URL may be used, in seconds since the epoch.
    """
    query = urlencode({"expires": expires, "signature": _signature(key, project_id, name, expires)})
    return f"{SIGNED_PATH}/{quote(project_id, safe='')}/{quote(name, safe='/')}?{query}"


def check_signature(key: bytes, project_id: str, name: str, query: Mapping[str, str], now: float) -> None:
    """Refuse a request whose URL we did not sign, or signed too long ago.

    Raises:
        SignatureInvalid: It says which.
    """
    text = query.get("expires", "")
    expires = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
    given = query.get("signature", "").encode(errors="replace")
    if not hmac.compare_digest(_signature(key, project_id, name, expires).encode(), given):
        raise SignatureInvalid(why="does not have our signature")
    if now > expires:
        raise SignatureInvalid(why="has expired")


def _signature(key: bytes, project_id: str, name: str, expires: int) -> str:
    # A project's id holds no line break, so no two sets of values make the same text.
    text = f"PUT\n{project_id}\n{expires}\n{name}"
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
