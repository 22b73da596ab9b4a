"""What a config file means, and what is said about one that is wrong."""

from pathlib import Path

import pytest

from jig.config.file import find_config, find_name
from jig.config.model import Config, EnvironmentVariable, ModelMount, VolumeMount
from jig.config.sections import slug
from jig.errors import ConfigError


def read(folder: Path, text: str, filename: str = "jig.toml") -> Config:
    folder = folder if folder.name == "some-folder" else folder / "model"
    folder.mkdir(exist_ok=True)
    (folder / filename).write_text(text)
    return find_config(None, folder)


def test_a_name_is_read_from_a_config_that_is_wrong_elsewhere(folder: Path) -> None:
    config = folder / "jig.toml"
    config.write_text('name = "model"\ngpu = "H1000"\n')
    assert find_name(None, folder) == "model"
    config.write_text('nmae = "model"\n')
    with pytest.raises(ConfigError, match=r"jig\.toml: there is no key nmae") as raised:
        find_name(None, folder)
    assert raised.value.hint == "Did you mean `name`?"


def test_the_long_form_has_its_own_defaults(tmp_path: Path) -> None:
    config = read(tmp_path, '[tool.jig]\nname = "model"\n', "pyproject.toml")
    deploy, image = config.deploy, config.image
    assert (deploy.gpu_type, deploy.gpu_count) == ("h100-80gb", 1)
    assert (deploy.cpu, deploy.memory, deploy.storage, deploy.port) == (1, 8, 100, 8000)
    assert (deploy.min_replicas, deploy.max_replicas) == (1, 1)
    assert (deploy.health_check_path, deploy.termination_grace_period_seconds) == ("/health", 300)
    assert (image.python_version, image.cmd, image.dockerfile_path) == ("3.11", "python app.py", "Dockerfile")
    assert config.command == ("python", "app.py")
    assert config.directory == tmp_path / "model"


def test_the_short_form_is_a_worker_on_the_cpu(tmp_path: Path) -> None:
    config = read(tmp_path, 'name = "model"\nworker = "pkg.worker:Model"\n')
    assert (config.deploy.gpu_type, config.deploy.gpu_count) == ("none", 0)
    assert config.command == ("python", "-m", "sprocket", "pkg.worker:Model", "--queue")


@pytest.mark.parametrize(
    ("gpu", "expected"),
    [
        ('gpu = "A100"', ("a100-80gb", 1)),
        ('gpu = "h100"\ngpu_count = 4', ("h100-80gb", 4)),
        ('gpu = "H200"', ("h200-140gb", 1)),
        ('gpu = "b200"', ("b200-192gb", 1)),
        ('gpu = "h100-40gb-mig"', ("h100-40gb-mig", 1)),
        ('gpu = "none"', ("none", 0)),
        ('gpu = "CPU"\ngpu_count = 2', ("none", 0)),
        ('[deploy]\ngpu_type = "a100-80gb"', ("a100-80gb", 1)),
        ('gpu = "A100"\n[deploy]\ngpu_count = 2', ("a100-80gb", 2)),
        ('[deploy]\ngpu_type = "none"', ("none", 0)),
    ],
)
def test_gpus_of_both_forms_merge(tmp_path: Path, gpu: str, expected: tuple[str, int]) -> None:
    config = read(tmp_path, f'name = "model"\nworker = "worker:Model"\n{gpu}\n')
    assert (config.deploy.gpu_type, config.deploy.gpu_count) == expected


def test_a_long_form_on_the_cpu_has_no_gpu(tmp_path: Path) -> None:
    config = read(tmp_path, 'name = "model"\n[deploy]\ngpu_type = "none"\n')
    assert config.deploy.gpu_count == 0


def test_deploy_command_wins_over_the_worker(tmp_path: Path) -> None:
    config = read(tmp_path, 'name = "model"\nworker = "w:M"\n[deploy]\ncommand = ["python", "own.py"]\n')
    assert config.command == ("python", "own.py")


def test_the_command_of_an_image_is_split_like_a_shell_does(tmp_path: Path) -> None:
    config = read(tmp_path, 'name = "model"\n[image]\ncmd = "python app.py --name \'a b\'"\n')
    assert config.command == ("python", "app.py", "--name", "a b")


def test_variables_are_values_or_secrets(tmp_path: Path) -> None:
    config = read(tmp_path, 'name = "model"\n[deploy.environment_variables]\nA = "1"\nB = {secret = "model-B"}\n')
    assert config.deploy.environment_variables == (
        EnvironmentVariable("A", value="1"),
        EnvironmentVariable("B", secret="model-B"),
    )


def test_mounts_and_scaling_are_read(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        'name = "model"\n'
        '[deploy]\nautoscaling = {metric = "QueueBacklogPerWorker", target = 1.05}\n'
        '[[deploy.volume_mounts]]\nname = "weights"\nmount_path = "/weights"\nversion = 2\n'
        '[[deploy.volume_mounts]]\nname = "data"\nmount_path = "/data"\n'
        '[[deploy.model_mounts]]\nmodel = "ml_a@rv_b"\nmount_path = "/model"\n'
        '[experimental]\ncapacity_type = "preemptible"\n',
    )
    assert config.deploy.volume_mounts == (VolumeMount("weights", "/weights", 2), VolumeMount("data", "/data", None))
    assert config.deploy.model_mounts == (ModelMount("ml_a@rv_b", "/model"),)
    assert config.deploy.autoscaling == {"metric": "QueueBacklogPerWorker", "target": 1.05, "model": "model"}
    assert config.experimental.capacity_type == "preemptible"
    assert config.warnings == ()


def test_a_misspelt_key_of_the_scaling_is_refused_and_one_of_other_clients_passes(tmp_path: Path) -> None:
    policy = 'metric = "HTTPTotalRequests", target = 2, '
    with pytest.raises(ConfigError, match=r"there is no key deploy\.autoscaling\.idle_second\.") as refused:
        read(tmp_path, f"[deploy]\nautoscaling = {{{policy} idle_second = 60}}\n")
    assert refused.value.hint == "Did you mean `idle_seconds`?"
    config = read(tmp_path, f"[deploy]\nautoscaling = {{{policy} priority_class = 1}}\n")
    assert config.deploy.autoscaling["priority_class"] == 1


def test_deprecated_places_work_with_a_warning(tmp_path: Path) -> None:
    config = read(tmp_path, 'name = "model"\nautoscaling = {metric = "CustomMetric", target = 2}\n')
    assert config.deploy.autoscaling["metric"] == "CustomMetric"
    assert config.warnings == ("autoscaling is deprecated: write deploy.autoscaling instead.",)


def test_jig_toml_wins_over_pyproject(tmp_path: Path) -> None:
    folder = tmp_path / "some-folder"
    folder.mkdir()
    (folder / "pyproject.toml").write_text('[tool.jig]\nname = "from-pyproject"\n')
    assert read(folder, 'name = "from-jig-toml"\n').name == "from-jig-toml"


def test_a_copy_of_a_pyproject_is_read_like_one(tmp_path: Path) -> None:
    (tmp_path / "staging.toml").write_text('[project]\nname = "mine"\n[tool.jig]\nworker = "w:H"\n')
    config = find_config(Path("staging.toml"), tmp_path)
    assert (config.name, config.worker) == ("mine", "w:H")


def test_the_name_falls_back_to_the_project_and_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "some-folder"
    folder.mkdir()
    assert read(folder, '[project]\nname = "some-project"\n[tool.jig]\n', "pyproject.toml").name == "some-project"
    assert read(folder, "").name == "some-folder"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wroker = 'a:B'", "jig.toml: there is no key wroker."),
        ("[deploy]\nmin_replcas = 1", "jig.toml: there is no key deploy.min_replcas."),
        ("[image]\nsystem_package = []", "jig.toml: there is no key image.system_package."),
        ("[[deploy.volume_mounts]]\nname='a'\nmount_path='/a'\nversio=1", "deploy.volume_mounts[0].versio"),
        ("[deploy.environment_variables]\nA = {secrt = 'x'}", "there is no key deploy.environment_variables.A.secrt."),
        ("[deploy]\nport = '8000'", 'deploy.port must be a whole number, not "8000" (a string).'),
        ("[deploy]\nport = true", "deploy.port must be a whole number, not True (true or false)."),
        ("[deploy]\nport = 0", "deploy.port must be at least 1, not 0"),
        ("[deploy]\ncpu = 0.01", "deploy.cpu must be at least 0.1"),
        ("[deploy]\nmemory = 2000", "deploy.memory must be at most 1000"),
        ("[deploy]\ncommand = 'python app.py'", "deploy.command must be a list of strings"),
        ("[deploy]\nmax_replicas = 1\nmin_replicas = 2", "deploy.max_replicas must be at least min_replicas, 2"),
        ("[deploy.environment_variables]\nA = 1", "deploy.environment_variables.A must be a string"),
        ("[deploy]\ngpu_type = 'none'\ngpu_count = 1", "deploy.gpu_count must be 0 without a GPU"),
        ("worker = 'worker.py'", 'worker must be "module:Class"'),
        ("worker = 'a:B'\ngpu_count = 1", "gpu_count must be 0 without a gpu"),
        ("gpu = 'T4'", "gpu must be one of A100, H100, H200, B200, none"),
        ("deploy = 1", "deploy must be a table, not 1 (a whole number)."),
        ("[experimental]\ncapacity_type = 'spot'", "experimental.capacity_type must be one of stable, preemptible"),
        ("[[deploy.model_mounts]]\nmodel='a'\nmount_path='/a'", 'must be "ml_..." or "ml_...@rv_..."'),
        ("[[deploy.volume_mounts]]\nname='a'\nmount_path='a'", 'an absolute path, not "a".'),
        ("[[deploy.volume_mounts]]\nname='a'\nmount_path='/'", "must be the plain path of a folder, and not that"),
        ("[[deploy.volume_mounts]]\nname='a'\nmount_path='/a/../b'", "must be the plain path of a folder"),
        (
            "[[deploy.volume_mounts]]\nname='a'\nmount_path='/w'\n[[deploy.volume_mounts]]\nname='b'\nmount_path='/w'",
            'volume_mounts[1].mount_path must be another path than that of the volume a, not "/w".',
        ),
        (
            "[[deploy.volume_mounts]]\nname='a'\nmount_path='/w/a'\n[[deploy.volume_mounts]]\nname='b'\nmount_path='/w'",
            "volume_mounts[1].mount_path must be beside /w/a, where the volume a is mounted",
        ),
        (
            "name = 'model'\n[[tool.jig.deploy.volume_mounts]]\nname = 'a'",
            "jig.toml has both a [tool.jig] and keys of its own beside it: name.",
        ),
        ("[deploy", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_key_and_file(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert said in caught.value.message
    assert "jig.toml" in caught.value.message


def test_a_typo_in_a_key_that_must_be_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "[[deploy.volume_mounts]]\nname='a'\nmountpath='/a'")
    assert caught.value.message == "jig.toml: there is no key deploy.volume_mounts[0].mountpath."
    assert caught.value.hint == "Did you mean `mount_path`?"


def test_a_key_one_table_too_high_is_sent_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "minreplicas = 2\n")
    assert caught.value.hint == "Did you mean `deploy.min_replicas`?"


def test_a_typo_gets_the_nearest_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, '[tool.jig.deploy]\nhealth_chek_path = "/"\n', "pyproject.toml")
    assert caught.value.message == "pyproject.toml: there is no key tool.jig.deploy.health_chek_path."
    assert caught.value.hint == "Did you mean `health_check_path`?"


@pytest.mark.parametrize("name", ["abc", "Model", "-model", "my_model", "m" * 64])
def test_a_name_that_breaks_the_rule_is_refused_with_one_that_does_not(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, f'name = "{name}"\n')
    assert "jig.toml: name must be 4 to 63 lowercase" in caught.value.message


def test_a_slug_is_the_nearest_name() -> None:
    assert slug("My_Model 2") == "my-model-2"


def test_no_config_is_an_error_that_says_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no jig.toml") as caught:
        find_config(None, tmp_path)
    assert caught.value.is_absent
    with pytest.raises(ConfigError, match="There is no config file"):
        find_config(Path("other.toml"), tmp_path)
