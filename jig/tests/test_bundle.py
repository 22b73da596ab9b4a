"""What goes into a bundle, and that equal input is equal bytes."""

import io
import os
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Protocol

import pytest

from jig.bundle import archive, source
from jig.bundle.archive import write_archive
from jig.bundle.ignore import is_ignored, parse_patterns
from jig.bundle.manifest import SOURCE_TYPE, blob_of, config_blob, manifest
from jig.bundle.pack import bundle_warnings, pack
from jig.bundle.pyproject import without_jig_tables
from jig.bundle.requirements import SPROCKET_EXTRAS, lock, needed_by_extras, package_name, without_sprocket
from jig.bundle.source import collect
from jig.config.file import find_config
from jig.config.model import Config
from jig.config.sections import read_config
from jig.errors import BundleError
from jig.state import State
from jig.uv import clean_environment, compile_arguments, run_uv

ROOT = Path(__file__).parents[2]
IMAGE = read_config({}, Path("jig.toml"), "", "hello").image


class ReadConfig(Protocol):
    """Writes the project's jig.toml with this text at its end, and reads it."""

    def __call__(self, text: str = "") -> Config: ...


@pytest.fixture
def config(project: Path) -> ReadConfig:
    def read(text: str = "") -> Config:
        write(project, "jig.toml", f'name = "hello"\nworker = "w:H"\n{text}')
        return find_config(None, project)

    return read


def write(folder: Path, path: str, content: str = "x") -> Path:
    place = folder / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(content)
    return place


def digest(config: Config, requirements: str = "") -> str:
    bundle = pack(config, requirements)
    with bundle.source_file:
        return bundle.digest


def names(project: Path, config: ReadConfig, text: str = "") -> list[str]:
    return [entry.path for entry in collect(project, config(text).image)]


@pytest.mark.parametrize(
    ("lines", "path", "is_directory", "expected"),
    [
        ([".git"], "deep/.git", True, True),
        (["*.log"], "a/b.log", False, True),
        (["data/"], "data", True, True),
        (["data/"], "data", False, False),
        (["/dist"], "dist", True, True),
        (["/dist"], "pkg/dist", True, False),
        (["docs/*.pdf"], "docs/a.pdf", False, True),
        (["docs/*.pdf"], "docs/deep/a.pdf", False, False),
        (["docs/**/*.pdf"], "docs/deep/er/a.pdf", False, True),
        (["docs/**/*.pdf"], "docs/a.pdf", False, True),
        (["/*.md"], "NOTES.md", False, True),
        (["/*.md"], "pkg/prompt.md", False, False),
        (["*.log", "!keep.log"], "keep.log", False, False),
        (["# *.log", ""], "a.log", False, False),
    ],
)
def test_the_last_pattern_that_fits_decides(lines: list[str], path: str, is_directory: bool, expected: bool) -> None:
    assert is_ignored(path, parse_patterns(lines), is_directory=is_directory) is expected


def test_what_is_made_again_or_secret_stays_out(project: Path, config: ReadConfig) -> None:
    for path in (
        ".git/HEAD",
        ".venv/bin/python",
        "pkg/__pycache__/a.pyc",
        ".jig.json",
        "dist/a.whl",
        "node_modules/a.js",
        "hello.egg-info/PKG-INFO",
        ".env",
        ".env.local",
        "pkg/.env",
        ".mypy_cache/x",
    ):
        write(project, path)
    for path in (".env.example", "pkg/model.py"):
        write(project, path)
    assert names(project, config) == [".env.example", "pkg", "pkg/model.py", "worker.py"]


def test_jigignore_leaves_out_more_and_takes_back(project: Path, config: ReadConfig) -> None:
    write(project, "data/big.bin")
    write(project, "notes.txt")
    write(project, ".env")
    write(project, ".jigignore", "data/\n*.txt\n!.env\n")
    assert names(project, config) == [".env", "worker.py"]


def test_what_only_tells_people_stays_out_unless_it_is_taken_back(project: Path, config: ReadConfig) -> None:
    for path in ("README", "README.rst", "NOTES.md", "README_data/a.bin", "pkg/README.md"):
        write(project, path)
    kept = ["README_data", "README_data/a.bin", "pkg", "pkg/README.md", "worker.py"]
    assert names(project, config) == kept
    write(project, ".jigignore", "!/NOTES.md\n")
    assert names(project, config) == ["NOTES.md", *kept]
    assert names(project, config, '[image]\ncopy = ["README", "*.py"]\n') == ["README", "worker.py"]


def test_how_it_is_deployed_does_not_change_what_is_deployed(project: Path, config: ReadConfig) -> None:
    first = digest(config())
    assert digest(config("[deploy]\nmin_replicas = 0\n")) == first
    (project / "jig.toml").rename(project / "staging.toml")
    assert digest(find_config(Path("staging.toml"), project)) == first
    assert digest(config('[image]\nenvironment = {A = "1"}\n')) != first


def test_the_jig_tables_of_a_pyproject_change_nothing_either(project: Path) -> None:
    (project / "jig.toml").unlink()

    def digest_of(tables: str, dependency: str = "sprocket") -> str:
        head = f'[project]\nname = "hello"\ndependencies = ["{dependency}"]\n\n'
        write(project, "pyproject.toml", f'{head}[tool.jig]\nworker = "w:H"\n{tables}\n[tool.other]\nx = 1\n')
        return digest(find_config(None, project))

    first = digest_of("")
    assert digest_of("# how many\n[tool.jig.deploy]\nmin_replicas = 0\n") == first
    assert digest_of("", "numpy") != first


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[project]\nname = "a"\n\n[tool.jig]\nname = "b"\n', '[project]\nname = "a"\n'),
        ("[tool.jig.deploy]\ncpu = 1\n[[ tool . jig . x ]]\n[tool.jigsaw]\na = 1\n", "[tool.jigsaw]\na = 1\n"),
        ("[tool.jig]\nrun = [\n  [1],\n]\n", "[tool.jig]\nrun = [\n  [1],\n]\n"),
        ("tool.jig.name = 'a'\n", "tool.jig.name = 'a'\n"),
        ('[a]\nb = """\n[tool.jig]\n"""\n', '[a]\nb = """\n[tool.jig]\n"""\n'),
        ("not toml", "not toml"),
    ],
    ids=["alone", "tables below it", "a list of lists", "dotted keys", "in a string", "not TOML"],
)
def test_jig_tables_are_cut_out_only_where_nothing_else_goes_with_them(text: str, expected: str) -> None:
    assert without_jig_tables(text) == expected


def test_image_copy_limits_what_is_taken(project: Path, config: ReadConfig) -> None:
    write(project, "pkg/a.py")
    write(project, "pkg/sub/b.py")
    write(project, "extra/c.txt")
    assert names(project, config, '[image]\ncopy = ["pkg", "*.py"]\n') == [
        "pkg",
        "pkg/a.py",
        "pkg/sub",
        "pkg/sub/b.py",
        "worker.py",
    ]
    assert names(project, config, '[image]\ncopy = ["pkg/sub/b.py"]\n') == ["pkg", "pkg/sub", "pkg/sub/b.py"]


@pytest.mark.parametrize("path", ["missing.py", "/etc/passwd", "../outside.py"])
def test_image_copy_of_what_is_not_there_is_an_error(project: Path, config: ReadConfig, path: str) -> None:
    with pytest.raises(BundleError, match=r"image\.copy names"):
        names(project, config, f'[image]\ncopy = ["{path}"]\n')


def test_links_inside_are_kept_and_links_outside_refused(project: Path, config: ReadConfig) -> None:
    (project / "link.py").symlink_to("worker.py")
    entries = {entry.path: entry for entry in collect(project, config().image)}
    assert entries["link.py"].link == "worker.py"
    (project / "out").symlink_to("../../etc")
    with pytest.raises(BundleError, match="outside the project"):
        collect(project, config().image)


def test_too_many_files_are_named_by_their_folder(
    project: Path, config: ReadConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "FILES_MAX", 5)
    for at in range(6):
        write(project, f"data/{at}.bin")
    with pytest.raises(BundleError) as caught:
        collect(project, config().image)
    assert "Most are in data/" in (caught.value.hint or "")


def test_a_layer_over_the_limit_names_the_largest_files(
    project: Path, config: ReadConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "LAYER_BYTES_MAX", 1000)
    (project / "weights.bin").write_bytes(os.urandom(100_000))
    with pytest.raises(BundleError) as caught:
        write_archive(project, collect(project, config().image), io.BytesIO())
    assert "weights.bin (97.7 KiB)" in (caught.value.hint or "")


def test_a_project_of_nothing_is_an_error(tmp_path: Path, config: ReadConfig) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BundleError, match="nothing to deploy") as caught:
        collect(empty, config().image)
    assert "jig deploy --image REFERENCE" in (caught.value.hint or "")


def test_times_owners_and_order_do_not_change_the_digest(project: Path, config: ReadConfig) -> None:
    write(project, "a/one.py")
    write(project, "b.py")
    first = digest(config())
    for place in project.rglob("*"):
        os.utime(place, (1, 1))
    (project / "b.py").chmod(0o600)
    assert digest(config()) == first
    (project / "b.py").chmod(0o755)
    assert digest(config()) != first
    (project / "b.py").chmod(0o644)
    assert digest(config()) == first
    assert digest(config(), "numpy==2.0\n") != first


def test_the_archive_holds_bytes_modes_and_nothing_of_this_machine(project: Path, config: ReadConfig) -> None:
    write(project, "run.sh", "#!/bin/sh\n").chmod(0o744)
    bundle = pack(config(), "")
    bundle.source_file.seek(0)
    with bundle.source_file as layer, tarfile.open(fileobj=layer, mode="r:gz") as packed:
        members = {each.name: each for each in packed}
        script = packed.extractfile("run.sh")
        assert script is not None
        assert script.read() == b"#!/bin/sh\n"
    assert {each.mtime for each in members.values()} == {0}
    assert {(each.uid, each.gid, each.uname, each.gname) for each in members.values()} == {(0, 0, "", "")}
    assert members["run.sh"].mode == 0o755
    assert members["worker.py"].mode == 0o644


def test_the_manifest_names_config_and_source() -> None:
    config = config_blob(("python", "app.py"), "3.12", "numpy==2.0\n", {"A": "ä"})
    assert (
        config
        == (
            '{"command":["python","app.py"],"environment":{"A":"ä"},"python_version":"3.12",'
            '"requirements":"numpy==2.0\\n","version":1}'
        ).encode()
    )
    text = manifest(blob_of(config, "c/t"), blob_of(b"layer", SOURCE_TYPE))
    assert b'"artifactType":"application/vnd.machineshop.bundle.v1"' in text
    assert b'"schemaVersion":2' in text


def test_what_only_an_image_can_have_is_warned_about(config: ReadConfig) -> None:
    assert bundle_warnings(config('[image]\nsystem_packages = ["git"]\n')) == [
        "image.system_packages has no effect on a bundle: it needs a container image."
    ]
    assert bundle_warnings(config()) == []


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("Sprocket", "sprocket"),
        ("sprocket[x]>=1 ; python_version > '3'", "sprocket"),
        ("sprocket-extra", "sprocket-extra"),
    ],
)
def test_package_names_are_read_from_requirement_lines(line: str, name: str) -> None:
    assert package_name(line) == name


def test_sprocket_is_never_a_requirement() -> None:
    lines = ["sprocket==0.1.0", "# comment", "", "sprocket_extra", " numpy==2 "]
    assert without_sprocket(lines) == ["sprocket_extra", "numpy==2"]


@pytest.mark.parametrize(
    ("line", "needed"),
    [
        ("sprocket", []),
        ("sprocket >= 0.1", []),
        ("sprocket[]", []),
        ("sprocket[typed]", ["pydantic>=2.7"]),
        ("Sprocket [ Typed ] >=0.1 ; python_version < '3.14'", ["pydantic>=2.7 ; python_version < '3.14'"]),
        ("other[typed]", []),
    ],
)
def test_what_sprockets_extras_need_takes_its_place(line: str, needed: list[str]) -> None:
    assert needed_by_extras(line) == needed


def test_an_extra_that_sprocket_does_not_have_is_refused() -> None:
    with pytest.raises(BundleError, match=r"`sprocket\[tipped\]` names an extra"):
        needed_by_extras("sprocket[tipped]")


def test_jig_knows_what_sprockets_extras_need() -> None:
    project = tomllib.loads((ROOT / "sprocket" / "pyproject.toml").read_text())["project"]
    assert {name: [needed] for name, needed in SPROCKET_EXTRAS.items()} == project["optional-dependencies"]


def test_nothing_to_lock_does_not_run_uv(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_CONFIG_FILE", "/nowhere/uv.toml")
    with pytest.raises(BundleError, match=r"/nowhere/uv\.toml"):  # so any run of uv would show
        run_uv(compile_arguments("3.11"), project)
    write(project, "pyproject.toml", '[project]\nname = "a"\ndependencies = ["sprocket"]\n')
    assert lock(project, IMAGE, State(project, "hello")).text == ""


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one package in two versions, and uv told to look nowhere else."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for version in ("1.0", "2.0"):
        metadata = f"Metadata-Version: 2.1\nName: tinypackage\nVersion: {version}\n"
        with zipfile.ZipFile(folder / f"tinypackage-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr("tinypackage.py", "")
            wheel.writestr(f"tinypackage-{version}.dist-info/METADATA", metadata)
            wheel.writestr(f"tinypackage-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"tinypackage-{version}.dist-info/RECORD", "")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    return folder


def test_dependencies_are_pinned_once_and_kept(project: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, "pyproject.toml", '[project]\nname = "a"\ndependencies = ["sprocket", "tinypackage"]\n')
    first = lock(project, IMAGE, State(project, "hello"))
    assert (first.text, first.count, first.source) == ("tinypackage==2.0\n", 1, "pyproject.toml")
    monkeypatch.setenv("UV_FIND_LINKS", "/nowhere")
    assert lock(project, IMAGE, State(project, "hello")) == first
    write(project, "pyproject.toml", '[project]\nname = "a"\ndependencies = ["tinypackage<2"]\n')
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    assert lock(project, IMAGE, State(project, "hello")).text == "tinypackage==1.0\n"


def test_requirements_txt_is_pinned_where_the_project_states_none(project: Path, wheels: Path) -> None:
    write(project, "requirements.txt", "# what we need\ntinypackage\nsprocket\n")
    pinned = lock(project, IMAGE, State(project, "hello"))
    assert (pinned.text, pinned.source) == ("tinypackage==2.0\n", "requirements.txt")


def test_a_package_that_does_not_exist_is_an_error_with_uvs_reason(project: Path, wheels: Path) -> None:
    write(project, "requirements.txt", "no-such-package-here\n")
    with pytest.raises(BundleError, match="no-such-package-here"):
        lock(project, IMAGE, State(project, "hello"))


UV_LOCK = """\
version = 1
requires-python = ">=3.11"

[[package]]
name = "app"
version = "0.1.0"
source = { virtual = "." }
dependencies = [{ name = "sprocket" }, { name = "tinypackage" }]

[package.metadata]
requires-dist = [{ name = "sprocket" }, { name = "tinypackage" }]

[[package]]
name = "sprocket"
version = "0.1.0"
source = { registry = "https://index.example/simple" }

[[package]]
name = "tinypackage"
version = "1.5"
source = { registry = "https://index.example/simple" }
"""


def test_a_uv_lock_says_the_versions(project: Path) -> None:
    write(
        project,
        "pyproject.toml",
        '[project]\nname = "app"\nversion = "0.1.0"\nrequires-python = ">=3.11"\n'
        'dependencies = ["sprocket", "tinypackage"]\n',
    )
    write(project, "uv.lock", UV_LOCK)
    pinned = lock(project, IMAGE, State(project, "hello"))
    assert (pinned.text, pinned.source) == ("tinypackage==1.5\n", "uv.lock")


def test_a_uv_lock_from_before_a_package_was_named_is_refused(project: Path) -> None:
    stated = '[project]\nname = "app"\nversion = "0.1.0"\nrequires-python = ">=3.11"\n'
    write(project, "uv.lock", UV_LOCK)
    write(project, "pyproject.toml", f'{stated}dependencies = ["sprocket[typed]", "Tiny_Package>=1", "tinypackage"]\n')
    with pytest.raises(BundleError, match=r"uv.lock is older than pyproject.toml: it lacks tiny-package\.") as raised:
        lock(project, IMAGE, State(project, "hello"))
    assert "uv lock" in str(raised.value.hint)
    write(project, "uv.lock", UV_LOCK.replace('virtual = "."', 'virtual = "another"'))
    assert lock(project, IMAGE, State(project, "hello")).source == "uv.lock", "whose it is cannot be told"


def test_uv_never_sees_the_platforms_keys() -> None:
    environment = {
        "TOGETHER_API_KEY": "k",
        "MACHINESHOP_ADMIN_KEY": "k",
        "VIRTUAL_ENV": "/v",
        "PATH": "/bin",
        "UV_X": "1",
    }
    assert clean_environment(environment) == {"PATH": "/bin", "UV_X": "1"}
