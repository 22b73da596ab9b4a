"""A secret's value is in the environment of the replicas that use it, and nowhere else."""

import base64
import gzip
import hashlib
import json
import sqlite3
from pathlib import Path

import pytest

from platform_process import PlatformProcess, wait_for, write_worker

CANARY = "canary-7f3a9c51e2'\"\\é-value"
NEW_CANARY = "canary-7f3a9c51e2-another-value"
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


def spellings(value: str) -> list[bytes]:
    """How a value could be written down."""
    raw = value.encode()
    escaped = [
        json.dumps(value)[1:-1].encode(),
        json.dumps(value, ensure_ascii=False)[1:-1].encode(),
        repr(value).encode(),
    ]
    # In base64 only the middle is the same wherever the value begins.
    coded = [base64.b64encode(raw[shift:])[: len(raw) - 4] for shift in range(3)]
    return [raw, *escaped, *coded, raw.hex().encode()]


SPELLINGS = sorted({*spellings(CANARY), *spellings(NEW_CANARY)})


def holds(content: bytes) -> bool:
    return any(spelling in content for spelling in SPELLINGS)


def files_with_it(folder: Path) -> list[str]:
    found = []
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content += gzip.decompress(content)
        if holds(content):
            found.append(str(path.relative_to(folder)))
    return found


def processes_with_it(part: str) -> set[int]:
    """The processes whose command line, or environment, holds it."""
    found = set()
    for path in Path("/proc").glob(f"[0-9]*/{part}"):
        try:
            if holds(path.read_bytes()):
                found.add(int(path.parent.name))
        except OSError:
            continue
    return found


def dump(platform: PlatformProcess) -> bytes:
    """Every row of every table as text."""
    with sqlite3.connect(f"file:{platform.data_dir}/machineshop.db?mode=ro", uri=True) as connection:
        return "\n".join(connection.iterdump()).encode()


@pytest.mark.timeout(300)
def test_the_value_is_in_the_replicas_environment_and_nowhere_else(
    own_platform: PlatformProcess, tmp_path_factory: pytest.TempPathFactory
) -> None:
    vault = own_platform
    project = write_worker(vault.folder / "project", "vault", WORKER)
    given = tmp_path_factory.mktemp("given") / "value"
    given.write_text(CANARY + "\n")
    answers = []

    # Set, and refused in every way that we can think of.
    answers.append(vault.jig("secrets", "set", "TOKEN", "--file", given, cwd=project).stdout)
    answers.append(vault.jig("deploy", cwd=project).stdout)
    with vault.client() as client:
        for body in (
            {"name": "vault-TOKEN", "value": CANARY},  # there already
            {"name": CANARY, "value": CANARY, "ttl_seconds": 1},
            {"name": "new", "value": CANARY, "ttl_seconds": "soon"},
            {"name": "new", "value": CANARY * 10_000},
            {"name": "new", "value": CANARY + "\x00"},
            {"name": ["new"], "value": CANARY},
            {"name": "new", "value": {"is": CANARY}},
            [CANARY],
        ):
            refused = client.post("/v1/secrets", json=body)
            assert refused.status_code in {400, 409}, refused.text
            if not (isinstance(body, dict) and body["name"] == CANARY):  # a name is no secret
                answers.append(refused.text)
        cut = client.post("/v1/secrets", content=json.dumps({"name": "n", "value": CANARY}).encode()[:-1])
        answers.append(cut.text)
        assert cut.status_code == 400
        answers.append(client.patch("/v1/secrets/vault-TOKEN", json={"value": CANARY, "ttl_seconds": 5}).text)

    # Used, by two revisions and across a crash of the server.
    digest = hashlib.sha256(CANARY.encode()).hexdigest()
    outputs = vault.finished("vault", vault.submit("vault", {}))["outputs"]
    assert outputs["digest"] == digest
    vault.finished("vault", vault.submit("vault", {"fail": 1}))
    assert outputs["pid"] in processes_with_it("environ")
    vault.kill()
    vault.start()
    assert vault.finished("vault", vault.submit("vault", {}))["outputs"]["digest"] == digest
    given.write_text(NEW_CANARY)
    answers.append(vault.jig("secrets", "set", "TOKEN", "--file", given, cwd=project).stdout)
    deployed = vault.jig("deploy", cwd=project)
    assert "TOKEN has changed since replicas started" in deployed.stderr
    assert "jig secrets redeploy TOKEN" in deployed.stderr
    answers.append(vault.jig("secrets", "redeploy", "TOKEN", cwd=project).stdout)
    new_digest = hashlib.sha256(NEW_CANARY.encode()).hexdigest()
    wait_for(
        lambda: vault.finished("vault", vault.submit("vault", {}))["outputs"]["digest"] == new_digest,
        "the new replica has the new value",
    )
    rotated = vault.machineshop("secrets", "rotate", "--json", "--data-dir", vault.data_dir)
    assert json.loads(rotated.stdout)["sealed_anew"] == 1, rotated.stderr

    # Looked for.
    environments = processes_with_it("environ")
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in environments if Path(f"/proc/{pid}").exists()}
    assert commands
    assert all(b"shim.py" not in command and b"serve" not in command for command in commands.values()), commands
    assert vault.pid not in environments
    assert processes_with_it("cmdline") == set()
    with vault.client() as client:
        for route in GET_ROUTES:
            shown = client.get(route)
            assert shown.status_code == 200, f"{route}: {shown.text}"
            answers.append(shown.text)
    answers += [vault.jig(*words, cwd=project).stdout for words in (["status"], ["secrets", "list"], ["logs"])]
    for answer in [*answers, rotated.stdout]:
        assert not holds(answer.encode()), answer
    assert not holds(dump(vault))
    assert files_with_it(vault.folder) == []
    vault.jig("destroy", "--yes", cwd=project)
    answers.append(vault.jig("secrets", "delete", "TOKEN", "--yes", cwd=project).stdout)
    wait_for(lambda: not processes_with_it("environ"), "no process has it any more")
    assert files_with_it(vault.folder) == []
    assert (vault.data_dir / "secrets-key").stat().st_mode & 0o077 == 0


def test_this_test_would_find_it(tmp_path: Path) -> None:
    for number, spelling in enumerate(SPELLINGS):
        (tmp_path / str(number)).write_bytes(b"before " + spelling + b" after")
    (tmp_path / "packed").write_bytes(gzip.compress(CANARY.encode()))
    for shift in range(3):
        (tmp_path / f"coded-{shift}").write_bytes(base64.b64encode(b"x" * shift + CANARY.encode() + b"tail"))
    assert len(files_with_it(tmp_path)) == len(SPELLINGS) + 4
