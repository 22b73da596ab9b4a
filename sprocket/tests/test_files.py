"""Files in and out, and where they may not come from."""

from __future__ import annotations

import json
import signal
import ssl
from pathlib import Path

from sprocket_fake_platform import API_KEY, FakePlatform
from sprocket_file_server import FileServer
from sprocket_process import Launcher

OPEN = {"SPROCKET_ALLOW_PRIVATE_DOWNLOADS": "1"}


async def test_https_inputs_become_local_files_that_are_removed(
    platform: FakePlatform, launch: Launcher, files: FileServer, certificate: Path
) -> None:
    files.files = {"a dir/photo 1.txt": b"hello", "b.txt": b"flaky"}
    await launch(platform, "zoo:Zoo", SSL_CERT_FILE=str(certificate), **OPEN)
    job = await platform.run(
        {"do": "read", "file": f"{files.url}/a%20dir/photo%201.txt?sig=x", "list": ["https://kept"]}
    )
    assert job.outputs == {"name": "photo_1.txt", "content": "hello", "is_temporary": True}
    job = await platform.run({"do": "read", "file": f"{files.url}/flaky/b.txt"})
    assert job.outputs["content"] == "flaky"
    failed = await platform.run({"do": "raise_", "file": f"{files.url}/b.txt"})
    assert failed.status == "failed"
    assert list(launch.temporary.glob("*/*")) == []
    assert all("Authorization" not in request.headers for request in files.requests)


async def test_what_cannot_be_fetched_fails_the_job(
    platform: FakePlatform, launch: Launcher, files: FileServer, certificate: Path
) -> None:
    files.files = {"big.bin": b"x" * 2000}
    await launch(platform, "zoo:Zoo", SSL_CERT_FILE=str(certificate), SPROCKET_MAX_INPUT_BYTES="1000", **OPEN)
    complaints = {
        f"{files.url}/gone?signature=s3cret": f"input 'file': {files.url}/gone answered 404",
        f"{files.url}/big.bin": "is larger than 1000 bytes",
        f"{files.url}/endless": "is larger than 1000 bytes",
        f"{files.url}/loop": "redirects more than 5 times",
        f"{files.url}/to?url=http://127.0.0.1:1/x": "redirects to an unencrypted address",
        f"{files.url}/to?url=file:///etc/passwd": "no address that can be fetched",
        "https://": "no address that can be fetched",
        "https://127.0.0.1:1/x": "cannot connect to 127.0.0.1:1",
    }
    for address, complaint in complaints.items():
        job = await platform.run({"do": "read", "file": address})
        assert job.status == "failed"
        assert complaint in job.info["error"]
        assert "s3cret" not in job.info["error"]
    assert list(launch.temporary.glob("*/*")) == []


async def test_a_slow_input_has_a_time_limit(
    platform: FakePlatform, launch: Launcher, files: FileServer, certificate: Path
) -> None:
    await launch(platform, "zoo:Zoo", SSL_CERT_FILE=str(certificate), SPROCKET_INPUT_TIMEOUT_SECONDS="0.3", **OPEN)
    job = await platform.run({"do": "size", "file": f"{files.url}/endless"})
    assert "within 0.3 s" in job.info["error"]


async def test_a_cancel_ends_a_download(
    platform: FakePlatform, launch: Launcher, files: FileServer, certificate: Path
) -> None:
    await launch(platform, "zoo:Zoo", SSL_CERT_FILE=str(certificate), **OPEN)
    job = await platform.submit({"do": "size", "file": f"{files.url}/endless"})
    await platform.until(lambda: platform.updates_of(job, "running"))
    job.cancel_requested = True
    assert (await platform.finished(job)).status == "canceled"
    assert (await platform.run({"a": 1})).status == "done"
    assert list(launch.temporary.glob("*/*")) == []


async def test_storage_inputs_are_read_with_the_key(platform: FakePlatform, launch: Launcher) -> None:
    platform.files["in/a.txt"] = b"stored"
    await launch(platform, "zoo:Zoo")
    job = await platform.run({"do": "read", "file": f"{platform.base_url}/v1/storage/in/a.txt"})
    assert job.outputs == {"name": "a.txt", "content": "stored", "is_temporary": True}
    job = await platform.run({"do": "read", "file": f"{platform.base_url}/v1/storage/none.txt"})
    assert "answered 404" in job.info["error"]


async def test_storage_may_send_its_reader_elsewhere_but_not_the_key(platform: FakePlatform, launch: Launcher) -> None:
    bucket = FileServer(None)
    await bucket.start()
    bucket.files["a.txt"] = b"from the bucket"
    platform.storage_redirect = f"{bucket.url}/a.txt"
    await launch(platform, "zoo:Zoo")
    job = await platform.run({"do": "read", "file": f"{platform.base_url}/v1/storage/a.txt"})
    assert job.outputs["content"] == "from the bucket"
    assert all("Authorization" not in request.headers for request in bucket.requests)
    await bucket.stop()


async def test_private_addresses_are_refused(
    platform: FakePlatform, launch: Launcher, files: FileServer, certificate: Path
) -> None:
    await launch(platform, "zoo:Zoo", SSL_CERT_FILE=str(certificate))
    complaints = {
        "127.0.0.1": ("is not on the public internet",),
        "localhost": ("is not on the public internet",),
        "[::1]": ("is not on the public internet",),
        "[::ffff:127.0.0.1]": ("is not on the public internet",),
        # Which of the two is said depends on aiohttp's version.
        "127.1": ("no address that can be fetched", "is not on the public internet"),
        "2130706433": ("no address that can be fetched", "is not on the public internet"),
    }
    for host, allowed in complaints.items():
        job = await platform.run({"do": "read", "file": f"https://{host}:{files.port}/a.txt"})
        assert job.status == "failed"
        assert any(complaint in job.info["error"] for complaint in allowed)
    assert files.requests == []


PRIVATE_HOSTS = [
    "127.0.0.1",
    "localhost",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[64:ff9b::7f00:1]",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.000.000.001",
    "0.0.0.0",
    "169.254.169.254",
]


async def test_a_redirect_to_a_private_address_is_refused(
    tls: ssl.SSLContext, launch: Launcher, files: FileServer, certificate: Path
) -> None:
    platform = FakePlatform(tls)
    await platform.start()
    files.files["a.txt"] = b"secret"
    await launch(platform, "zoo:Zoo", SSL_CERT_FILE=str(certificate))
    for host in PRIVATE_HOSTS:
        platform.elsewhere_redirect = f"https://{host}:{files.port}/a.txt"
        job = await platform.run({"do": "read", "file": f"{platform.base_url}/elsewhere"})
        assert job.status == "failed"
        # Which of the two is said of odd spellings depends on aiohttp's version.
        assert any(text in job.info["error"] for text in ("is not on the public internet", "no address that can be"))
    platform.elsewhere_redirect = f"{files.url}/a.txt"
    for path in ("/v1/storage/../../elsewhere", "/v1/storage/%2e%2e/%2e%2e/elsewhere"):
        job = await platform.run({"do": "read", "file": f"{platform.base_url}{path}"})
        assert job.status == "failed"
    assert files.requests == []
    assert platform.elsewhere_headers
    assert all(API_KEY not in json.dumps(headers) for headers in platform.elsewhere_headers)
    await platform.stop()


async def test_nested_inputs_are_fetched_where_the_model_wants_it(platform: FakePlatform, launch: Launcher) -> None:
    platform.files |= {"x/in.txt": b"one", "y/in.txt": b"two"}
    addresses = [f"{platform.base_url}/v1/storage/{name}/in.txt" for name in ("x", "y")]
    worker = await launch(platform, "readers:Nested")
    job = await platform.run({"files": {"deep": addresses}})
    assert job.outputs == {"deep": ["one", "two"]}
    worker.send(signal.SIGTERM)
    await worker.exit_code()
    await launch(platform, "zoo:Zoo")
    job = await platform.run({"do": "echo", "files": {"deep": addresses}})
    assert job.outputs["files"] == {"deep": addresses}


async def test_a_full_disk_fails_the_job_and_the_worker_goes_on(platform: FakePlatform, launch: Launcher) -> None:
    platform.files |= {"big.bin": bytes(3_000_000), "small.txt": b"small"}
    address = f"{platform.base_url}/v1/storage"
    await launch(platform, "readers:Cramped")
    job = await platform.run({"file": f"{address}/big.bin"})
    assert (job.status, job.info["error"]) == (
        "failed",
        "InputError: input 'file': it cannot be written: the worker's disk is full",
    )
    assert list(launch.temporary.glob("*/*")) == []
    assert (await platform.run({"file": f"{address}/small.txt"})).outputs == {"content": "small"}


async def test_the_next_start_removes_what_a_killed_worker_left_and_nothing_of_a_living_one(
    platform: FakePlatform, launch: Launcher
) -> None:
    platform.files["in.txt"] = b"x"
    payload = {"do": "until_cancelled", "file": f"{platform.base_url}/v1/storage/in.txt"}

    def left() -> list[Path]:
        return list(launch.temporary.glob("*/*/*/in.txt"))

    killed = await launch(platform, "zoo:Zoo")
    await platform.submit(payload)
    await platform.until(lambda: any("step" in job.info for job in platform.jobs.values()))
    killed.send(signal.SIGKILL)
    await killed.exit_code()
    assert len(left()) == 1
    living = await launch(platform, "zoo:Zoo")
    await living.says("removed what killed workers had left")
    job = await platform.submit(payload)
    await platform.until(lambda: job.info.get("step"))
    (kept,) = left()
    other = await launch(platform, "zoo:Zoo")
    await other.ready()
    assert (await platform.run({"a": 1})).status == "done"
    assert left() == [kept]
    job.cancel_requested = True
    await platform.finished(job)
    living.send(signal.SIGTERM)
    await living.exit_code()
    assert left() == []


async def test_output_files_are_uploaded_and_replaced(platform: FakePlatform, launch: Launcher, tmp_path: Path) -> None:
    await launch(platform, "zoo:Zoo")
    out = tmp_path / "my out.txt"
    job = await platform.run({"do": "write", "path": str(out), "content": "x" * 3_000_000})
    name = f"{job.request_id}-my_out.txt"
    assert job.outputs == {"file": f"{platform.base_url}/v1/storage/{name}", "note": "kept"}
    assert platform.files[name] == b"x" * 3_000_000
    assert all("Authorization" not in headers for headers in platform.upload_headers)
    assert (await platform.run({"do": "read", "file": job.outputs["file"]})).outputs["content"] == "x" * 3_000_000


async def test_output_files_may_be_nested_and_have_equal_names(
    platform: FakePlatform, launch: Launcher, tmp_path: Path
) -> None:
    await launch(platform, "zoo:Zoo")
    job = await platform.run({"do": "nested_files", "root": str(tmp_path)})
    first, second = (f"{job.request_id}-{name}" for name in ("out.txt", "out-2.txt"))
    address = f"{platform.base_url}/v1/storage/"
    assert job.outputs == {
        "scenes": [{"take": address + first}, {"take": address + second}],
        "best": address + first,
    }
    assert platform.files == {first: b"in a", second: b"in b"}


async def test_a_cancel_ends_an_upload(platform: FakePlatform, launch: Launcher, tmp_path: Path) -> None:
    await launch(platform, "zoo:Zoo")
    platform.upload_status = 503
    job = await platform.submit({"do": "write", "path": str(tmp_path / "out.txt"), "content": "x"})
    await platform.until(lambda: platform.upload_headers)
    job.cancel_requested = True
    assert (await platform.finished(job)).status == "canceled"
    assert (await platform.run({"a": 1})).status == "done"


async def test_a_failed_upload_fails_the_job(platform: FakePlatform, launch: Launcher, tmp_path: Path) -> None:
    await launch(platform, "zoo:Zoo")
    platform.upload_status = 403
    job = await platform.run({"do": "write", "path": str(tmp_path / "out.txt"), "content": "x"})
    assert job.status == "failed"
    assert "the output out.txt could not be published" in job.info["error"]
    assert "s3cret" not in json.dumps(job.info)


async def test_a_file_in_an_answer_over_http_travels_in_it(
    platform: FakePlatform, launch: Launcher, tmp_path: Path
) -> None:
    env = {"TOGETHER_API_KEY": API_KEY, "TOGETHER_API_BASE_URL": platform.base_url}
    worker = await launch(None, "zoo:Zoo", **env)
    await worker.ready()
    body = json.dumps({"do": "write", "path": str(tmp_path / "o.txt"), "content": "x"}).encode()
    status, text = await worker.post("/generate", body, {"X-Request-ID": "r1"})
    assert (status, json.loads(text)["file"]) == (200, "data:text/plain;base64,eA==")
    assert platform.files == {}
