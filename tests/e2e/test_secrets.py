"""A secret's value is in the environment of the replicas that use it, and nowhere else."""

import base64
import gzip
import hashlib
import json
from pathlib import Path

import pytest

from canary import Canary, rows_of_sqlite
from platform_process import PlatformProcess, wait_for, write_worker

WORKER = """
import hashlib
import os
import sprocket

class Worker(sprocket.Sprocket):
    def predict(self, args):
        if "fail" in args:
            raise RuntimeError("a failure with a traceback")
        return {"digest": hashlib.sha256(os.environ["TOKEN"].encode()).hexdigest(), "pid": os.getpid()}
"""
GET_ROUTES = (
    "/v1/deployments",
    "/v1/deployments/vault",
    "/v1/deployments/vault/revisions",
    "/v1/deployments/vault/revisions/1",
    "/v1/deployments/vault/revisions/2",
    "/v1/deployments/vault/logs",
    "/v1/deployments/vault/health",
    "/v1/deployments/secrets",
    "/v1/deployments/secrets/vault-TOKEN",
    "/v1/secrets",
    "/v1/secrets/vault-TOKEN",
    "/v1/runtime",
    "/v1/audit?limit=1000",
    "/v1/image-repositories",
    "/v1/queue/jobs?model=vault",
    "/v1/queue/settings?model=vault",
    "/v3/whoami",
)


@pytest.mark.timeout(300)
def test_the_value_is_in_the_replicas_environment_and_nowhere_else(
    own_platform: PlatformProcess, tmp_path_factory: pytest.TempPathFactory
) -> None:
    vault, canary = own_platform, Canary()
    project = write_worker(vault.folder / "project", "vault", WORKER)
    given = tmp_path_factory.mktemp("given") / "value"
    given.write_text(canary.value + "\n")
    answers = []

    # Set, and refused in every way that we can think of.
    answers.append(vault.jig("secrets", "set", "TOKEN", "--file", given, cwd=project).stdout)
    answers.append(vault.jig("deploy", cwd=project).stdout)
    with vault.client() as client:
        for body in (
            {"name": "vault-TOKEN", "value": canary.value},  # there already
            {"name": canary.value, "value": canary.value, "ttl_seconds": 1},
            {"name": "new", "value": canary.value, "ttl_seconds": "soon"},
            {"name": "new", "value": canary.value * 10_000},
            {"name": "new", "value": canary.value + "\x00"},
            {"name": ["new"], "value": canary.value},
            {"name": "new", "value": {"is": canary.value}},
            [canary.value],
        ):
            refused = client.post("/v1/secrets", json=body)
            assert refused.status_code in {400, 409}, refused.text
            if not (isinstance(body, dict) and body["name"] == canary.value):  # a name is no secret
                answers.append(refused.text)
        cut = client.post("/v1/secrets", content=json.dumps({"name": "n", "value": canary.value}).encode()[:-1])
        answers.append(cut.text)
        assert cut.status_code == 400
        answers.append(client.patch("/v1/secrets/vault-TOKEN", json={"value": canary.value, "ttl_seconds": 5}).text)

    # Used, by two revisions and across a crash of the server.
    digest = hashlib.sha256(canary.value.encode()).hexdigest()
    outputs = vault.finished("vault", vault.submit("vault", {}))["outputs"]
    assert outputs["digest"] == digest
    vault.finished("vault", vault.submit("vault", {"fail": 1}))
    assert outputs["pid"] in canary.processes("environ")
    vault.kill()
    vault.start()
    assert vault.finished("vault", vault.submit("vault", {}))["outputs"]["digest"] == digest
    given.write_text(canary.new_value)
    answers.append(vault.jig("secrets", "set", "TOKEN", "--file", given, cwd=project).stdout)
    deployed = vault.jig("deploy", cwd=project)
    assert "TOKEN has changed since replicas started" in deployed.stderr
    assert "jig secrets redeploy TOKEN" in deployed.stderr
    answers.append(vault.jig("secrets", "redeploy", "TOKEN", cwd=project).stdout)
    new_digest = hashlib.sha256(canary.new_value.encode()).hexdigest()
    wait_for(
        lambda: vault.finished("vault", vault.submit("vault", {}))["outputs"]["digest"] == new_digest,
        "the new replica has the new value",
    )
    rotated = vault.machineshop("secrets", "rotate", "--json", "--data-dir", vault.data_dir)
    assert json.loads(rotated.stdout)["sealed_anew"] == 1, rotated.stderr

    # Looked for.
    environments = canary.processes("environ")
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in environments if Path(f"/proc/{pid}").exists()}
    assert commands
    assert all(b"shim.py" not in command and b"serve" not in command for command in commands.values()), commands
    assert vault.pid not in environments
    assert canary.processes("cmdline") == set()
    with vault.client() as client:
        for route in GET_ROUTES:
            shown = client.get(route)
            assert shown.status_code == 200, f"{route}: {shown.text}"
            answers.append(shown.text)
    answers += [vault.jig(*words, cwd=project).stdout for words in (["status"], ["secrets", "list"], ["logs"])]
    for answer in [*answers, rotated.stdout]:
        assert not canary.is_in(answer), answer
    rows = rows_of_sqlite(vault.data_dir / "machineshop.db")
    assert rows["secrets"]
    assert canary.tables(rows) == []
    assert canary.files(vault.folder) == []
    vault.jig("destroy", "--yes", cwd=project)
    answers.append(vault.jig("secrets", "delete", "TOKEN", "--yes", cwd=project).stdout)
    wait_for(lambda: not canary.processes("environ"), "no process has it any more")
    assert canary.files(vault.folder) == []
    assert (vault.data_dir / "secrets-key").stat().st_mode & 0o077 == 0


def test_this_test_would_find_it(tmp_path: Path) -> None:
    canary = Canary()
    for number, spelling in enumerate(canary.spellings):
        (tmp_path / str(number)).write_bytes(b"before " + spelling + b" after")
    (tmp_path / "packed").write_bytes(gzip.compress(canary.value.encode()))
    for shift in range(3):
        (tmp_path / f"coded-{shift}").write_bytes(base64.b64encode(b"x" * shift + canary.value.encode() + b"tail"))
    assert len(canary.files(tmp_path)) == len(canary.spellings) + 4
