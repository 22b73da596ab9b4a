"""What a request shows to be let in: an API key or a token, as a bearer or as the password of any user. Pure."""

import base64
import binascii

from starlette.datastructures import Headers


def credential(headers: Headers) -> str | None:
    """The key or token in a request's Authorization; None where there is none that can be read."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip() or None
    if kind.lower() != "basic":
        return None
    try:
        pair = base64.b64decode(value.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return pair.partition(":")[2] or None
