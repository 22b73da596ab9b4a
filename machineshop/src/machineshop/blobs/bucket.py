"""A bucket of an S3-compatible object storage: the calls to it, and its failures in the platform's words.

botocore finds credentials, region and endpoint as every tool of that world does: in AWS_* variables, in ~/.aws, and
from the machine's or the pod's own role. Its calls block, so they run in threads.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import botocore.session
import msgspec
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
from urllib3.exceptions import HTTPError

from machineshop.blobs.base import BlobEntry
from machineshop.config import StorageUrl
from machineshop.errors import InvalidRequest, MachineshopError, StorageUnavailable
from machineshop.ids import new_id

log = logging.getLogger(__name__)

# As many transfers at once; the others wait for a turn of one chunk or part.
CONNECTIONS = 16
CONNECT_SECONDS = 3
READ_SECONDS = 60
TRIES = 3
DEFAULT_REGION = "us-east-1"
# As short as lets a client that was sent there begin; what has begun goes on.
READ_URL_SECONDS = 900
IDENTITY = "storage-id"

_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role"
_PERMISSIONS = (
    f"{_CREDENTIALS}, and allow it to list the bucket, and to get, put and delete objects and multipart uploads in it"
)
_REGION = "say it in AWS_REGION, and the endpoint in AWS_ENDPOINT_URL_S3 where it is not Amazon's"
_ENDPOINT = "correct AWS_ENDPOINT_URL_S3, or start the object storage"
_OTHER_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
_BAD_PARTS = {"EntityTooSmall", "InvalidPart", "InvalidPartOrder", "EntityTooLarge"}


class BucketUnusable(MachineshopError):
    """The object storage {url} cannot be used: {cause}. To mend it, {mend}."""


class ObjectMissing(Exception):
    """There is no object of this key."""


class UploadGone(Exception):
    """The upload in parts was completed or given up."""


_MEANINGS: dict[frozenset[str], type[Exception]] = {
    frozenset({"NoSuchUpload"}): UploadGone,
    frozenset({"NoSuchKey", "NotFound", "404"}): ObjectMissing,
    frozenset({"PreconditionFailed", "ConditionalRequestConflict"}): FileExistsError,
}


class StoredObject(msgspec.Struct, frozen=True):
    """What is known of an object. `metadata` are our own words about it."""

    size: int
    metadata: dict[str, str]
    body: bytes = b""


class Bucket:
    """The part of a bucket that is the platform's, under a prefix. Every method blocks, and belongs in a thread.

    Each may raise `StorageUnavailable`.

    Args:
        url: Where it is.
        public_endpoint: The endpoint as clients reach it, where they do not know it by the same name as the platform.
    """

    def __init__(self, url: StorageUrl, public_endpoint: str | None = None) -> None:
        self.url = url
        try:
            self._session = botocore.session.get_session()
            self._client = _client(self._session, None)
            self._signer = _client(self._session, public_endpoint) if public_endpoint else self._client
        except (BotoCoreError, ValueError) as error:
            raise BucketUnusable(url=str(url), cause=str(error).rstrip("."), mend=_CREDENTIALS) from error

    def check(self) -> None:
        """Do once each thing that the platform will want to do.

        Raises:
            BucketUnusable: The bucket does not let us.
        """
        probe = f"probes/{new_id()}"
        try:
            next(self._pages("list_objects_v2", Prefix=self._path(probe)))
            self.put(probe, b"")
            self.get(probe)
            self.delete(probe)
        except StorageUnavailable as error:
            raise BucketUnusable(url=str(self.url), cause=error.cause, mend=error.mend) from error

    def ensure_id(self, candidate: str) -> str:
        """What tells this storage from others: `candidate` where nothing did."""
        with suppress(FileExistsError):
            self._call("put_object", IDENTITY, Body=candidate.encode(), IfNoneMatch="*")
        return self.get(IDENTITY).body.decode(errors="replace").strip()

    # Objects

    def put(self, key: str, body: bytes, metadata: dict[str, str] | None = None) -> None:
        """Store an object, in the place of an older one."""
        self._call("put_object", key, Body=body, Metadata=metadata or {})

    def head(self, key: str) -> StoredObject:
        """What is known of an object.

        Raises:
            ObjectMissing: There is none.
        """
        found = self._call("head_object", key)
        return StoredObject(found["ContentLength"], found["Metadata"])

    def get(self, key: str) -> StoredObject:
        """A small object as a whole. Raises as `head` does."""
        found = self._call("get_object", key)
        return StoredObject(found["ContentLength"], found["Metadata"], self.read(found["Body"], None))

    def open(self, key: str, start: int, end: int) -> Any:
        """An object's bytes from `start` up to and without `end`, to be read by `read`. Raises as `head` does."""
        return self._call("get_object", key, Range=f"bytes={start}-{end - 1}")["Body"]

    def read(self, body: Any, size: int | None) -> bytes:
        """The next bytes of an opened object, `size` at most; None: all of them."""
        try:
            data: bytes = body.read(size)
        except (BotoCoreError, HTTPError, OSError) as error:
            raise _unavailable("read", str(error), _ENDPOINT) from error
        if size and not data:
            raise _unavailable("read", "an object broke off in the middle", "try again")
        return data

    def delete(self, key: str) -> None:
        """Remove an object, if there is one."""
        self._call("delete_object", key)

    def entries(self, prefix: str) -> list[BlobEntry]:
        """All objects whose keys begin with this."""
        return [
            BlobEntry(each["Key"].removeprefix(self._path("")), each["LastModified"].timestamp())
            for page in self._pages("list_objects_v2", Prefix=self._path(prefix))
            for each in page.get("Contents", ())
        ]

    def folders(self, prefix: str) -> list[str]:
        """What stands between this prefix, which ends with a slash, and the next slash."""
        return [
            each["Prefix"].removeprefix(self._path(prefix)).rstrip("/")
            for page in self._pages("list_objects_v2", Prefix=self._path(prefix), Delimiter="/")
            for each in page.get("CommonPrefixes", ())
        ]

    def read_url(self, key: str, content_type: str, disposition: str | None) -> str:
        """Where anybody may read an object for `READ_URL_SECONDS`."""
        headers = {"ResponseContentType": content_type}
        if disposition is not None:
            headers["ResponseContentDisposition"] = disposition
        return self._sign("get_object", key, READ_URL_SECONDS, headers)

    # Uploads in parts

    def begin(self, key: str) -> str:
        """Begin an upload in parts; returns its id."""
        begun: str = self._call("create_multipart_upload", key)["UploadId"]
        return begun

    def put_part(self, key: str, upload: str, number: int, body: bytes) -> str:
        """Store a part; returns its ETag.

        Raises:
            UploadGone: There is no such upload.
        """
        etag: str = self._call("upload_part", key, UploadId=upload, PartNumber=number, Body=body)["ETag"]
        return etag.strip('"')

    def part_urls(self, key: str, upload: str, count: int, lifetime_seconds: int) -> list[str]:
        """Where anybody may put the parts."""
        first = self._sign("upload_part", key, lifetime_seconds, {"UploadId": upload, "PartNumber": 1})
        address = first.partition("?")[0]
        # The client takes a millisecond for each, and there may be ten thousand.
        credentials = self._guarded("sign", lambda: self._session.get_credentials().get_frozen_credentials())
        auth = S3SigV4QueryAuth(credentials, "s3", self._signer.meta.region_name, expires=lifetime_seconds)
        urls = []
        for number in range(1, count + 1):
            request = AWSRequest("PUT", url=f"{address}?{urlencode({'uploadId': upload, 'partNumber': number})}")
            auth.add_auth(request)
            urls.append(request.url)
        return urls

    def parts(self, key: str, upload: str) -> dict[int, tuple[str, int]]:
        """The parts that are there by their numbers: ETag, and size in bytes. Raises as `put_part` does."""
        return {
            each["PartNumber"]: (each["ETag"].strip('"'), each["Size"])
            for page in self._pages("list_parts", Key=self._path(key), UploadId=upload)
            for each in page.get("Parts", ())
        }

    def complete(self, key: str, upload: str, parts: Sequence[tuple[int, str]]) -> None:
        """Make one object of parts, each a number and an ETag; doing it again does no harm.

        Raises:
            InvalidRequest: These parts make no object.
            UploadGone: There is no such upload, and no object either.
        """
        listed = [{"PartNumber": number, "ETag": f'"{etag}"'} for number, etag in parts]
        try:
            self._call("complete_multipart_upload", key, UploadId=upload, MultipartUpload={"Parts": listed})
        except UploadGone:
            try:  # by us, if only the answer was lost: nothing else is ever stored under this key
                self.head(key)
            except ObjectMissing:
                raise UploadGone from None

    def abort(self, key: str, upload: str) -> None:
        """Give an upload in parts up, if there is one."""
        with suppress(UploadGone):
            self._call("abort_multipart_upload", key, UploadId=upload)

    def begun_before(self, before: float) -> list[tuple[str, str]]:
        """Uploads in parts that began before a time and have not ended: key and id."""
        return [
            (each["Key"].removeprefix(self._path("")), each["UploadId"])
            for page in self._pages("list_multipart_uploads", Prefix=self._path(""))
            for each in page.get("Uploads", ())
            if each["Initiated"].timestamp() < before
        ]

    def _path(self, key: str) -> str:
        return f"{self.url.prefix}{key}"

    def _call(self, operation: str, key: str, **arguments: Any) -> dict[str, Any]:
        call = getattr(self._client, operation)
        found: dict[str, Any] = self._guarded(
            operation, lambda: call(Bucket=self.url.bucket, Key=self._path(key), **arguments)
        )
        return found

    def _pages(self, operation: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        paginator = self._client.get_paginator(operation)
        pages = iter(paginator.paginate(Bucket=self.url.bucket, **arguments))
        while (page := self._guarded(operation, lambda: next(pages, None))) is not None:
            yield page

    def _sign(self, operation: str, key: str, lifetime_seconds: int, arguments: dict[str, Any]) -> str:
        params = {"Bucket": self.url.bucket, "Key": self._path(key), **arguments}
        url: str = self._guarded(
            "sign", lambda: self._signer.generate_presigned_url(operation, Params=params, ExpiresIn=lifetime_seconds)
        )
        return url

    def _guarded(self, operation: str, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except ClientError as error:
            raise _translated(operation, error, self.url.bucket) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise _unavailable(operation, "there are no credentials for it", _CREDENTIALS) from error
        except (BotoCoreError, HTTPError, OSError) as error:
            raise _unavailable(operation, str(error).rstrip("."), _ENDPOINT) from error


def _client(session: Any, endpoint: str | None) -> Any:
    config = Config(
        signature_version="s3v4",
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=CONNECTIONS,
        retries={"total_max_attempts": TRIES, "mode": "standard"},
        # We check digests of our own, of everything; hashing it for the way there as well halves the speed, and not
        # every storage knows the newer checksums.
        s3={"payload_signing_enabled": False},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    region = os.environ.get("AWS_REGION") or session.get_config_variable("region") or DEFAULT_REGION
    return session.create_client("s3", region_name=region, endpoint_url=endpoint, config=config)


def _translated(operation: str, error: ClientError, bucket: str) -> Exception:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = error.response.get("Error", {})
    code = str(said.get("Code", ""))
    answer = f"it answers {code} ({str(said.get('Message', '')).rstrip('.')})"
    for codes, kind in _MEANINGS.items():
        if code in codes:
            return kind()
    if code in _BAD_PARTS:
        return InvalidRequest(f"The object storage does not take these parts: {answer}.", param="parts")
    return _unavailable(operation, *_explained(code, status, answer, bucket))


def _explained(code: str, status: int, answer: str, bucket: str) -> tuple[str, str]:
    """Why a storage does not do what it is asked for, and how to mend that."""
    if code == "NoSuchBucket":
        return f"there is no bucket '{bucket}'", "make it, or correct --storage-url"
    if code in _OTHER_REGION:
        return f"the bucket '{bucket}' is in another region", _REGION
    if code == "RequestTimeTooSkewed":
        return "this machine's clock is wrong", "set it, as NTP does"
    if status in {401, 403}:
        return f"it refuses us: {answer}", _PERMISSIONS
    return answer, "try again later, or ask whoever runs it"


def _unavailable(operation: str, cause: str, mend: str) -> StorageUnavailable:
    log.warning("storage.unavailable operation=%s cause=%s", operation, cause)
    return StorageUnavailable(cause, mend)
