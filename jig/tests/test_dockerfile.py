"""The Dockerfile, the .dockerignore and the tag: what a config comes to, and what it takes to build it."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from fake_platform import WHEEL, WHEEL_NAME, FakePlatform
from jig_process import Jig

from jig.bundle.requirements import wanted_lines
from jig.config.file import load_config
from jig.config.model import Config
from jig.errors import BundleError, ImageError
from jig.image.dockerfile import Contents, dockerfile
from jig.image.ignored import docker_pattern, dockerignore
from jig.image.managed import MARKER
from jig.image.prepare import Prepared, prepare
from jig.state import State

WHEEL_PATH = f".jig/{WHEEL_NAME}"


def config_of(folder: Path, text: str = "") -> Config:
    (folder / "jig.toml").write_text(f'name = "hello"\nworker = "worker:Hello"\n{text}')
    return load_config(folder / "jig.toml")


def lines_of(folder: Path, text: str = "", contents: Contents | None = None) -> list[str]:
    return dockerfile(config_of(folder, text), contents or Contents(WHEEL_NAME)).splitlines()


@pytest.fixture
def kept_wheel(folder: Path) -> Path:
    """A wheel of an earlier build, so that no platform is needed."""
    (folder / ".jig").mkdir()
    (folder / WHEEL_PATH).write_bytes(WHEEL)
    return folder


def prepared(folder: Path, text: str = "") -> Prepared:
    (folder / "worker.py").write_text("class Hello: ...\n")
    return prepare(config_of(folder, text), None)


def test_the_short_form_makes_two_stages_an_init_and_a_user(folder: Path) -> None:
    lines = lines_of(folder)
    assert [line for line in lines if line.startswith("FROM")] == ["FROM python:3.11 AS build", "FROM python:3.11-slim"]
    assert lines[-3:] == [
        "USER 10001",
        'ENTRYPOINT ["/opt/venv/bin/dumb-init", "--single-child", "--"]',
        'CMD ["python", "-m", "sprocket", "worker:Hello", "--queue"]',
    ]


def test_what_changes_seldom_comes_first(folder: Path) -> None:
    text = '[image]\nsystem_packages = ["ffmpeg"]\nenvironment = {MODE = "fast"}\nrun = ["echo run"]\n'
    lines = lines_of(folder, text, Contents(WHEEL_NAME, has_requirements=True))
    final = lines[lines.index("FROM python:3.11-slim") :]
    order = ["RUN apt-get", "RUN useradd", "COPY --from=build", "ENV MODE", "RUN echo run", "WORKDIR", "COPY --chown"]
    assert [next(at for at, line in enumerate(final) if line.startswith(start)) for start in order] == sorted(
        next(at for at, line in enumerate(final) if line.startswith(start)) for start in order
    )
    build = lines[: lines.index("FROM python:3.11-slim")]
    places = [next(at for at, line in enumerate(build) if word in line) for word in ("requirements.txt", WHEEL_PATH)]
    assert places == sorted(places)


def test_both_stages_have_the_system_packages(folder: Path) -> None:
    lines = lines_of(folder, '[image]\nsystem_packages = ["libpq-dev", "git=1:2.39"]\n')
    installs = [line for line in lines if "apt-get install" in line]
    assert len(installs) == 2
    assert "libpq-dev git=1:2.39 " in installs[0]


@pytest.mark.parametrize(
    ("value", "written"), [("a b", '"a b"'), ('"', '"\\""'), ("$HOME", '"\\$HOME"'), ("a\\b", '"a\\\\b"')]
)
def test_a_variable_is_taken_as_it_is(folder: Path, value: str, written: str) -> None:
    config = config_of(folder)
    config = replace(config, image=replace(config.image, environment={"NAME": value}))
    assert f"ENV NAME={written}" in dockerfile(config, Contents(WHEEL_NAME)).splitlines()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('environment = {NAME = "a\\nb"}', "image.environment.NAME has several lines"),
        ('environment = {"a b" = "x"}', "no variable's name"),
        ('system_packages = ["x; rm -rf /"]', "no package's name"),
        ('python_version = "3.11 AS x"', "image.python_version"),
    ],
)
def test_what_has_no_place_in_a_dockerfile_is_refused(folder: Path, text: str, complaint: str) -> None:
    with pytest.raises(ImageError, match=complaint):
        lines_of(folder, f"[image]\n{text}\n")


def test_a_command_of_several_lines_goes_to_the_shell_whole(folder: Path) -> None:
    lines = lines_of(folder, '[image]\nrun = ["echo one\\necho two", "echo three"]\n')
    assert 'RUN ["/bin/sh", "-ec", "echo one\\necho two"]' in lines
    assert "RUN echo three" in lines


def test_the_long_forms_command_is_split_into_words(folder: Path) -> None:
    (folder / "jig.toml").write_text('name = "hello"\n[image]\ncmd = "python app.py --name \'a b\'"\n')
    lines = dockerfile(load_config(folder / "jig.toml"), Contents(WHEEL_NAME)).splitlines()
    assert lines[-1] == 'CMD ["python", "app.py", "--name", "a b"]'


def test_jig_writes_and_deletes_nothing_through_its_folder_that_is_a_link(folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    files = dict.fromkeys(("pyproject.toml", "requirements.txt", ".gitignore"), b"precious")
    for name, content in {**files, WHEEL_NAME: WHEEL}.items():
        (victim / name).write_bytes(content)
    (folder / ".jig").symlink_to(victim, target_is_directory=True)
    with pytest.raises(ImageError, match=r"\.jig is a link, and jig writes through none"):
        prepared(folder)
    assert {name: (victim / name).read_bytes() for name in files} == files


@pytest.mark.parametrize(
    "name", ["Dockerfile", ".dockerignore", ".jig/.gitignore", ".jig/requirements.txt", ".jig/pyproject.toml"]
)
@pytest.mark.parametrize("content", [None, f"{MARKER}\nprecious"], ids=["dangling", "to a file"])
def test_jig_writes_no_file_through_a_link(kept_wheel: Path, tmp_path: Path, name: str, content: str | None) -> None:
    victim = tmp_path / "victim"
    if content is not None:
        victim.write_text(content)
    (kept_wheel / name).symlink_to(victim)
    with pytest.raises(ImageError, match=rf"{name}( is a link|', which is outside the project)"):
        prepared(kept_wheel)
    assert (victim.read_text() if victim.exists() else None) == content


def test_jig_remembers_nothing_through_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (folder / ".jig.json").symlink_to(tmp_path / "victim")
    state = State(folder, "hello")
    state.keep_requirements("key", "pinned")
    with pytest.raises(OSError, match="writes through none"):
        state.keep_secrets({"TOKEN": "hello-token"})
    assert (tmp_path / "victim").read_text() == "precious"


def test_an_own_file_may_be_a_link(kept_wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "ignore").write_text("data\n")
    (kept_wheel / ".dockerignore").symlink_to(tmp_path / "ignore")
    prepared(kept_wheel)
    assert (tmp_path / "ignore").read_text() == "data\n"


def test_copy_takes_folders_whole_and_files_by_their_place(kept_wheel: Path) -> None:
    for name in ("app/a.py", "app/b.py", "models/m.bin", "top[1].py", ".env"):
        (kept_wheel / name).parent.mkdir(exist_ok=True)
        (kept_wheel / name).write_text("x")
    prepared(kept_wheel, '[image]\ncopy = ["app/*.py", "models", "top[[]1].py", ".env"]\n')
    copies = [line for line in (kept_wheel / "Dockerfile").read_text().splitlines() if "COPY --chown" in line]
    assert copies == [
        'COPY --chown=10001:10001 ["models/", "models/"]',
        'COPY --chown=10001:10001 ["app/a.py", "app/b.py", "app/"]',
        'COPY --chown=10001:10001 ["top[[]1].py", "./"]',
    ], "and never what only its owner should have"


def test_what_git_does_not_track_is_left_out_unless_copy_names_it(kept_wheel: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    (kept_wheel / "scratch").mkdir()
    (kept_wheel / "scratch" / "notes.txt").write_text("x")
    (kept_wheel / "weights.bin").write_text("x")
    (kept_wheel / "worker.py").write_text("class Hello: ...\n")
    for command in (["init", "-q"], ["add", "worker.py"]):
        subprocess.run(["git", *command], cwd=kept_wheel, check=True)
    before = prepared(kept_wheel, '[image]\nauto_include_git = true\ncopy = ["weights.bin"]\n').tag
    lines = (kept_wheel / ".dockerignore").read_text().splitlines()
    assert "scratch" in lines
    assert lines.index("weights.bin") < lines.index("!weights.bin")
    assert "COPY --chown=10001:10001 . ./" in (kept_wheel / "Dockerfile").read_text()
    (kept_wheel / "scratch" / "notes.txt").write_text("another")
    assert prepared(kept_wheel, '[image]\nauto_include_git = true\ncopy = ["weights.bin"]\n').tag == before
    (kept_wheel / "weights.bin").write_text("another")
    assert prepared(kept_wheel, '[image]\nauto_include_git = true\ncopy = ["weights.bin"]\n').tag != before


def test_the_version_is_gits_and_fits_into_a_header(kept_wheel: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    author = ["-c", "user.name=n", "-c", "user.email=e"]
    commit = [*author, "commit", "-q", "--allow-empty", "-m", "m"]
    for command in (["init", "-q"], commit, ["tag", "v1-größer"]):
        subprocess.run(["git", *command], cwd=kept_wheel, check=True)
    assert prepared(kept_wheel).version == "v1-gr--er"


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ("*.log", "**/*.log"),
        ("data/", "**/data"),
        ("/build", "build"),
        ("docs/*.pdf", "docs/*.pdf"),
        ("!keep.log", "!**/keep.log"),
        ("!/keep.log", "!keep.log"),
        ("[!a].txt", "**/[^a].txt"),
        ("# a comment", None),
        ("  ", None),
    ],
)
def test_a_pattern_is_spelled_as_builders_do(line: str, pattern: str | None) -> None:
    assert docker_pattern(line) == pattern


def test_paths_stand_for_themselves_and_jigs_own_come_last() -> None:
    text = dockerignore(["*.log"], ["a*b", "dir/"], ["c[1]"], [WHEEL_PATH])
    assert text.splitlines() == ["**/*.log", "a\\*b", "dir", "!c\\[1]", ".jig/*", f"!{WHEEL_PATH}"]


def test_the_tag_follows_what_goes_into_the_image(kept_wheel: Path) -> None:
    first = prepared(kept_wheel).tag
    assert prepared(kept_wheel).tag == first
    (kept_wheel / "README.md").write_text("for people\n")
    assert prepared(kept_wheel).tag == first
    (kept_wheel / "data.txt").write_text("for the worker\n")
    second = prepared(kept_wheel).tag
    assert second != first
    (kept_wheel / "data.txt").chmod(0o755)
    assert prepared(kept_wheel).tag != second
    assert prepared(kept_wheel, '[image]\nrun = ["true"]\n').tag not in {first, second}


def test_how_much_of_it_runs_makes_no_new_image(kept_wheel: Path) -> None:
    (kept_wheel / "worker.py").write_text("class Hello: ...\n")
    text = '[project]\nname = "hello"\nversion = "1"\n[tool.jig]\nworker = "worker:Hello"\n[tool.jig.deploy]\n'
    tags = []
    for replicas in (1, 2):
        (kept_wheel / "pyproject.toml").write_text(f"{text}max_replicas = {replicas}\n")
        tags.append(prepare(load_config(kept_wheel / "pyproject.toml"), None).tag)
    assert tags[0] == tags[1]
    assert "jig" not in (kept_wheel / ".jig" / "pyproject.toml").read_text()
    assert "pyproject.toml" in (kept_wheel / ".dockerignore").read_text().splitlines()


def test_a_dockerfile_without_the_marker_is_the_users(kept_wheel: Path) -> None:
    assert not prepared(kept_wheel).is_users
    written = (kept_wheel / "Dockerfile").read_text()
    assert written.startswith(f"{MARKER}\n")
    (kept_wheel / "Dockerfile").write_text("# MANAGED BY JIG - in the words of another jig\nFROM nothing\n")
    assert not prepared(kept_wheel).is_users
    assert (kept_wheel / "Dockerfile").read_text() == written
    mine = written.removeprefix(f"{MARKER}\n")
    (kept_wheel / "Dockerfile").write_text(mine)
    first = prepared(kept_wheel)
    assert first.is_users
    assert (kept_wheel / "Dockerfile").read_text() == mine
    (kept_wheel / "Dockerfile").write_text(mine + "# changed\n")
    assert prepared(kept_wheel).tag != first.tag


def test_a_dockerignore_without_the_marker_is_the_users(kept_wheel: Path) -> None:
    (kept_wheel / ".dockerignore").write_text("mine\n")
    assert prepared(kept_wheel).notes == ()
    assert (kept_wheel / ".dockerignore").read_text() == "mine\n"


def test_a_dockerfile_outside_the_project_is_refused(kept_wheel: Path) -> None:
    with pytest.raises(ImageError, match="outside the project"):
        prepared(kept_wheel, '[image]\ndockerfile_path = "../Dockerfile"\n')


def test_without_a_wheel_and_without_a_platform_there_is_no_image(folder: Path) -> None:
    with pytest.raises(ImageError, match="An image needs sprocket"):
        prepared(folder)


def test_the_wheel_is_the_platforms_and_is_fetched_once(jig: Jig, platform: FakePlatform, project: Path) -> None:
    finished = jig("dockerfile", "--json")
    assert finished.code == 0, finished.out
    assert finished.json["managed"] is True
    assert (project / WHEEL_PATH).read_bytes() == WHEEL
    assert (project / ".jig" / ".gitignore").read_text() == "*\n"
    jig("dockerfile")
    assert len(platform.sent("GET", "/packages/")) == 1
    (project / WHEEL_PATH).write_bytes(b"stale")
    jig("dockerfile")
    assert (project / WHEEL_PATH).read_bytes() == WHEEL


def test_an_own_dockerfile_is_said_to_be_so(jig: Jig, project: Path) -> None:
    (project / "Dockerfile").write_text("FROM scratch\n")
    finished = jig("dockerfile")
    assert "is your own, and is left as it is" in finished.out
    assert not (project / ".jig" / WHEEL_NAME).exists()


GROUPS = """
[project]
name = "hello"
version = "1"
dependencies = ["sprocket"]
[project.optional-dependencies]
Fast_Math = ["sprocket[gpu]", "./local"]
[dependency-groups]
serve = [{include-group = "base"}, "idna==3.6"]
base = ["certifi==2024.2.2"]
loop = [{include-group = "loop"}]
"""


def test_extras_and_groups_are_among_the_requirements(kept_wheel: Path) -> None:
    (kept_wheel / "pyproject.toml").write_text(GROUPS)
    config = config_of(kept_wheel, '[image]\ngroups = ["serve"]\n')
    assert wanted_lines(kept_wheel, config.image)[0] == ["certifi==2024.2.2", "idna==3.6"]
    config = config_of(kept_wheel, '[image]\nextras = ["fast-math"]\n')
    assert wanted_lines(kept_wheel, config.image)[0] == ["./local", "nvidia-ml-py>=12"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('groups = ["nothing"]', r"image.groups names 'nothing'.*\[dependency-groups\]"),
        ('extras = ["nothing"]', r"image.extras names 'nothing'.*\[project.optional-dependencies\]"),
        ('groups = ["loop"]', "loop includes itself"),
    ],
)
def test_an_extra_or_group_that_is_not_there_is_named(kept_wheel: Path, text: str, complaint: str) -> None:
    (kept_wheel / "pyproject.toml").write_text(GROUPS)
    with pytest.raises(BundleError, match=complaint):
        prepared(kept_wheel, f"[image]\n{text}\n")
