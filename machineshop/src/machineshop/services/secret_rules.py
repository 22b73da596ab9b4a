"""What a secret must satisfy. Pure: values in, nothing or an error out. No error ever quotes a value."""

import re

import msgspec

from machineshop.errors import InvalidRequest
from machineshop.ids import is_id

NAME = re.compile(r"[A-Za-z0-9_./-]{1,100}")
MAX_DESCRIPTION_LENGTH = 500
# Linux passes on no variable that is twice as long.
MAX_VALUE_BYTES = 64 * 1024
MIN_TTL_SECONDS = 86_400
MAX_TTL_SECONDS = 14 * 86_400


class SecretFields(msgspec.Struct, frozen=True, kw_only=True):
    """What a request says of a secret; what is left out stays as it is."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    value: str | msgspec.UnsetType = msgspec.UNSET
    description: str | msgspec.UnsetType | None = msgspec.UNSET
    ttl_seconds: int | msgspec.UnsetType | None = msgspec.UNSET
    """None: it never expires."""
    redeploy: bool = False
    """Replace the replicas of the deployments that use it, so that they get the new value."""

    def __repr__(self) -> str:
        return f"SecretFields(name={self.name!r}, ...)"


def check(fields: SecretFields) -> None:
    """Refuse what cannot be.

    Raises:
        InvalidRequest: A field is out of bounds; `param` names it.
    """
    if isinstance(fields.name, str) and not _is_name(fields.name):
        raise InvalidRequest(
            f"'{fields.name[:100]}' cannot be a secret's name: use 1 to 100 letters, digits and the characters _ - / . "
            "(no '.' or '..' alone between slashes, and no slash at an end).",
            param="name",
        )
    if isinstance(fields.name, str) and is_id(fields.name):
        raise InvalidRequest(
            f"'{fields.name}' cannot be a secret's name: it looks like the id of one. Call it otherwise.", param="name"
        )
    if isinstance(fields.description, str) and len(fields.description) > MAX_DESCRIPTION_LENGTH:
        raise InvalidRequest(
            f"A description may have {MAX_DESCRIPTION_LENGTH} characters, and this one has {len(fields.description)}.",
            param="description",
        )
    if isinstance(fields.description, str) and "\x00" in fields.description:
        raise InvalidRequest(
            "A description must not hold a NUL character: not every database can.", param="description"
        )
    if isinstance(fields.ttl_seconds, int) and not MIN_TTL_SECONDS <= fields.ttl_seconds <= MAX_TTL_SECONDS:
        raise InvalidRequest(
            f"ttl_seconds is {fields.ttl_seconds}; it must be between {MIN_TTL_SECONDS} (1 day) and "
            f"{MAX_TTL_SECONDS} (14 days), or null for a secret that never expires.",
            param="ttl_seconds",
        )
    if isinstance(fields.value, str):
        _check_value(fields.value)


def _is_name(text: str) -> bool:
    """Whether clients and proxies leave it alone as a part of a URL's path, too."""
    return NAME.fullmatch(text) is not None and not {"", ".", ".."} & set(text.split("/"))


def _check_value(value: str) -> None:
    size = len(value.encode(errors="surrogatepass"))
    if not 1 <= size <= MAX_VALUE_BYTES:
        raise InvalidRequest(
            f"A secret's value must have 1 to {MAX_VALUE_BYTES} bytes, and this one has {size}.", param="value"
        )
    if "\x00" in value:
        raise InvalidRequest("A secret's value must not hold a NUL character: no environment can.", param="value")
