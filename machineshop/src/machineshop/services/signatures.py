"""Signed upload URLs: who has one may put the bytes of one file, for a while. Pure."""

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import quote, urlencode

from machineshop.errors import SignatureInvalid
from machineshop.store.files import AttemptId

SIGNED_PATH = "/v1/storage/signed"
SIGNED_PART_PATH = "/v1/storage/signed-part"


def signed_path(key: bytes, project_id: str, name: str, expires: int, attempt: AttemptId | None = None) -> str:
    """The path and query of an upload URL.

    Arguments:
        key: The platform's secret.
        project_id: Whose file it is.
        name: The file's name.
        expires: Until when the URL may be used, in seconds since the epoch.
        attempt: Whose output it is; None: nobody's, so that it is visible at once.
    """
    fields = {"expires": str(expires)}
    if attempt is not None:
        fields |= {"job": attempt.job_id, "attempt": str(attempt.number)}
    fields["signature"] = _signature(key, project_id, name, expires, attempt)
    return f"{SIGNED_PATH}/{quote(project_id, safe='')}/{quote(name, safe='/')}?{urlencode(fields)}"


def check_signature(key: bytes, project_id: str, name: str, query: Mapping[str, str], now: float) -> AttemptId | None:
    """Refuse a request whose URL we did not sign, or signed too long ago; returns the attempt that it is for.

    Raises:
        SignatureInvalid: It says which.
    """
    expires = _number(query.get("expires", ""))
    attempt = AttemptId(query["job"], _number(query.get("attempt", ""))) if "job" in query else None
    given = query.get("signature", "").encode(errors="replace")
    if not hmac.compare_digest(_signature(key, project_id, name, expires, attempt).encode(), given):
        raise SignatureInvalid(why="does not have our signature")
    if now > expires:
        raise SignatureInvalid(why="has expired")
    return attempt


def signed_part_path(key: bytes, project_id: str, upload_id: str, number: int, expires: int) -> str:
    """The path and query of the URL by which one part of an upload comes in.

    Arguments:
        key: The platform's secret.
        project_id: Whose upload it is.
        upload_id: The upload.
        number: The part's number.
        expires: Until when the URL may be used, in seconds since the epoch.
    """
    fields = {"expires": str(expires), "signature": _part_signature(key, project_id, upload_id, number, expires)}
    return f"{SIGNED_PART_PATH}/{quote(project_id, safe='')}/{upload_id}/{number}?{urlencode(fields)}"


def check_part_signature(
    key: bytes, project_id: str, upload_id: str, number: int, query: Mapping[str, str], now: float
) -> None:
    """Refuse a request for a part whose URL we did not sign, or signed too long ago.

    Raises:
        SignatureInvalid: It says which.
    """
    expires = _number(query.get("expires", ""))
    expected = _part_signature(key, project_id, upload_id, number, expires)
    if not hmac.compare_digest(expected.encode(), query.get("signature", "").encode(errors="replace")):
        raise SignatureInvalid(why="does not have our signature")
    if now > expires:
        raise SignatureInvalid(why="has expired")


def _part_signature(key: bytes, project_id: str, upload_id: str, number: int, expires: int) -> str:
    text = f"PUT part\n{project_id}\n{expires}\n{upload_id}\n{number}"
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _signature(key: bytes, project_id: str, name: str, expires: int, attempt: AttemptId | None) -> str:
    # What we sign holds no line breaks but these, so no two sets of values make the same text.
    text = f"PUT\n{project_id}\n{expires}\n{name}"
    if attempt is not None:
        text = f"PUT output\n{project_id}\n{expires}\n{attempt.job_id}\n{attempt.number}\n{name}"
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
