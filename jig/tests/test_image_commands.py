"""`jig build`, `jig push` and `jig deploy` of images, with programs that write down what they are asked."""

from pathlib import Path

import pytest
from fake_builder import DIGEST, FakeBuilder
from fake_platform import KEY, WHEEL, WHEEL_NAME, FakePlatform
from jig_process import Finished, Jig

from jig.errors import UsageError
from jig.image.builders import BUILDERS, Build
from jig.image.find import find_builder
from jig.image.ship import platform_for
from jig.image.warmup import Cache, cache_of, runner_for

NO_BUILDX = {"docker buildx version": (1, "")}
OWN = '[deploy]\ncommand = ["python", "own.py"]\n'


@pytest.fixture
def builder(tmp_path: Path) -> FakeBuilder:
    """docker without buildx, and podman."""
    fake = FakeBuilder(tmp_path / "programs")
    fake.install("docker", "podman", "buildah")
    fake.answer(NO_BUILDX)
    return fake


@pytest.fixture
def image_jig(jig: Jig, builder: FakeBuilder, project: Path) -> Jig:
    """jig that finds the fake builders alone, in a project that has a wheel already."""
    (project / ".jig").mkdir()
    (project / ".jig" / WHEEL_NAME).write_bytes(WHEEL)
    return Jig(jig.folder, {**jig.environment, "PATH": str(builder.folder)})


@pytest.fixture
def images(platform: FakePlatform) -> FakePlatform:
    """A platform that runs images alone."""
    platform.runtime = {"runtime": "docker", "accepts": ["image"], "gpus": 0}
    return platform


def host(platform: FakePlatform) -> str:
    return platform.url.removeprefix("http://")


def test_a_deploy_builds_pushes_and_pins_by_digest(
    image_jig: Jig, builder: FakeBuilder, images: FakePlatform, project: Path
) -> None:
    finished = image_jig("deploy", "--json", "--docker-args", "--network host")
    assert finished.code == 0, finished.out
    image = f"{host(images)}/acme/hello@{DIGEST}"
    assert finished.json["image"] == images.deployments["hello"]["image"] == image
    assert images.deployments["hello"]["command"] == [], "the image has it"
    (build,) = builder.commands("docker build")
    assert build[2:] == [
        *("--force-rm", "--file", str(project / "Dockerfile")),
        *("--tag", "hello:latest", "--network", "host", str(project)),
    ]
    assert builder.asked("docker build")[0]["environment"]["DOCKER_BUILDKIT"] == "0"
    content, latest = (command[2] for command in builder.commands("docker push"))
    assert content.startswith(f"{host(images)}/acme/hello:")
    assert latest == f"{host(images)}/acme/hello:latest"
    assert builder.commands("docker rmi") == [["docker", "rmi", content]]
    assert images.sent("POST", "/v1/deployments/prewarm")[0].json == {"images": [image]}


def test_the_key_goes_over_standard_input_and_nowhere_else(
    image_jig: Jig, builder: FakeBuilder, images: FakePlatform
) -> None:
    assert image_jig("deploy").code == 0
    (login,) = builder.asked("docker login")
    assert login["argv"][2:] == ["--username", "user", "--password-stdin", host(images)]
    assert login["stdin"] == KEY
    for asked in builder.asked():
        assert KEY not in " ".join(asked["argv"])
        assert KEY not in str(asked["environment"])


@pytest.mark.parametrize("name", ["podman", "buildah"])
def test_podman_and_buildah_keep_the_login_in_a_file_of_this_run(
    image_jig: Jig, builder: FakeBuilder, images: FakePlatform, name: str
) -> None:
    finished = image_jig("deploy", "--builder", name, "--tag", "v1", "--json")
    assert finished.code == 0, finished.out
    (login,), (push,) = builder.commands(f"{name} login"), builder.commands(f"{name} push")
    auth_file = login[login.index("--authfile") + 1]
    assert auth_file == push[push.index("--authfile") + 1]
    assert not Path(auth_file).parent.exists()
    assert "--tls-verify=false" in login
    assert "--tls-verify=false" in push
    assert push[-1] == f"{host(images)}/acme/hello:v1"
    assert finished.json["image"].endswith(f"@{DIGEST}")
    assert not builder.commands("docker build")


def test_buildx_builds_and_pushes_at_once_with_zstd(
    image_jig: Jig, builder: FakeBuilder, images: FakePlatform, project: Path
) -> None:
    builder.answer({"docker buildx inspect": (1, "")})
    finished = image_jig("deploy", "--json")
    assert finished.code == 0, finished.out
    (make,) = builder.commands("docker buildx create")
    assert make[3:] == ["--name", "jig", "--driver", "docker-container", "--driver-opt", "network=host"]
    (build,) = builder.commands("docker buildx build")
    output = build[build.index("--output") + 1]
    assert output.startswith("type=image,push=true,compression=zstd")
    assert "registry.insecure" not in output, "BuildKit speaks plain HTTP to this machine by itself"
    tags = [build[at + 1] for at, word in enumerate(build) if word == "--tag"]
    assert [tag.partition(":")[0] for tag in tags] == ["127.0.0.1", "127.0.0.1"]
    assert tags[1] == f"{host(images)}/acme/hello:latest"
    assert build[-1] == str(project)
    assert images.deployments["hello"]["image"].endswith(f"@{DIGEST}")
    assert not builder.commands("docker push")


def test_buildx_builds_into_the_engine_where_nothing_is_pushed(image_jig: Jig, builder: FakeBuilder) -> None:
    builder.answer({})
    finished = image_jig("build", "--json")
    assert finished.json["builder"] == "buildx"
    (build,) = builder.commands("docker buildx build")
    assert "--load" in build
    assert build[build.index("--tag") + 1] == "hello:latest"


def test_a_warm_up_runs_the_image_and_bakes_what_it_leaves(image_jig: Jig, builder: FakeBuilder, project: Path) -> None:
    builder.answer({"docker image inspect": (0, "10001")})
    finished = image_jig("build", "--warmup", "--json", WARMUP_ENV_NAME="CACHE_DIR")
    assert finished.code == 0, finished.out
    assert (finished.json["builder"], finished.json["warmed"]) == ("docker", True), "buildx sees no image of the engine"
    assert finished.json["tag"].endswith("-warm")
    commands = [words[1] for words in builder.commands("docker") if words[1] not in ("version", "buildx")]
    assert commands == ["build", "create", "start", "cp", "rm", "image", "build"]
    assert builder.commands("docker cp")[0][2] == "container-1:/app/torch_cache"
    assert builder.commands("docker rm")[0][-1] == "container-1"


def test_a_warm_up_that_fails_shows_why_and_leaves_no_container(image_jig: Jig, builder: FakeBuilder) -> None:
    builder.answer({**NO_BUILDX, "docker start": (1, "ConfigError: Hello has no warm-up inputs")})
    finished = image_jig("build", "--warmup")
    assert finished.code == 1
    assert "The warm-up of hello:latest failed." in finished.err
    assert "Hello has no warm-up inputs" in finished.err
    assert builder.commands("docker rm")


def test_buildah_runs_no_image_so_it_warms_none_up() -> None:
    with pytest.raises(UsageError, match="Take docker or podman"):
        runner_for(BUILDERS["buildah"])
    assert runner_for(BUILDERS["podman"]).name == "podman"


@pytest.mark.parametrize("place", ["/root", "../up", 'a"b', "."])
def test_a_cache_is_below_the_working_directory(place: str) -> None:
    with pytest.raises(UsageError, match="WARMUP_DEST"):
        cache_of({"WARMUP_DEST": place})


def test_a_cache_has_a_place_and_a_variable() -> None:
    assert cache_of({}) == Cache("torch_cache", "TORCHINDUCTOR_CACHE_DIR")
    assert cache_of({"WARMUP_DEST": "a/b", "WARMUP_ENV_NAME": "OUT"}).place == "/app/a/b"
    with pytest.raises(UsageError, match="WARMUP_ENV_NAME"):
        cache_of({"WARMUP_ENV_NAME": "a b"})


def test_a_failing_step_is_shown_and_nothing_of_jig(image_jig: Jig, builder: FakeBuilder) -> None:
    text = "Step 1/2 : FROM python:3.11\n ---> 1\nStep 2/2 : RUN make\nno rule to make target"
    builder.answer({**NO_BUILDX, "docker build": (1, text)})
    finished = image_jig("build")
    assert finished.code == 1
    expected = "docker could not build hello:latest.\n  Step 2/2 : RUN make\n  no rule to make target\n"
    assert finished.err.endswith(expected)
    assert "FROM python" in finished.err.partition("jig:")[0], "each step is a line"


def test_without_any_builder_it_says_what_to_install(image_jig: Jig, builder: FakeBuilder) -> None:
    for name in ("docker", "podman", "buildah"):
        (builder.folder / name).unlink()
    finished = image_jig("build")
    assert finished.code == 1
    assert "Install docker, podman or buildah" in finished.err


def test_a_builder_that_does_not_work_is_not_taken(image_jig: Jig, builder: FakeBuilder) -> None:
    builder.answer({"docker version": (1, "")})
    assert image_jig("build", "--json").json["builder"] == "podman"
    finished = image_jig("build", "--builder", "docker")
    assert (finished.code, "docker does not work here" in finished.err) == (1, True)
    with pytest.raises(UsageError, match="--builder kaniko"):
        find_builder("kaniko")


def test_a_push_without_a_build_says_so(image_jig: Jig, builder: FakeBuilder, images: FakePlatform) -> None:
    builder.answer({**NO_BUILDX, "docker image inspect": (1, "")})
    finished = image_jig("push")
    assert finished.code == 1
    assert "There is no image hello:latest here." in finished.err
    assert "jig build" in finished.err


def test_a_push_pushes_what_was_built_and_prints_its_reference(
    image_jig: Jig, builder: FakeBuilder, images: FakePlatform
) -> None:
    tag = image_jig("build", "--json").json["tag"]
    finished = image_jig("push")
    assert finished.out == f"{host(images)}/acme/hello@{DIGEST}\n"
    assert [words[-1].rpartition(":")[2] for words in builder.commands("docker push")] == [tag, "latest"]
    builder.answer({**NO_BUILDX, "docker push": (1, "denied: requested access to the resource is unauthorized")})
    finished = image_jig("push")
    assert "docker could not push" in finished.err
    assert "jig auth login" in finished.err


def test_a_viewer_is_refused_before_a_push(image_jig: Jig, builder: FakeBuilder, images: FakePlatform) -> None:
    images.scope = "viewer"
    finished = image_jig("push")
    assert finished.code == 1
    assert "it needs the scope admin or developer, and has viewer." in finished.err
    assert builder.commands("docker push") == []


def test_a_push_takes_the_tag_that_the_last_build_was_given(
    image_jig: Jig, builder: FakeBuilder, images: FakePlatform
) -> None:
    assert image_jig("build", "--tag", "v2").code == 0
    assert image_jig("push", "--json").json["tags"] == ["v2"]
    assert image_jig("push", "--tag", "v1", "--json").json["tags"] == ["v1"]
    tag = image_jig("build", "--json").json["tag"]
    assert image_jig("push", "--json").json["tags"] == [tag, "latest"]


def test_build_only_deploys_nothing(image_jig: Jig, builder: FakeBuilder, images: FakePlatform) -> None:
    finished = image_jig("deploy", "--build-only", "--json")
    assert finished.json["image"].endswith(DIGEST)
    assert images.deployments == {}


def test_an_own_dockerfile_gets_the_configs_command(
    image_jig: Jig, builder: FakeBuilder, images: FakePlatform, project: Path
) -> None:
    (project / "Dockerfile").write_text("FROM scratch\n")
    (project / "jig.toml").write_text(f'name = "hello"\nworker = "worker:Hello"\n{OWN}')
    assert image_jig("deploy").code == 0
    assert images.deployments["hello"]["command"] == ["python", "own.py"]


def test_where_both_are_taken_a_bundle_is_made_unless_an_image_is_needed(
    image_jig: Jig, builder: FakeBuilder, platform: FakePlatform, project: Path
) -> None:
    platform.runtime = {"runtime": "docker", "accepts": ["bundle", "image"], "gpus": 0}
    assert image_jig("deploy").code == 0
    assert not builder.commands("docker build")
    assert not (project / "Dockerfile").exists()
    assert image_jig("dockerfile").code == 0
    assert image_jig("deploy").code == 0
    assert builder.commands("docker build")


def test_where_bundles_alone_are_taken_options_of_images_are_refused(image_jig: Jig, builder: FakeBuilder) -> None:
    finished = image_jig("deploy", "--warmup")
    assert finished.code == 1
    assert "runs bundles, so no image is built" in finished.err
    assert not builder.commands("docker build")


def test_what_is_no_tag_is_said_before_anything_is_done(image_jig: Jig, builder: FakeBuilder) -> None:
    for command in ("build", "push", "deploy"):
        finished = image_jig(command, "--tag", "../x")
        assert (finished.code, "--tag ../x: that is no tag." in finished.err) == (2, True)
    assert builder.commands() == []


def test_with_an_image_named_there_is_nothing_to_build(image_jig: Jig, project: Path) -> None:
    assert image_jig("deploy", "--image", "example.com/x:1", "--build-only").code == 2
    (project / "jig.toml").write_text('name = "hello"\n[deploy]\nimage = "example.com/x:1"\n')
    finished = image_jig("build")
    assert (finished.code, "nothing to build" in finished.err) == (2, True)


def findings(finished: Finished) -> dict[str, str]:
    document = finished.json
    return {each["name"]: each["state"] for each in document.get("error", document)["findings"]}


def test_the_doctor_finds_everything_in_order(image_jig: Jig, images: FakePlatform) -> None:
    finished = image_jig("doctor", "--json")
    assert finished.code == 0, finished.out
    names = ["config", "uv", "platform", "key", "runtime", "registry", "builder"]
    assert findings(finished) == dict.fromkeys(names, "ok")
    assert f"{images.url}, version 9.9" in finished.out


def test_the_doctor_names_what_is_missing_and_its_mend(
    image_jig: Jig, builder: FakeBuilder, images: FakePlatform, project: Path
) -> None:
    for name in ("docker", "podman", "buildah"):
        (builder.folder / name).unlink()
    (project / "jig.toml").write_text('name = "hello"\nwroker = "worker:Hello"\n')
    finished = image_jig("doctor")
    assert finished.code == 1
    assert "Did you mean `worker`?" in finished.out
    assert "Install docker, podman or buildah" in finished.out
    assert "jig: Missing: config, builder." in finished.err


def test_without_images_a_missing_builder_is_a_note(
    image_jig: Jig, builder: FakeBuilder, platform: FakePlatform
) -> None:
    for name in ("docker", "podman", "buildah"):
        (builder.folder / name).unlink()
    finished = image_jig("doctor", "--json")
    assert (finished.code, findings(finished)["builder"]) == (0, "note")


def test_the_doctor_without_a_platform_or_with_a_wrong_key(image_jig: Jig) -> None:
    finished = image_jig("doctor", "--json", TOGETHER_BASE_URL="http://127.0.0.1:1")
    assert (finished.code, findings(finished)["platform"]) == (1, "missing")
    finished = image_jig("doctor", "--json", TOGETHER_API_KEY="msk_wrong")
    assert findings(finished) == {"config": "ok", "uv": "ok", "platform": "ok", "key": "missing", "builder": "ok"}


def test_the_doctor_finds_that_a_viewers_key_deploys_nothing(image_jig: Jig, platform: FakePlatform) -> None:
    platform.scope = "viewer"
    finished = image_jig("doctor")
    assert finished.code == 1
    assert "scope viewer: it can only look" in finished.out
    assert "a key of scope developer or admin" in finished.out
    assert "takes the key, and lets it pull alone" in finished.out
    assert "jig: Missing: key." in finished.err


def test_an_images_build_fits_the_machine_that_runs_it() -> None:
    assert platform_for("x86_64", "https://gpu.example.com") is None
    assert platform_for("arm64", "https://gpu.example.com") == "linux/amd64"
    assert platform_for("arm64", "http://127.0.0.1:8799") is None


@pytest.mark.parametrize("name", ["buildx", "podman", "buildah"])
def test_only_the_classic_builder_is_told_to_leave_no_container(name: str) -> None:
    build = Build(Path("Dockerfile"), Path(), ("hello:latest",))
    assert "--force-rm" in BUILDERS["docker"].build(build)
    assert "--force-rm" not in BUILDERS[name].build(build)


def test_colours_of_a_step_are_left_out(image_jig: Jig, builder: FakeBuilder) -> None:
    builder.answer({**NO_BUILDX, "docker build": (1, "Step 1/1 : RUN x\n\x1b[91mbad\x1b[0m")})
    assert image_jig("build").err.endswith("  Step 1/1 : RUN x\n  bad\n")
