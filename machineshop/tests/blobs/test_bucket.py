"""What is wrong with a bucket is said in words that help, and what is asked of it is what its users ask for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from machineshop.blobs import bucket as buckets
from machineshop.blobs.bucket import Bucket, BucketUnusable
from machineshop.config import Settings, StorageUrl, check, parse_storage_url
from machineshop.doctor import examine
from machineshop.errors import InvalidRequest, StorageUnavailable
from object_storage import ObjectStorage


@pytest.fixture
def guarded(objects: ObjectStorage) -> Iterator[None]:
    """The storage lets in only whom it knows, and knows nobody."""
    objects.check_keys(True)
    yield
    objects.check_keys(False)


def found(data_dir: Path, url: str) -> tuple[str, str]:
    """What `machineshop doctor` says."""
    finding = next(each for each in examine(data_dir, storage_url=url) if each.name == "object storage")
    return finding.state, finding.detail


def test_a_bucket_that_works_is_left_as_it_was(objects: ObjectStorage, bucket: StorageUrl, tmp_path: Path) -> None:
    assert found(tmp_path, str(bucket)) == ("ok", str(bucket))
    assert objects.keys(bucket) == set()


def test_a_bucket_that_is_not_there(bucket: StorageUrl, tmp_path: Path) -> None:
    state, detail = found(tmp_path, "s3://another-bucket")
    assert state == "missing"
    assert "there is no bucket 'another-bucket'. To mend it, make it, or correct --storage-url." in detail


def test_an_address_where_nobody_answers(bucket: StorageUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    state, detail = found(tmp_path, str(bucket))
    assert state == "missing"
    assert "To mend it, correct AWS_ENDPOINT_URL_S3" in detail


def test_no_credentials(tmp_path: Path, objects: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", objects.endpoint)
    assert "there are no credentials for it. To mend it, set AWS_ACCESS_KEY_ID" in found(tmp_path, "s3://bucket")[1]


@pytest.mark.usefixtures("guarded")
def test_credentials_that_it_does_not_take(bucket: StorageUrl, tmp_path: Path) -> None:
    assert "it refuses us: it answers InvalidAccessKeyId" in found(tmp_path, str(bucket))[1]
    with pytest.raises(BucketUnusable):
        Bucket(bucket).check()
    with pytest.raises(StorageUnavailable):
        Bucket(bucket).get("anything")


def test_the_first_id_stays(bucket: StorageUrl) -> None:
    assert Bucket(bucket).ensure_id("first") == "first"
    assert Bucket(bucket).ensure_id("second") == "first"


def test_the_urls_of_parts_are_those_that_the_client_makes(bucket: StorageUrl) -> None:
    opened = Bucket(bucket)
    upload = opened.begin("a key/with spaces")
    urls = opened.part_urls("a key/with spaces", upload, 3, 3600)
    assert len(set(urls)) == 3
    for number, url in enumerate(urls, 1):
        arguments = {"UploadId": upload, "PartNumber": number}
        # Again, where a second has passed between the two.
        signed = {opened._sign("upload_part", "a key/with spaces", 3600, arguments)}
        signed.add(opened.part_urls("a key/with spaces", upload, number, 3600)[-1])
        assert url.partition("X-Amz-Date")[0] in {each.partition("X-Amz-Date")[0] for each in signed}
        assert "X-Amz-Signature=" in url


def test_clients_may_know_it_by_another_name(bucket: StorageUrl) -> None:
    url = Bucket(bucket, "https://files.example.org").read_url("key", "text/plain", None)
    assert url.startswith(f"https://files.example.org/{bucket.bucket}/{bucket.prefix}key?")


@pytest.mark.parametrize(
    "text",
    ["", "s3://", "s3:///prefix", "https://bucket", "s3://UPPER", "s3://b", "s3://bucket/a?b", "s3://k:s@bucket"],
)
def test_what_is_no_place_in_a_storage_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="must look like s3://bucket"):
        parse_storage_url(text)


def test_a_place_in_a_storage() -> None:
    assert parse_storage_url("s3://the-bucket") == StorageUrl("the-bucket", "")
    assert parse_storage_url("s3://the-bucket/a/b/") == StorageUrl("the-bucket", "a/b/")
    with pytest.raises(InvalidRequest, match="one of them"):
        check(Settings(data_dir=Path("x"), storage_url="s3://bucket", storage_dir=Path("y")))
    assert buckets.READ_URL_SECONDS < 3600
