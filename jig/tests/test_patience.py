"""Waits for a deployment outlast a platform that is away, and say what is so where it stays away."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_platform import KEY, READY, WAITING, FakePlatform
from jig_process import Jig, finish, wait_until

from jig import client as client_module
from jig import patience
from jig.client import Client
from jig.contexts import Target
from jig.errors import DeployError, NotFoundError
from jig.patience import Looks

PATH = "/v1/deployments/hello"
MEANWHILE = "hello is on its way."
LOOKS_MAX = 10_000
TOLD = "Trying again, for 60 s at most."


@pytest.fixture
def client(platform: FakePlatform, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """One that has had an answer, and loses no time between its tries."""
    for module in (client_module, patience):
        monkeypatch.setattr(module, "pause_seconds", lambda *_: 0.0)
    platform.deploy("hello")
    with Client(Target(platform.url, KEY, "test")) as client:
        client.get(PATH)
        yield client


def looks(client: Client, said: list[str]) -> Looks:
    return Looks(client, PATH, said.append, meanwhile=MEANWHILE, hint="Look again.")


def test_a_look_outlasts_more_failures_than_one_call(client: Client, platform: FakePlatform) -> None:
    platform.failures = [(PATH, 503)] * 20
    said: list[str] = []
    assert looks(client, said).look()["name"] == "hello"
    assert (platform.failures, said) == ([], [])


def test_an_absence_is_said_once(client: Client, platform: FakePlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "SILENCE_SECONDS", 0.0)
    platform.failures = [(PATH, 503)] * 20
    said: list[str] = []
    looks(client, said).look()
    assert said == ["The platform is unwell. Trying again, for 60 s at most."]


@pytest.mark.parametrize("away_seconds", [0.0, 60.0], ids=["away", "refusing"])
def test_where_no_answer_comes_it_says_what_is_so(
    client: Client, platform: FakePlatform, monkeypatch: pytest.MonkeyPatch, away_seconds: float
) -> None:
    monkeypatch.setattr(patience, "AWAY_SECONDS", away_seconds)
    platform.failures = [(PATH, 401 if away_seconds else 503)] * 100
    with pytest.raises(DeployError) as caught:
        looks(client, []).look()
    assert caught.value.message == f"{MEANWHILE} The platform is unwell."
    assert (caught.value.hint or "").endswith("Look again.")


def test_what_is_gone_is_gone(client: Client, platform: FakePlatform) -> None:
    platform.deployments.clear()
    with pytest.raises(NotFoundError):
        looks(client, []).look()


def test_time_stands_still_while_nobody_answers(client: Client, platform: FakePlatform) -> None:
    ticks = iter(range(0, 1000, 100))
    watched = Looks(client, PATH, print, meanwhile=MEANWHILE, hint="", clock=lambda: float(next(ticks)))
    began_at = watched.now()
    watched.look()  # takes 100 s of this clock
    assert watched.now() - began_at == 200.0


def test_destroy_outlasts_a_restart_of_the_platform(jig: Jig, platform: FakePlatform) -> None:
    platform.deploy("hello")
    platform.looks_until_gone = LOOKS_MAX
    with jig.start("destroy", "hello", "--yes") as process:
        wait_until(process, lambda: platform.looks_until_gone < LOOKS_MAX, "it looks whether it is gone")
        told = be_away_until_it_is_told(platform, process)
        platform.looks_until_gone = 0
        finished = finish(process)
    assert (finished.code, finished.out) == (0, "hello is gone.\n"), finished.err
    assert (told + finished.err).count(TOLD) == 1, told + finished.err


def test_deploy_outlasts_a_restart_of_the_platform(jig: Jig, platform: FakePlatform, project: Path) -> None:
    platform.rollout = [WAITING]
    with jig.start("deploy") as process:
        wait_until(process, lambda: len(platform.sent("GET", PATH)) > 1, "it looks whether it is ready")
        told = be_away_until_it_is_told(platform, process)
        platform.rollout = [READY]
        finished = finish(process)
    assert finished.code == 0, finished.err
    assert (told + finished.err).count(TOLD) == 1, told + finished.err


def be_away_until_it_is_told(platform: FakePlatform, process: subprocess.Popen[str]) -> str:
    """Be away for longer than the tries of one call take; what jig has said by then."""
    assert process.stderr is not None
    platform.is_away, said = True, ""
    while TOLD not in said:
        line = process.stderr.readline()
        assert line, f"jig has ended: {said}"
        said += line
    platform.is_away = False
    return said
