"""`--tls auto` with the clients that people use: curl, the `together` client, jig, workers with files."""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from together import Together

from contract.older_worker import OlderWorker
from platform_process import PlatformProcess, wait_for, write_worker

WORKER = """
import os
from pathlib import Path

import sprocket

class Worker(sprocket.Sprocket):
    def predict(self, args):
        made = Path("made.txt")
        made.write_text(Path(args["source"]).read_text().upper())
        return {"made": sprocket.FileOutput(str(made)), "trusts": os.environ["SSL_CERT_FILE"]}
"""
# As programs do that were told nothing but the environment.
PROGRAMS = {
    "urllib": "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read())",
    "httpx": "import sys, httpx; print(httpx.get(sys.argv[1]).text)",
    "aiohttp": """
import asyncio, sys, aiohttp
async def main():
    async with aiohttp.ClientSession(trust_env=True) as session, session.get(sys.argv[1]) as answer:
        print(await answer.text())
asyncio.run(main())
""",
}


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    """A platform with an authority of its own."""
    process = PlatformProcess(tmp_path_factory.mktemp("secure"), "--tls", "auto")
    process.start()
    yield process
    process.close()


@pytest.fixture(scope="module")
def model(secure: PlatformProcess, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A deployment with one ready replica; that it is ready says that jig and the replica trust the platform."""
    secure.deploy(write_worker(tmp_path_factory.mktemp("worker") / "project", "secure-files", WORKER))
    return "secure-files"


@pytest.fixture
def elsewhere(secure: PlatformProcess, tmp_path: Path) -> "Elsewhere":
    return Elsewhere(secure, tmp_path / "contexts.json")


class Elsewhere:
    """jig on a machine that does not know the platform yet."""

    def __init__(self, platform: PlatformProcess, contexts: Path) -> None:
        self.platform = platform
        self.contexts = contexts

    def jig(self, *words: str, said: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [Path(sys.executable).parent / "jig", *words],
            env={**self.platform.environment, "JIG_CONTEXTS": str(self.contexts)},
            cwd=self.contexts.parent,
            input=said,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def login(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return self.jig(
            "auth", "login", self.platform.base_url, "--api-key-stdin", *words, said=f"{self.platform.api_key}\n"
        )


def fingerprint(platform: PlatformProcess) -> str:
    """As the platform printed it when it started."""
    return platform.log.read_text().partition("authority  SHA-256 ")[2].split()[0]


def plain_url(platform: PlatformProcess) -> str:
    return platform.base_url.replace("https", "http")


def test_a_worker_does_a_job_with_files(secure: PlatformProcess, model: str) -> None:
    with secure.client() as api:
        upload = api.post("/v1/storage/upload-request", json={"filename": "source.txt"}).json()["upload_url"]["url"]
        assert upload.startswith("https://")
        assert httpx.put(upload, content=b"hello", verify=secure.verify).status_code == 200
        job = secure.finished(model, secure.submit(model, {"source": f"{secure.base_url}/v1/storage/source.txt"}))

        assert job["status"] == "done", job
        assert job["outputs"]["trusts"] == str(secure.data_dir / "tls" / "bundle.pem")
        assert api.get(urlsplit(job["outputs"]["made"]).path, follow_redirects=True).content == b"HELLO"


def test_a_worker_that_puts_https_before_the_address(secure: PlatformProcess, model: str) -> None:
    with secure.client() as api:
        fields = {"name": "secure-older", "image": secure.deployment(model)["image"], "min_replicas": 0}
        assert api.post("/v1/deployments", json={**fields, "gpu_type": "none"}).status_code == 200
    address = urlsplit(secure.base_url).netloc
    headers = {"Authorization": f"Bearer {secure.api_key}"}
    with httpx.Client(base_url=f"https://{address}", headers=headers, verify=secure.verify) as client:
        worker = OlderWorker(client, "secure-older")
        request_id = secure.submit("secure-older", {})

        assert worker.claim()["request_id"] == request_id
        assert worker.report(request_id, "done", {"well": "done"}).status_code == 200
    assert secure.job("secure-older", request_id)["status"] == "done"


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_trust_it_by_what_replicas_get(secure: PlatformProcess, program: str) -> None:
    bundle = str(secure.data_dir / "tls" / "bundle.pem")
    told = {"SSL_CERT_FILE": bundle, "REQUESTS_CA_BUNDLE": bundle}
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAMS[program], f"{secure.base_url}/health"],
        env={**secure.environment, **told},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "healthy" in finished.stdout, finished.stderr


def test_the_together_client_by_ssl_cert_file(secure: PlatformProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(secure.data_dir / "tls" / "bundle.pem"))
    client: Any = Together(api_key=secure.api_key, base_url=secure.base_url)

    assert client.beta.jig.list() is not None


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", socket.gethostname()])
def test_curl_by_every_name_of_this_machine(secure: PlatformProcess, host: str) -> None:
    url = f"https://{host}:{secure.port}/health"
    # The server listens on loopback alone: the name is what is tested, not the way to it.
    command = ["curl", "-sS", "--cacert", str(secure.ca_file), "--resolve", f"{host}:{secure.port}:127.0.0.1", url]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert json.loads(finished.stdout)["status"] == "healthy", finished.stderr


def test_whoever_does_not_know_the_authority_is_told_so_by_jig(elsewhere: Elsewhere) -> None:
    refused = elsewhere.login()

    assert refused.returncode == 2
    assert fingerprint(elsewhere.platform) in refused.stderr
    assert "--ca-fingerprint" in refused.stderr
    assert not elsewhere.contexts.exists()


def test_jig_trusts_the_authority_by_its_fingerprint_and_keeps_it(elsewhere: Elsewhere) -> None:
    assert elsewhere.login("--ca-fingerprint", fingerprint(elsewhere.platform).lower()).returncode == 0

    assert elsewhere.jig("list").returncode == 0
    assert fingerprint(elsewhere.platform) in elsewhere.jig("context", "show").stdout
    assert elsewhere.login().returncode == 0, "it is known now, and nobody is asked again"
    context = json.loads(elsewhere.contexts.read_text())["contexts"]["local"]
    assert context["ca"] == elsewhere.platform.ca_file.read_text()


def test_jig_sends_no_key_to_another_authority(elsewhere: Elsewhere) -> None:
    refused = elsewhere.login("--ca-fingerprint", ":".join(["00"] * 32))

    assert refused.returncode == 1
    assert "has another fingerprint" in refused.stderr
    assert not elsewhere.contexts.exists()


def test_plain_http_is_sent_on(secure: PlatformProcess) -> None:
    answer = httpx.get(f"{plain_url(secure)}/v1/storage/a%20b?c=d%2Fe")

    assert answer.status_code == 308
    assert answer.headers["location"] == f"{secure.base_url}/v1/storage/a%20b?c=d%2Fe"
    assert answer.json()["error"]["code"] == "speaks_https"


def test_a_key_in_the_clear_is_refused(secure: PlatformProcess) -> None:
    headers = {"Authorization": f"Bearer {secure.api_key}"}
    answer = httpx.get(f"{plain_url(secure)}/v3/whoami", headers=headers)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "key_in_the_clear")
    assert secure.base_url in answer.text


def test_a_host_header_that_is_none_is_not_repeated(secure: PlatformProcess) -> None:
    answer = httpx.get(f"{plain_url(secure)}/health", headers={"Host": "evil.example.com/@x"})

    assert answer.headers["location"] == f"{secure.base_url}/health"


def test_connections_that_never_speak_or_speak_nonsense_keep_nobody_out(secure: PlatformProcess) -> None:
    address = ("127.0.0.1", secure.port)
    silent = [socket.create_connection(address) for _ in range(50)]
    for first in (b"\x16\x03\x01\x00\x05nonsense", b"\x00", b"nonsense\r\n\r\n"):
        with socket.create_connection(address) as connection:
            connection.sendall(first)
            connection.shutdown(socket.SHUT_WR)
    try:
        with secure.client() as api:
            assert api.get("/v3/whoami").status_code == 200
    finally:
        for connection in silent:
            connection.close()


def test_a_large_body_passes_both_ways(secure: PlatformProcess) -> None:
    body = bytes(range(256)) * 40_000
    with secure.client() as api:
        upload = api.post("/v1/storage/upload-request", json={"filename": "large.bin"}).json()["upload_url"]["url"]
        assert httpx.put(upload, content=body, verify=secure.verify, timeout=60).status_code == 200
        assert api.get("/v1/storage/large.bin", follow_redirects=True).content == body


def test_replicas_are_replaced_when_a_platform_begins_to_speak_https(tmp_path: Path) -> None:
    platform = PlatformProcess(tmp_path)
    platform.start()
    source = "import sprocket\n\nclass Worker(sprocket.Sprocket):\n    def predict(self, args):\n        return args\n"
    try:
        platform.deploy(write_worker(tmp_path / "project", "moves", source))
        platform.kill()
        platform.options = ("--tls", "auto")
        platform.start()

        assert platform.base_url.startswith("https://")
        request_id = platform.submit("moves", {"still": "works"})
        assert platform.finished("moves", request_id)["outputs"] == {"still": "works"}
        wait_for(lambda: platform.deployment("moves")["status"] == "Ready", "it is ready again")
    finally:
        platform.close()
