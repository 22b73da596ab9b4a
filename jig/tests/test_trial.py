"""`jig run`: real workers, in their own processes, without a platform."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from jig_process import Jig, finish, wait_until

from jig.config.file import find_config
from jig.trial.environment import environment_key, prune
from jig.trial.order import free_path, job_line, keep_files
from jig.trial.process import missing_secrets, worker_process
from jig.trial.sdk import Sdk, find_sdk

WORKER = """
import os, sys, time
from pathlib import Path

import sprocket


class Scribe(sprocket.Sprocket):
    def setup(self):
        if os.environ.get("BREAK_SETUP"):
            raise RuntimeError("no weights at /models")

    def predict(self, args):
        return getattr(self, args.get("do", "echo"))(args)

    def echo(self, args):
        print("printed by the model")
        sprocket.emit_info({"step": "echo"})
        return args

    def copy(self, args):
        Path("copy.txt").write_text(Path(args["page"]).read_text().upper())
        return {"pages": [sprocket.FileOutput("copy.txt")]}

    def raise_(self, args):
        raise ValueError("no such page")

    def exit(self, args):
        os._exit(4)

    def crash(self, args):
        import ctypes

        ctypes.string_at(0)

    def hang(self, args):
        Path("pid").write_text(str(os.getpid()))
        time.sleep(300)

    def surroundings(self, args):
        return {name: os.environ.get(name) for name in args["names"]}
"""


@pytest.fixture
def scribe(bare_jig: Jig) -> Jig:
    """jig in the folder of a worker, which runs in this Python."""
    (bare_jig.folder / "worker.py").write_text(WORKER)
    (bare_jig.folder / "jig.toml").write_text('name = "hello"\nworker = "worker:Scribe"\n')
    return bare_jig


def run(jig: Jig, payload: dict[str, object], *words: str, code: int = 0, **environment: str) -> str:
    """`jig run` of one job, in this Python; returns what it came to on stdout, or for an error on stderr."""
    ran = jig("run", "--python", sys.executable, "--payload", json.dumps(payload), *words, **environment)
    assert ran.code == code, ran.out + ran.err
    return ran.err if code else ran.out


def test_one_job_runs_and_its_outputs_are_printed_alone(scribe: Jig) -> None:
    ran = scribe("run", "--python", sys.executable, "--payload", '{"n": 1, "at": "@@home"}')
    assert (ran.code, ran.json) == (0, {"n": 1, "at": "@home"})
    assert "printed by the model" in ran.err
    assert 'info: {"step": "echo"}' in ran.err
    assert "listening" not in ran.err


def test_files_go_in_and_out(scribe: Jig) -> None:
    (scribe.folder / "page.txt").write_text("hello")
    first = json.loads(run(scribe, {"do": "copy", "page": "@page.txt"}, "--folder", "out"))
    again = json.loads(run(scribe, {"do": "copy", "page": "@page.txt"}, "--folder", "out", "--json"))
    assert first == {"pages": [str(scribe.folder / "out" / "copy.txt")]}
    assert again["files"] == again["outputs"]["pages"] == [str(scribe.folder / "out" / "copy-2.txt")]
    assert [path.read_text() for path in sorted((scribe.folder / "out").iterdir())] == ["HELLO", "HELLO"]


def test_without_a_folder_files_are_kept_among_the_temporary_ones(scribe: Jig) -> None:
    (scribe.folder / "page.txt").write_text("hello")
    (page,) = json.loads(run(scribe, {"do": "copy", "page": "@page.txt"}))["pages"]
    assert Path(page).read_text() == "HELLO"
    assert not Path(page).is_relative_to(scribe.folder)
    assert not list(Path(scribe.environment["TMPDIR"]).glob("jig-trial-*"))


def test_what_predict_raises_is_shown_with_the_traceback_of_its_own_code(scribe: Jig) -> None:
    said = run(scribe, {"do": "raise_"}, code=1)
    assert "jig: predict failed: ValueError: no such page" in said
    frames = [line for line in said.splitlines() if line.startswith('  File "')]
    assert frames
    assert all(f'"{scribe.folder}/worker.py"' in frame for frame in frames)


def test_an_error_as_json_has_the_traceback(scribe: Jig) -> None:
    ran = scribe("run", "--python", sys.executable, "--payload", '{"do": "raise_"}', "--json")
    assert ran.code == 1
    assert ran.json["error"]["message"] == "predict failed: ValueError: no such page"
    assert "in raise_" in ran.json["error"]["traceback"]


def test_what_setup_raises_is_shown(scribe: Jig) -> None:
    said = run(scribe, {}, code=1, BREAK_SETUP="1")
    assert "jig: setup failed: RuntimeError: no weights at /models" in said
    assert "/sprocket/" not in said


def test_a_worker_that_exits_is_told(scribe: Jig) -> None:
    assert "The worker ended with exit code 4 before its job had ended." in run(scribe, {"do": "exit"}, code=1)


def test_a_crash_in_native_code_is_told_with_its_place(scribe: Jig) -> None:
    said = run(scribe, {"do": "crash"}, code=1)
    assert "The worker ended by SIGSEGV before its job had ended." in said
    assert "worker.py" in said
    assert "in crash" in said


def test_a_worker_that_hangs_is_ended(scribe: Jig) -> None:
    said = run(scribe, {"do": "hang"}, "--timeout", "3", code=1)
    assert "The worker had not finished after 3 s." in said
    if (pid := scribe.folder / "pid").exists():  # on a busy machine the worker may not have come so far
        assert is_gone(int(pid.read_text()))


def test_ctrl_c_ends_the_worker_too(scribe: Jig) -> None:
    with scribe.start("run", "--python", sys.executable, "--payload", '{"do": "hang"}') as process:
        wait_until(process, (scribe.folder / "pid").exists, "the worker hangs")
        process.send_signal(signal.SIGINT)
        assert finish(process).code == 130
    assert is_gone(int((scribe.folder / "pid").read_text()))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--payload", "{x"], "--payload is not JSON"),
        (["--payload", "[1]"], "must be a JSON object"),
        (["--payload", '{"page": "@nowhere.png"}'], '"page" names the file nowhere.png, which does not exist'),
        ([], "one of --prompt TEXT, --payload JSON and"),
        (["--payload", "{}", "--timeout", "0"], "--timeout must be above 0."),
        (["--payload", "{}", "--output", "x"], "--output and --force go with --file"),
        (["--payload", "{}", "--file", "x"], "--file, or one job"),
        (["--file", "nowhere.jsonl"], "--file nowhere.jsonl: cannot read that file"),
    ],
)
def test_a_wrong_command_line_runs_nothing(scribe: Jig, words: list[str], complaint: str) -> None:
    ran = scribe("run", *words)
    assert ran.code == 2
    assert complaint in ran.err


def test_a_python_that_does_not_exist_is_told(scribe: Jig) -> None:
    ran = scribe("run", "--payload", "{}", "--python", "nowhere/python")
    assert (ran.code, "There is no Python at" in ran.err) == (1, True)


def test_a_folder_without_a_worker_is_told(bare_jig: Jig) -> None:
    assert "There is no jig.toml" in bare_jig("run", "--payload", "{}").err
    (bare_jig.folder / "jig.toml").write_text('name = "hello"\nworker = "worker:Scribe"\n')
    ran = bare_jig("run", "--payload", "{}", "--python", sys.executable)
    assert ran.code == 1
    assert "sprocket: there is no module worker" in ran.err
    assert "The worker ended with exit code 2" in ran.err


def test_a_command_of_ones_own_runs_too(scribe: Jig) -> None:
    (scribe.folder / "app.py").write_text(
        "import sprocket\nfrom worker import Scribe\n\nsprocket.run(Scribe(), 'hello')\n"
    )
    (scribe.folder / "jig.toml").write_text('name = "hello"\n[deploy]\ncommand = ["python", "app.py", "--queue"]\n')
    assert json.loads(run(scribe, {"n": 2})) == {"n": 2}


def test_a_command_that_is_no_worker_is_told(scribe: Jig) -> None:
    (scribe.folder / "jig.toml").write_text('name = "hello"\n[deploy]\ncommand = ["true"]\n')
    assert "exit code 0 before its job had ended" in run(scribe, {}, code=1)
    (scribe.folder / "jig.toml").write_text('name = "hello"\n[deploy]\ncommand = ["no-such-program"]\n')
    assert "'no-such-program' cannot be started" in run(scribe, {}, code=1)


def test_the_worker_sees_the_projects_variables_and_nothing_of_a_platform(scribe: Jig) -> None:
    config = 'name = "hello"\nworker = "worker:Scribe"\n'
    variables = '[deploy.environment_variables]\nMODE = "fast"\nTOKEN = {secret = "t"}\n'
    (scribe.folder / "jig.toml").write_text(config + variables)
    names = ["MODE", "TOKEN", "TOGETHER_API_KEY", "TOGETHER_BASE_URL", "HOME"]
    payload: dict[str, object] = {"do": "surroundings", "names": names}
    seen = json.loads(run(scribe, payload, TOKEN="s3", TOGETHER_API_KEY="msk_x", TOGETHER_BASE_URL="https://x.test"))
    assert seen == {
        "MODE": "fast", "TOKEN": "s3", "TOGETHER_API_KEY": None, "TOGETHER_BASE_URL": None,
        "HOME": scribe.environment["HOME"],
    }  # fmt: skip
    ran = scribe("run", "--python", sys.executable, "--payload", json.dumps(payload))
    assert "TOKEN is a secret of the platform" in ran.err


def test_a_volume_that_this_machine_has_nothing_of_is_said(scribe: Jig) -> None:
    (scribe.folder / "here").mkdir()
    config = scribe.folder / "jig.toml"
    mounts = [("words", scribe.folder / "here"), ("weights", scribe.folder / "nowhere")]
    tables = [f'[[deploy.volume_mounts]]\nname = "{name}"\nmount_path = "{path}"\n' for name, path in mounts]
    config.write_text("\n".join([config.read_text(), *tables]))
    ran = scribe("run", "--python", sys.executable, "--payload", "{}")
    said = f"`jig run` mounts no volumes, and there is no {scribe.folder / 'nowhere'} here for weights."
    assert said in ran.err
    assert "for words" not in ran.err


def test_a_file_of_jobs_runs_on_one_worker(scribe: Jig) -> None:
    (scribe.folder / "jobs.jsonl").write_text('{"n": 1}\n\n{"payload": {"do": "raise_"}, "priority": 3}\n{"n": 3}\n')
    ran = scribe("run", "--python", sys.executable, "--file", "jobs.jsonl", "--output", "results.jsonl")
    assert ran.code == 1
    assert "3 jobs: 2 done, 1 failed. The first error: ValueError: no such page" in ran.err
    results = [json.loads(line) for line in (scribe.folder / "results.jsonl").read_text().splitlines()]
    assert [(result["line"], result["status"], result["outputs"]) for result in results] == [
        (1, "done", {"n": 1}), (3, "failed", None), (4, "done", {"n": 3}),
    ]  # fmt: skip
    assert results[1]["error"] == "ValueError: no such page"


def test_results_overwrite_nothing_unasked(scribe: Jig) -> None:
    (scribe.folder / "jobs.jsonl").write_text('{"n": 1}\n')
    (scribe.folder / "results.jsonl").write_text("mine")
    words = ("run", "--python", sys.executable, "--file", "jobs.jsonl", "--output", "results.jsonl")
    assert "results.jsonl exists already" in scribe(*words).err
    assert (scribe.folder / "results.jsonl").read_text() == "mine"
    assert scribe(*words, "--force", "--json").json["done"] == 1


@pytest.mark.timeout(180)
def test_the_environment_is_made_once_and_holds_the_projects_requirements(scribe: Jig, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (scribe.folder / "requirements.txt").write_text("sprocket\niniconfig\n")
    (scribe.folder / "worker.py").write_text(WORKER.replace("import os", "import iniconfig, os", 1))
    payload = json.dumps({"do": "surroundings", "names": ["VIRTUAL_ENV"]})
    told = {name: value for name, value in os.environ.items() if name.startswith(("UV_", "SSL_", "PIP_"))}
    told["XDG_CACHE_HOME"] = str(cache)
    first = scribe("run", "--payload", payload, **told)
    assert first.code == 0, first.err
    (folder,) = [path for path in (cache / "jig" / "environments").iterdir() if path.is_dir()]
    assert first.json == {"VIRTUAL_ENV": str(folder)}
    made_at = (folder / "pyvenv.cfg").stat().st_mtime_ns
    assert scribe("run", "--payload", payload, **told).code == 0
    assert (folder / "pyvenv.cfg").stat().st_mtime_ns == made_at


def test_a_python_that_is_not_here_is_told(scribe: Jig, tmp_path: Path) -> None:
    (scribe.folder / "jig.toml").write_text(
        'name = "hello"\nworker = "worker:Scribe"\n[image]\npython_version = "3.5"\n'
    )
    ran = scribe("run", "--payload", "{}", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert ran.code == 1
    assert "This machine has no Python 3.5." in ran.err


def test_the_sprocket_beside_jig_is_found_without_being_imported() -> None:
    sdk = find_sdk()
    assert (sdk.folder / "worker.py").is_file()
    assert any(line.startswith("aiohttp") for line in sdk.requirements)
    assert not any("extra" in line for line in sdk.requirements)


def test_an_environment_is_known_by_all_that_goes_into_it(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    sdk = Sdk(tmp_path, ("aiohttp",))
    keys = {environment_key(version, text, sdk) for version in ("3.11", "3.12") for text in ("", "x==1\n")}
    (tmp_path / "a.py").write_text("2")
    keys |= {environment_key("3.11", "", sdk), environment_key("3.11", "", Sdk(tmp_path, ()))}
    assert len(keys) == 6


def test_environments_that_nobody_uses_are_removed(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "jig-ready").touch()
    long_ago = time.time() - 15 * 86_400
    os.utime(tmp_path / "old" / "jig-ready", (long_ago, long_ago))
    prune(tmp_path, time.time())
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_job_line_keeps_files_apart(tmp_path: Path) -> None:
    page = tmp_path / "page.png"
    page.touch()
    line = job_line({"page": f"@{page}", "text": "@@x", "n": 1})
    assert line == {"payload": {"text": "@x", "n": 1}, "files": {"page": str(page)}}


def test_only_the_trials_own_files_are_moved(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "id-a.txt").touch()
    made = str(tmp_path / "files" / "id-a.txt")
    outputs = {"deep": [{"a": made}], "again": made, "other": "/etc/hostname", "n": 1}
    found: dict[str, str] = {}
    moved = keep_files(outputs, tmp_path, {"request_id": "id"}, tmp_path / "kept", found)
    there = str(tmp_path / "kept" / "a.txt")
    assert moved == {**outputs, "deep": [{"a": there}], "again": there}
    assert list(found.values()) == [there]
    assert free_path(tmp_path / "kept" / "a.txt").name == "a-2.txt"


def test_the_workers_process_is_that_of_a_replica(project: Path) -> None:
    config_text = 'name = "hello"\nworker = "worker:Hello"\ngpu = "A100"\ngpu_count = 2\n'
    (project / "jig.toml").write_text(config_text + '[deploy.environment_variables]\nA = {secret = "a"}\n')
    config = find_config(None, project)
    python = Path("/env/bin/python")
    given = {"PATH": "/usr/bin", "TOGETHER_API_KEY": "k", "RUN_AND_EXIT": "1", "LANG": "C"}
    process = worker_process(config, python, Path("/trial"), given, Path("/env"))
    assert process.command == ("/env/bin/python", "-m", "sprocket", "worker:Hello", "--queue")
    assert process.environment == {
        "LANG": "C", "WORLD_SIZE": "2", "VIRTUAL_ENV": "/env", "PATH": "/env/bin:/usr/bin", "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        "SPROCKET_TRIAL": "/trial",
    }  # fmt: skip
    assert missing_secrets(config, given) == ["A"]


def is_gone(pid: int) -> bool:
    """Wait until a process has ended."""
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
