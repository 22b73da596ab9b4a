"""An S3-compatible object storage of the tests' own: moto's server, in a process of its own, gone afterwards."""

import functools
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.config import Config

from machineshop.config import StorageUrl
from ports import reserve_port

START_SECONDS = 60.0
BUCKET = "the-bucket"


def make_object_storage() -> "ObjectStorage":
    """A running one; skips the test where moto is not installed, but not in CI."""
    program = Path(sys.executable).with_name("moto_server")
    if not program.exists():
        if os.environ.get("CI") == "true":
            pytest.fail("CI needs moto: make .venv/.ready-dev")
        pytest.skip("moto is not installed: make .venv/.ready-dev")
    storage = ObjectStorage(program)
    storage.start()
    return storage


class ObjectStorage:
    """One server; each test gets a place of its own in it."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self.port = reserve_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",  # or the search for other credentials takes seconds
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        self._process = subprocess.Popen(
            [self._program, "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, "moto_server ended"
            assert time.monotonic() < end, "moto_server does not answer"
            time.sleep(0.05)

    def stop(self) -> None:
        """End it; what it holds is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Start it again after `stop`, with an empty bucket."""
        self.start()
        self.client.create_bucket(Bucket=BUCKET)

    @functools.cached_property
    def client(self) -> Any:
        """As an administrator of it has one."""
        session = botocore.session.get_session()
        session.set_credentials("admin", "admin")
        config = Config(retries={"total_max_attempts": 1})
        client = session.create_client("s3", region_name="us-east-1", endpoint_url=self.endpoint, config=config)
        client.create_bucket(Bucket=BUCKET)
        return client

    def make_place(self) -> StorageUrl:
        """An empty place in the bucket."""
        assert self.client is not None
        return StorageUrl(BUCKET, f"some/{uuid.uuid4()}/")

    def keys(self, url: StorageUrl) -> set[str]:
        """What lies in a place."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=url.bucket, Prefix=url.prefix)
        return {each["Key"].removeprefix(url.prefix) for page in pages for each in page.get("Contents", ())}

    def unfinished(self, url: StorageUrl) -> int:
        """How many uploads in parts are under way in a place."""
        return len(self.client.list_multipart_uploads(Bucket=url.bucket, Prefix=url.prefix).get("Uploads", ()))

    def check_keys(self, is_on: bool) -> None:
        """Let in only who has a key that it knows, from now on; it knows none."""
        content = b"0" if is_on else b"inf"
        address, headers = f"{self.endpoint}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        request = urllib.request.Request(address, data=content, headers=headers, method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            json.load(answer)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True
