"""`jig init`: a folder becomes a project."""

from pathlib import Path

import pytest
from fake_platform import FakePlatform
from jig_process import Jig


def test_init_makes_a_project_that_deploys(jig: Jig, platform: FakePlatform, folder: Path) -> None:
    finished = jig("init", "--json")
    assert finished.json["created"] == ["worker.py", "pyproject.toml", "README.md"]
    assert jig("deploy", "--detach").code == 0
    config, files = platform.bundle(platform.deployments["hello"]["image"])
    assert config["command"] == ["python", "-m", "sprocket", "worker:Hello", "--queue"]
    assert config["requirements"] == ""
    assert set(files) == {"worker.py", "pyproject.toml"}
    assert platform.deployments["hello"]["gpu_type"] == "none"


def test_init_overwrites_nothing(jig: Jig, platform: FakePlatform, folder: Path) -> None:
    (folder / "worker.py").write_text("mine\n")
    (folder / "pyproject.toml").write_text('[project]\nname = "mine"\n')
    finished = jig("init", "--json")
    assert finished.json["kept"] == ["worker.py", "pyproject.toml"]
    assert finished.json["created"] == ["README.md", "jig.toml"]
    assert (folder / "worker.py").read_text() == "mine\n"
    assert (folder / "pyproject.toml").read_text() == '[project]\nname = "mine"\n'
    assert jig("init", "--json").json["created"] == []


def test_init_names_the_worker_and_the_project_that_are_there(jig: Jig, platform: FakePlatform, folder: Path) -> None:
    (folder / "worker.py").write_text("import sprocket\nclass Base: ...\nclass Detector(sprocket.Sprocket): ...\n")
    (folder / "pyproject.toml").write_text('[project]\nname = "My_Detector"\n')
    assert "is your own" not in jig("init").out
    config = (folder / "jig.toml").read_text()
    assert config.startswith('name = "my-detector"\nworker = "worker:Detector"\n')


def test_init_says_which_line_to_change_where_it_cannot_tell_the_worker(
    jig: Jig, platform: FakePlatform, folder: Path
) -> None:
    (folder / "worker.py").write_text("from sprocket import Sprocket\nclass A(Sprocket): ...\nclass B(Sprocket): ...\n")
    said = jig("init").out
    assert 'write the name of its class for Hello in pyproject.toml: worker = "worker:Hello"' in said


def test_init_makes_the_folder_that_it_is_given(jig: Jig, platform: FakePlatform, folder: Path) -> None:
    assert "cd new && jig deploy" in jig("init", "new").out
    assert "cd 'Bad Name' && jig deploy" in jig("init", "Bad Name").out
    assert (folder / "new" / "worker.py").exists()


@pytest.mark.parametrize(
    ("named", "name"),
    [
        ("A b", "a-b-worker"),
        ("gr", "gr-worker"),
        ("My Model", "my-model"),
        ("...-", "hello-world"),
        ("x" * 70, "x" * 63),
    ],
)
def test_init_says_how_it_calls_what_a_folder_gives_no_name_for(
    jig: Jig, platform: FakePlatform, folder: Path, named: str, name: str
) -> None:
    finished = jig("init", named)
    assert f"'{named}' cannot be a deployment's name: 4 to 63 lowercase letters" in finished.out
    assert f"It is called {name}. For another name change pyproject.toml" in finished.out
    assert f'[tool.jig]\nname = "{name}"\n' in (folder / named / "pyproject.toml").read_text()
    assert "cannot be" not in jig("init", named).out, "nothing is named the second time"
