"""Other people's object storages as origins of volumes: what lies under a prefix, and its bytes.

Who asks for it names the address, the keys, or a role. What is answered is trusted with nobody's rights, the machine's
own included: connections are those of `guarded_http`.
Every call but `break_off` blocks, and belongs in a thread.
"""

from collections.abc import Callable, Iterator
from typing import Any

import botocore.session
from botocore import UNSIGNED
from botocore.awsrequest import AWSPreparedRequest
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from botocore.httpsession import URLLib3Session
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from machineshop.blobs.guarded_http import GuardedHTTP, Refused, WrongAnswer
from machineshop.blobs.origin import Allows, OriginKeys, OriginObject, OriginRole, OriginTrouble
from machineshop.config import StorageUrl

DEFAULT_REGION = "us-east-1"
CONNECT_SECONDS = 5
READ_SECONDS = 20
TRIES = 3
CONNECTIONS = 8
ROLE_SECONDS = 3600

# What asking again changes nothing about.
_FINAL_STATUSES = range(300, 500)
# But for what is a matter of time. 412: an object was changed since it was listed.
_PASSING_STATUSES = {408, 409, 412, 425, 429}
# And but for an object that was deleted since it was listed, and a role whose hour is over.
_PASSING_CODES = {"NoSuchKey", "ExpiredToken", "RequestTimeout"}

# What botocore raises where an answer is not of the form that it knows.
_UNREADABLE = (ResponseParserError, ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)


class S3Origin:
    """A prefix in a bucket; see `Origin`.

    Args:
        url: Where it is.
        access: The keys to read it with; a role that the machine takes on; None: what the machine may read by itself.
        allows: Says whether a connection may be made; what the machine itself is set up to reach is not asked about.
    """

    def __init__(self, url: StorageUrl, access: OriginKeys | OriginRole | None, allows: Allows) -> None:
        self._url = url
        try:
            self._client = _client(access)
        except ValueError as error:  # which quotes them
            text = f"{_named(url)} cannot be read: 'endpoint_url' or 'region' of its keys cannot be used."
            raise OriginTrouble(text, is_final=True) from error
        except (BotoCoreError, ClientError, HTTPError, OSError) as error:
            raise _trouble(error, url) from error
        if isinstance(access, OriginKeys):
            timeouts = (CONNECT_SECONDS, READ_SECONDS)
            session = URLLib3Session(verify=True, timeout=timeouts, max_pool_connections=CONNECTIONS)
        else:  # which has the proxy and the authorities that the machine is set up with
            session, allows = self._client._endpoint.http_session, lambda *_: True  # noqa: SLF001
        self._http = GuardedHTTP(session, allows, CONNECT_SECONDS)
        self._client.meta.events.register("before-send.s3", self._send)

    @property
    def address(self) -> str:
        """See `Origin`."""
        found: str = self._client.meta.endpoint_url
        return found

    def objects(self) -> Iterator[list[OriginObject]]:
        """See `Origin`."""
        paginator = self._client.get_paginator("list_objects_v2")
        pages = iter(paginator.paginate(Bucket=self._url.bucket, Prefix=self._url.prefix))
        while (page := self._guarded(lambda: next(pages, None))) is not None:
            yield self._guarded(
                lambda: [_object(each, self._url.prefix) for each in page.get("Contents", ()) if not _is_folder(each)]
            )

    def open(self, found: OriginObject) -> Any:
        """See `Origin`."""
        key = self._url.prefix + found.path
        return self._guarded(
            lambda: self._client.get_object(Bucket=self._url.bucket, Key=key, IfMatch=found.etag)["Body"]
        )

    def read(self, body: Any, size: int) -> bytes:
        """See `Origin`."""
        data: bytes = self._guarded(lambda: body.read(size))
        return data

    def break_off(self) -> None:
        """See `Origin`."""
        self._http.break_off()

    def close(self) -> None:
        """See `Origin`."""
        self._client.close()
        self._http.close()

    def _send(self, request: AWSPreparedRequest, **_: Any) -> Any:
        return self._http.send(request)

    def _guarded(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except (BotoCoreError, ClientError, HTTPError, OSError, WrongAnswer, *_UNREADABLE) as error:
            raise _trouble(error, self._url) from error


def _is_folder(listed: dict[str, Any]) -> bool:
    return str(listed.get("Key", "")).endswith("/")


def _object(listed: dict[str, Any], prefix: str) -> OriginObject:
    """An entry of a list.

    Raises:
        WrongAnswer: Something is not there, or cannot be.
    """
    for name in ("Key", "Size", "ETag", "LastModified"):
        if name not in listed:
            raise WrongAnswer(f"lists an object without its {name}")
    key, size, etag = listed["Key"], listed["Size"], listed["ETag"]
    if not key.startswith(prefix):
        raise WrongAnswer("lists objects that were not asked for")
    if size < 0:
        raise WrongAnswer("lists an object with a Size below 0")
    if not (etag.isascii() and etag.isprintable()):  # it goes into a header
        raise WrongAnswer("lists an object with an ETag that is none")
    return OriginObject(key.removeprefix(prefix), size, etag, listed["LastModified"].timestamp())


def _client(access: OriginKeys | OriginRole | None) -> Any:
    session = botocore.session.Session()
    if access is None:
        return session.create_client("s3", region_name=_region(session), config=_config())
    if isinstance(access, OriginRole):
        keys = _assumed(session, access)
        return session.create_client("s3", region_name=_region(session), config=_config(), **keys)
    return session.create_client(
        "s3",
        region_name=access.region or DEFAULT_REGION,
        endpoint_url=access.endpoint_url,
        # The addresses in the server's own environment are not for other people's keys.
        config=_config(ignore_configured_endpoint_urls=True),
        aws_access_key_id=access.access_key_id,
        aws_secret_access_key=access.secret_access_key,
        aws_session_token=access.session_token,
    )


def _assumed(session: Any, role: OriginRole) -> dict[str, str]:
    """The keys that the role gives for an hour: by the machine's web identity where it has one, else by its own keys.

    The project's id goes along, so that whoever owns the role can let one project in and no other.
    """
    token_file = session.get_config_variable("web_identity_token_file")
    asked: dict[str, Any] = {
        "RoleArn": role.arn,
        "RoleSessionName": f"machineshop-{role.project_id}",
        "DurationSeconds": ROLE_SECONDS,
    }
    if token_file:
        client = session.create_client("sts", region_name=_region(session), config=_config(signature_version=UNSIGNED))
        with open(token_file, encoding="utf-8") as file:  # noqa: PTH123 - a name from the environment
            found = client.assume_role_with_web_identity(**asked, WebIdentityToken=file.read())
    else:
        client = session.create_client("sts", region_name=_region(session), config=_config())
        found = client.assume_role(**asked, ExternalId=role.project_id)
    given = found["Credentials"]
    return {
        "aws_access_key_id": given["AccessKeyId"],
        "aws_secret_access_key": given["SecretAccessKey"],
        "aws_session_token": given["SessionToken"],
    }


def _config(**more: Any) -> Config:
    return Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=CONNECTIONS,
        retries={"total_max_attempts": TRIES, "mode": "standard"},
        response_checksum_validation="when_required",
        **more,
    )


def _region(session: Any) -> str:
    return session.get_config_variable("region") or DEFAULT_REGION


def _trouble(error: Exception, url: StorageUrl) -> OriginTrouble:
    where = _named(url)
    if isinstance(error, ClientError):
        said = error.response.get("Error", {})
        code = str(said.get("Code", ""))[:100]
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        text = f"{where} answers {code} ({str(said.get('Message', '')).rstrip('.')[:300]})."
        is_final = status in _FINAL_STATUSES and status not in _PASSING_STATUSES and code not in _PASSING_CODES
        return OriginTrouble(text, is_final=is_final)
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return OriginTrouble("The machine has no credentials for object storages.", is_final=True)
    refused = _refusal_in(error)
    if refused is not None:
        return OriginTrouble(f"{where} may not be read: {refused}.", is_final=True)
    if isinstance(error, WrongAnswer):
        return OriginTrouble(f"{where} cannot be read: its object storage {error}.", is_final=True)
    if isinstance(error, (ParamValidationError, *_UNREADABLE)):
        return OriginTrouble(
            f"{where} cannot be read: its object storage has an address, or gives an answer, that is malformed.",
            is_final=True,
        )
    return OriginTrouble(f"{where} cannot be reached: {type(error).__name__}.", is_final=False)


def _named(url: StorageUrl) -> str:
    return str(url).rstrip("/")


def _refusal_in(error: BaseException | None) -> Refused | None:
    """The refused connection that an error comes from, however it was wrapped."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, Refused):
            return error
        wrapped = getattr(error, "kwargs", {}).get("error") if isinstance(error, BotoCoreError) else None
        error = wrapped or error.__cause__ or error.__context__
    return None
