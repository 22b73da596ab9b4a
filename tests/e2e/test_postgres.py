"""The platform on Postgres: the same line from deploy to result, and a database that goes away and comes back."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from canary import Canary, rows_of_postgres
from platform_process import PlatformProcess, wait_for, write_worker
from postgres_cluster import PostgresCluster

ECHO = "import sprocket\n\nclass Worker(sprocket.Sprocket):\n    def predict(self, args):\n        return args\n"


@pytest.fixture
def on_postgres(postgres: PostgresCluster, tmp_path: Path) -> Iterator[PlatformProcess]:
    process = PlatformProcess(tmp_path / "platform")
    process.folder.mkdir()
    process.environment["MACHINESHOP_DATABASE_URL"] = postgres.create_database()
    process.start()
    yield process
    process.close()


def test_from_deploy_to_result(on_postgres: PlatformProcess, tmp_path: Path) -> None:
    on_postgres.deploy(write_worker(tmp_path / "echo", "echo", ECHO))
    jobs = [on_postgres.submit("echo", {"number": number}) for number in range(20)]
    assert [on_postgres.finished("echo", job)["outputs"]["number"] for job in jobs] == list(range(20))
    assert not (on_postgres.data_dir / "machineshop.db").exists()
    assert on_postgres.create_key("team-b").startswith("msk_")


def test_a_secret_is_in_no_row_and_no_log(
    on_postgres: PlatformProcess, postgres: PostgresCluster, tmp_path: Path
) -> None:
    project, canary = write_worker(tmp_path / "echo", "echo", ECHO), Canary()
    (tmp_path / "value").write_text(canary.value)
    on_postgres.jig("secrets", "set", "TOKEN", "--file", tmp_path / "value", cwd=project)
    on_postgres.deploy(project)
    on_postgres.finished("echo", on_postgres.submit("echo", {}))
    assert canary.processes("environ")
    with on_postgres.client() as client:
        # What the database refuses it says with the values that were to be written.
        for value in (canary.value, canary.value + "\x00"):
            refused = client.post("/v1/secrets", json={"name": "echo-TOKEN", "value": value})
            assert refused.status_code in {400, 409}
            assert not canary.is_in(refused.content)
    rows = rows_of_postgres(on_postgres.environment["MACHINESHOP_DATABASE_URL"])
    assert rows["secrets"]
    assert canary.tables(rows) == []
    assert canary.files(on_postgres.folder) == []
    assert not canary.is_in(postgres.log.read_bytes())


def test_a_database_that_restarts_is_found_again(
    on_postgres: PlatformProcess, postgres: PostgresCluster, tmp_path: Path
) -> None:
    on_postgres.deploy(write_worker(tmp_path / "echo", "echo", ECHO))
    before = on_postgres.submit("echo", {"number": 1})
    postgres.stop()
    with on_postgres.client() as client:
        answer = client.post("/v1/queue/submit", json={"model": "echo", "payload": {"number": 2}})
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "store_unavailable"
        assert int(answer.headers["Retry-After"]) > 0
    postgres.start()
    wait_for(lambda: _submits(on_postgres), "jobs are taken again")
    assert on_postgres.finished("echo", before)["outputs"] == {"number": 1}
    assert on_postgres.finished("echo", on_postgres.submit("echo", {"number": 3}))["outputs"] == {"number": 3}


def test_a_database_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    platform = PlatformProcess(tmp_path)
    options = ["--database-url", "postgresql://nobody:secret@127.0.0.1:1/none"]
    finished = platform.machineshop("serve", "--data-dir", platform.data_dir, "--port", "0", *options)
    assert finished.returncode == 1
    assert finished.stderr.startswith("machineshop: The database cannot be reached or opened")
    assert "secret" not in finished.stderr
    assert "Traceback" not in finished.stderr


def test_the_doctor_looks_at_the_database_and_the_storage_directory(
    on_postgres: PlatformProcess, tmp_path: Path
) -> None:
    on_postgres.environment["MACHINESHOP_STORAGE_DIR"] = str(tmp_path / "storage")
    finished = on_postgres.machineshop("doctor", "--json", "--data-dir", on_postgres.data_dir)
    findings = {finding["name"]: finding for finding in json.loads(finished.stdout)}
    assert findings["database"]["state"] == "ok"
    assert findings["database"]["detail"].startswith("Postgres ")
    assert findings["storage directory"]["detail"] == str(tmp_path / "storage")
    on_postgres.environment["MACHINESHOP_DATABASE_URL"] = "postgresql://nobody:secret@127.0.0.1:1/none"
    finished = on_postgres.machineshop("doctor", "--json", "--data-dir", on_postgres.data_dir)
    assert "cannot be reached" in finished.stdout
    assert "secret" not in finished.stdout
    assert finished.returncode == 1


def _submits(platform: PlatformProcess) -> bool:
    with platform.client() as client:
        answer = client.post("/v1/queue/submit", json={"model": "echo", "payload": {}})
    return answer.status_code == 200
