"""Where volumes may be copied from, and with whose rights.

A project's own keys lie in a secret of the project. What the machine itself may read, by its own keys or by roles that
it takes on, is everybody's or nobody's: the operator says which, and says no unless asked.
"""

import asyncio
import re
from urllib.parse import urlsplit

import msgspec

from machineshop.blobs.origin import Allows, Origin, OriginKeys, OriginRole
from machineshop.config import StorageUrl
from machineshop.errors import InvalidRequest, SecretMissing
from machineshop.models import VolumeOrigin
from machineshop.services.secrets import SecretService

SETTING = "--volume-machine-credentials"
NETWORK_SETTING = "--volume-network"
PARAM = "content.origin.s3"

_URI = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?")
_ARN = re.compile(r"arn:[a-z0-9-]+:iam::[0-9]{12}:role/[\w+=,.@/-]{1,576}", re.ASCII)
_REGION = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_KEYS = msgspec.json.Decoder(OriginKeys)
_FORM = (
    'a JSON object such as {"access_key_id": "...", "secret_access_key": "..."}, with "session_token", "region" and '
    '"endpoint_url" where they are needed'
)


def parse_uri(text: str) -> StorageUrl:
    """A bucket and a folder in it.

    Raises:
        InvalidRequest: It is none.
    """
    match = _URI.fullmatch(text)
    if match is None or not text.isprintable():
        raise InvalidRequest(
            f"'{text[:200]}' is no place in an object storage; it must look like s3://bucket or s3://bucket/folder.",
            param=f"{PARAM}.uri",
        )
    prefix = (match[2] or "").strip("/")
    return StorageUrl(match[1], f"{prefix}/" if prefix else "")


class VolumeOrigins:
    """The rules of one server, and the keys.

    Args:
        secrets: The projects' secrets.
        by_machine: Whether the machine's own rights are for every project.
        own_bucket: The bucket that all projects' files lie in, which is nobody's origin.
        allows: Says where a connection with a project's own keys may be made to.
    """

    def __init__(
        self, secrets: SecretService, allows: Allows, *, by_machine: bool = False, own_bucket: str | None = None
    ) -> None:
        self._secrets = secrets
        self._allows = allows
        self._by_machine = by_machine
        self._own_bucket = own_bucket

    def check(self, origin: VolumeOrigin) -> None:
        """Refuse what nothing may be copied from.

        Raises:
            InvalidRequest: It is no place, or would be read with rights that are not the project's.
        """
        url = parse_uri(origin.uri)
        if origin.credentials_secret is not None:
            if origin.role_arn is not None:
                raise InvalidRequest("'role_arn' and 'credentials_secret' are two ways to one end: keep one.", PARAM)
            return
        if not self._by_machine:
            raise InvalidRequest(
                "An origin is read with keys of your own here: put them into a secret of the project, as "
                f"{_FORM}, and name it in 'credentials_secret', or as 'secret:<name>' in 'role_arn'. Whoever runs this "
                f"server can let every project use the machine's own rights and roles instead, with {SETTING}.",
                param=f"{PARAM}.role_arn",
            )
        if origin.role_arn is not None and not _ARN.fullmatch(origin.role_arn):
            raise InvalidRequest(
                f"'{origin.role_arn[:200]}' is no role; it must look like arn:aws:iam::123456789012:role/name.",
                param=f"{PARAM}.role_arn",
            )
        if url.bucket == self._own_bucket:
            raise InvalidRequest(
                f"The bucket '{url.bucket}' is where this platform keeps all projects' files.", param=f"{PARAM}.uri"
            )

    async def open(self, project_id: str, origin: VolumeOrigin) -> Origin:
        """An origin, to be listed and read.

        Raises:
            InvalidRequest: It may not be read, or the project's keys to it are not there.
            OriginTrouble: It cannot be read.
        """
        access = await self._access_to(project_id, origin)
        return await asyncio.to_thread(_opened, parse_uri(origin.uri), access, self._allows)

    async def _access_to(self, project_id: str, origin: VolumeOrigin) -> OriginKeys | OriginRole | None:
        """What an origin is read with: the project's keys, or a role; None: the machine's own rights."""
        self.check(origin)  # what was let in may not be any more, after a restart with other settings
        name = origin.credentials_secret
        if name is None:
            return None if origin.role_arn is None else OriginRole(origin.role_arn, project_id)
        try:
            found = await self._secrets.reveal(project_id, {"keys": name})
        except SecretMissing:
            raise InvalidRequest(f"There is no secret '{name}' in this project, or no longer.", PARAM) from None
        try:
            keys = _KEYS.decode(found["keys"])
        except (msgspec.DecodeError, UnicodeError):
            raise InvalidRequest(f"The secret '{name}' holds no keys to an object storage: {_FORM}.", PARAM) from None
        _check_keys(name, keys)
        return keys


def _opened(url: StorageUrl, access: OriginKeys | OriginRole | None, allows: Allows) -> Origin:
    # What speaks to object storages takes a moment and some megabytes to load.
    from machineshop.blobs.s3_origin import S3Origin  # noqa: PLC0415

    return S3Origin(url, access, allows)


def _check_keys(secret: str, keys: OriginKeys) -> None:
    """Refuse what no client can be made of; none of it is quoted."""
    for field in ("access_key_id", "secret_access_key", "session_token"):
        value = getattr(keys, field)
        if value is not None and not (value and value.isascii() and value.isprintable()):
            raise InvalidRequest(f"'{field}' in the secret '{secret}' is empty or holds other than ASCII.", PARAM)
    if keys.region is not None and _REGION.fullmatch(keys.region) is None:
        raise InvalidRequest(f"'region' in the secret '{secret}' is no region, such as us-east-1.", PARAM)
    if keys.endpoint_url is not None and not _is_endpoint(keys.endpoint_url):
        raise InvalidRequest(f"'endpoint_url' in the secret '{secret}' is no http:// or https:// URL.", PARAM)


def _is_endpoint(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
