"""A model that streams, deployed: what it gives is seen while its job runs, in the queue and through the gateway."""

import json
import subprocess
from pathlib import Path

from platform_process import BIN, PlatformProcess, wait_for, write_worker

WORKER = """
import pathlib, time
import sprocket

class Worker(sprocket.Sprocket):
    def predict(self, text: str, gate: pathlib.Path):
        for word in text.split():
            yield {"word": word}
        while not gate.exists():
            time.sleep(0.01)
        yield {"word": "."}
"""
WORDS = [{"word": "to"}, {"word": "be"}]


def test_what_a_model_gives_is_seen_while_its_job_runs(platform: PlatformProcess, tmp_path: Path) -> None:
    folder = write_worker(tmp_path / "streams", "streams", WORKER)
    with (folder / "pyproject.toml").open("a") as file:
        file.write('[project]\nname = "streams"\nversion = "1"\ndependencies = ["sprocket[typed]"]\n')
    platform.deploy(folder)
    gate = tmp_path / "gate"
    payload = {"text": "to be", "gate": str(gate)}
    with platform.client() as client:
        job_id = platform.submit("streams", payload)
        params = {"model": "streams", "request_id": job_id}

        def chunks() -> object:
            return client.get("/v1/queue/status", params=params).json()["chunks"]

        wait_for(lambda: chunks() == WORDS, "the chunks are seen")
        watching = watched(platform, folder, "jobs", "watch", job_id)
        events = []
        with client.stream("GET", "/v1/queue/events", params=params) as answer:
            for line in answer.iter_lines():
                if line.startswith(("event: ", "data: ")):
                    events.append(line)
                if events and events[-1].endswith('"chunks":[{"word":"to"},{"word":"be"}]}'):
                    gate.touch()
        assert events[0] == "event: job"
        assert events[2] == "event: chunks"
        last = {"request_id": job_id, "attempt": 1, "first": 2, "chunks": [{"word": "."}]}
        assert events[4:6] == ["event: chunks", f"data: {json.dumps(last, separators=(',', ':'))}"]
        assert json.loads(events[-1].removeprefix("data: "))["outputs"] == {"chunks": [*WORDS, {"word": "."}]}
        assert chunks() is None
        out, _ = watching.communicate(timeout=60)
        assert json.loads(out) == {"chunks": [*WORDS, {"word": "."}]}

        gate.unlink()
        submitting = watched(platform, folder, "submit", "--payload", json.dumps(payload), "--watch")
        gate.touch()
        assert '{"word": "."}' in submitting.communicate(timeout=60)[1]

        gateway = "/v1/deployment-request/streams/generate"
        with client.stream("POST", gateway, json=payload, headers={"Accept": "text/event-stream"}) as answer:
            text = "".join(answer.iter_text())
        assert text == 'data: {"word":"to"}\n\ndata: {"word":"be"}\n\ndata: {"word":"."}\n\nevent: done\ndata: {}\n\n'
        assert client.post(gateway, json={"text": "x"}).status_code == 422
    platform.jig("destroy", "--yes", cwd=folder)


def watched(platform: PlatformProcess, folder: Path, *words: str) -> "subprocess.Popen[str]":
    """jig, which has shown the first chunks of a job."""
    jig = subprocess.Popen(
        [BIN / "jig", *words],
        cwd=folder,
        env=platform.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert jig.stderr is not None
    said = ""
    while '{"word": "be"}' not in said:
        line = jig.stderr.readline()
        assert line, said
        said += line
    return jig
