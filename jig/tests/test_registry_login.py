"""Logins of docker and podman, read for a registry that others run."""

import base64
import json
from pathlib import Path

import httpx
import pytest
from fake_builder import FakeBuilder
from fake_platform import KEY, WHEEL, WHEEL_NAME, FakePlatform
from jig_process import Jig

from jig.registry_login import Login, RegistryAuth, find_login

HOST = "registry.example.org"


def entry(user: str, password: str = "secret") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def write(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))


def test_podmans_files_come_before_dockers_and_the_longest_name_wins(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    assert find_login(HOST, "acme/hello", environment) is None
    write(tmp_path / ".docker/config.json", {"auths": {f"https://{HOST}": entry("docker", "a:b")}})
    assert find_login(HOST, "acme/hello", environment) == Login("docker", "a:b")
    auths = {HOST: entry("podman"), f"{HOST}/acme": entry("acme"), f"{HOST}/acme/hello/more": entry("more")}
    write(tmp_path / ".config/containers/auth.json", {"auths": auths})
    assert find_login(HOST, "acme/hello", environment) == Login("acme", "secret")
    assert find_login(HOST, "acmes/hello", environment) == Login("podman", "secret")
    assert find_login("elsewhere.example.org", "acme/hello", environment) is None
    assert "secret" not in repr(Login("acme", "secret"))


@pytest.mark.parametrize("broken", ["{", "[]", '{"auths": []}', {"auths": {HOST: {"auth": "!"}}}, {"auths": {HOST: 1}}])
def test_a_file_that_makes_no_sense_has_no_login(tmp_path: Path, broken: object) -> None:
    write(tmp_path / ".docker/config.json", broken)
    assert find_login(HOST, "acme/hello", {"HOME": str(tmp_path)}) is None


def test_a_helper_is_asked_where_it_keeps_the_logins(tmp_path: Path) -> None:
    helper = tmp_path / "bin/docker-credential-vault"
    write(helper, '#!/bin/sh\nread host; echo "{\\"Username\\": \\"of $host\\", \\"Secret\\": \\"s\\"}"\n')
    helper.chmod(0o755)
    environment = {"HOME": str(tmp_path), "PATH": f"{helper.parent}:/usr/bin:/bin"}
    write(tmp_path / ".docker/config.json", {"auths": {HOST: {}}, "credsStore": "vault"})
    assert find_login(HOST, "acme/hello", environment) == Login(f"of {HOST}", "s")
    write(tmp_path / ".docker/config.json", {"credHelpers": {HOST: "nowhere"}})
    assert find_login(HOST, "acme/hello", environment) is None


def flow(challenge: str) -> list[httpx.Request]:
    """What is sent while a registry answers so, and gives a token to whoever asks."""
    requests = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        if request.url.path == "/token":
            return httpx.Response(200, json={"token": "t"})
        return httpx.Response(401, headers={"WWW-Authenticate": challenge})

    auth = RegistryAuth(f"https://{HOST}", "acme/hello", Login("me", "secret"))
    with httpx.Client(transport=httpx.MockTransport(answer), auth=auth) as client:
        client.get(f"https://{HOST}/v2/")
        client.get("https://elsewhere.example.org/v2/")
    return requests


def test_a_token_is_got_with_the_login_and_others_see_neither() -> None:
    _, token, again, elsewhere = flow('Bearer realm="https://auth.example.org/token",service="registry"')
    assert dict(token.url.params) == {"scope": "repository:acme/hello:pull,push", "service": "registry"}
    assert token.headers["Authorization"] == Login("me", "secret").header
    assert again.headers["Authorization"] == "Bearer t"
    assert "Authorization" not in elsewhere.headers


def test_a_login_goes_where_basic_is_asked_for_and_over_no_plain_line() -> None:
    assert flow("Basic realm=x")[1].headers["Authorization"] == Login("me", "secret").header
    asked = flow('Bearer realm="http://auth.example.org/token"')
    assert [each.headers.get("Authorization") for each in asked] == [None, None]


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_builders_push_there_with_their_own_login(
    jig: Jig, platform: FakePlatform, project: Path, tmp_path: Path, name: str
) -> None:
    platform.runtime = {"runtime": "docker", "accepts": ["image"], "gpus": 0}
    platform.registry = {"base-path": f"https://{HOST}/models/acme", "outside": True}
    builder = FakeBuilder(tmp_path / "programs")
    builder.install(name)
    builder.answer({"docker buildx version": (1, "")})
    write(project / ".jig" / WHEEL_NAME, "")
    (project / ".jig" / WHEEL_NAME).write_bytes(WHEEL)
    finished = Jig(jig.folder, {**jig.environment, "PATH": str(builder.folder)})("deploy", "--json", "--tag", "v1")
    assert finished.code == 0, finished.out
    assert finished.json["image"].startswith(f"{HOST}/models/acme/hello@sha256:")
    assert not builder.commands(f"{name} login")
    (push,) = builder.asked(f"{name} push")
    assert push["argv"][-1] == f"{HOST}/models/acme/hello:v1"
    assert "--authfile" not in push["argv"]
    assert KEY not in json.dumps(builder.asked())
