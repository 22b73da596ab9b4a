"""Other people's object storages as origins of volumes: what lies under a prefix, and its bytes.

Who asks for it names the address, the keys, or a role; with keys of their own, connections are those of `guarded_http`.
Every call but `break_off` blocks, and belongs in a thread.
"""

from collections.abc import Callable, Iterator
from typing import Any

import botocore.session
from botocore import UNSIGNED
from botocore.awsrequest import AWSPreparedRequest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
from urllib3.exceptions import HTTPError

from machineshop.blobs.guarded_http import Lines, Refused, guarded_session
from machineshop.blobs.origin import Allows, OriginKeys, OriginObject, OriginRole, OriginTrouble
from machineshop.config import StorageUrl

DEFAULT_REGION = "us-east-1"
CONNECT_SECONDS = 5
READ_SECONDS = 20
TRIES = 3
CONNECTIONS = 8
ROLE_SECONDS = 3600

# What asking again changes nothing about.
_FINAL_STATUSES = {400, 401, 403, 404, 405}
# But for an object that was deleted since it was listed, and a role whose hour is over.
_PASSING_CODES = {"NoSuchKey", "ExpiredToken", "RequestTimeout"}


class S3Origin:
    """A prefix in a bucket; see `Origin`.

    Args:
        url: Where it is.
        access: The keys to read it with; a role that the machine takes on; None: what the machine may read by itself.
        allows: Says whether a connection may be made; what the machine itself is set up to reach is not asked about.
    """

    def __init__(self, url: StorageUrl, access: OriginKeys | OriginRole | None, allows: Allows) -> None:
        self._url = url
        self._lines = Lines()
        try:
            self._client = _client(access, allows, self._lines)
        except (BotoCoreError, ClientError, HTTPError, ValueError, OSError) as error:
            raise _trouble(error, url) from error

    def objects(self) -> Iterator[list[OriginObject]]:
        """See `Origin`."""
        paginator = self._client.get_paginator("list_objects_v2")
        pages = iter(paginator.paginate(Bucket=self._url.bucket, Prefix=self._url.prefix))
        while (page := self._guarded(lambda: next(pages, None))) is not None:
            yield [
                OriginObject(
                    path=each["Key"].removeprefix(self._url.prefix),
                    size=each["Size"],
                    etag=each["ETag"],
                    modified_at=each["LastModified"].timestamp(),
                )
                for each in page.get("Contents", ())
                if not each["Key"].endswith("/")
            ]

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
        """See `Origin`; what is read with the machine's own rights ends by the timeouts."""
        self._lines.break_off()

    def close(self) -> None:
        """See `Origin`."""
        self._client.close()
        self._lines.close()

    def _guarded(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except (BotoCoreError, ClientError, HTTPError, OSError) as error:
            raise _trouble(error, self._url) from error


def _client(access: OriginKeys | OriginRole | None, allows: Allows, lines: Lines) -> Any:
    session = botocore.session.Session()
    if access is None:
        return session.create_client("s3", region_name=_region(session), config=_config())
    if isinstance(access, OriginRole):
        keys = _assumed(session, access)
        return session.create_client("s3", region_name=_region(session), config=_config(), **keys)
    client = session.create_client(
        "s3",
        region_name=access.region or DEFAULT_REGION,
        endpoint_url=access.endpoint_url,
        # The addresses in the server's own environment are not for other people's keys.
        config=_config(ignore_configured_endpoint_urls=True),
        aws_access_key_id=access.access_key_id,
        aws_secret_access_key=access.secret_access_key,
        aws_session_token=access.session_token,
    )
    http = guarded_session(allows, lines, (CONNECT_SECONDS, READ_SECONDS), CONNECTIONS)

    def send(request: AWSPreparedRequest, **_: Any) -> Any:
        return http.send(request)

    client.meta.events.register("before-send.s3", send)
    return client


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
    where = str(url).rstrip("/")
    if isinstance(error, ClientError):
        said = error.response.get("Error", {})
        code = str(said.get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        text = f"{where} answers {code} ({str(said.get('Message', '')).rstrip('.')[:300]})."
        # 412: an object was changed since it was listed.
        return OriginTrouble(text, is_final=status in _FINAL_STATUSES and code not in _PASSING_CODES)
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return OriginTrouble("The machine has no credentials for object storages.", is_final=True)
    refused = _refusal_in(error)
    if refused is not None:
        return OriginTrouble(f"{where} may not be read: {refused}.", is_final=True)
    if isinstance(error, ValueError):
        return OriginTrouble(f"{where} cannot be read: {str(error).rstrip('.')[:300]}.", is_final=True)
    return OriginTrouble(f"{where} cannot be reached: {type(error).__name__}.", is_final=False)


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
