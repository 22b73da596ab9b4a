"""The queue of the fake platform: jobs that end as a test says, listed, submitted again and followed by events."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fake_platform import Handler, Request

JsonObject = dict[str, Any]

SECONDS_MAX = 60
STARTED_AT = datetime(2026, 1, 1, tzinfo=UTC)
BREAK = "break"
END = "end"
HOLD = "hold"
OVER = "over"


def done(job: JsonObject) -> JsonObject:
    """The usual end of a job: its outputs are its inputs."""
    return {"status": "done", "outputs": job["inputs"], "attempt": 1}


@dataclass
class FakeQueue:
    """Jobs that were submitted as an array, or put here by a test.

    `outcome` says how a job ends, and `looks_until_ended` after how many looks. `room` is how many more jobs are
    taken before the queue is full; it is made larger by `room_per_refusal` at each refusal. The answers to the first
    `lost_answers` arrays are lost on their way. `connections` are the scripts of the events' connections, one after
    another: pairs of an id and a job, then how it goes on.
    """

    jobs: dict[str, JsonObject] = field(default_factory=dict)
    outcome: Callable[[JsonObject], JsonObject] = done
    looks_until_ended: int = 1
    looks: int = 0
    seen: set[str] = field(default_factory=set)
    keys: dict[str, str] = field(default_factory=dict)
    room: int = 1_000_000
    room_per_refusal: int = 0
    lost_answers: int = 0
    sizes: list[int] = field(default_factory=list)
    settings: JsonObject = field(
        default_factory=lambda: {
            "model": "hello",
            "max_pending": 1_000_000,
            "max_running_per_key": None,
            "keep_seconds": 604_800,
            "keep_count": 100_000,
            "keys": {"acme": {"weight": 3.0, "max_running": None}},
        }
    )
    connections: list[list[tuple[str, JsonObject] | str]] = field(default_factory=list)
    may_end: threading.Event = field(default_factory=threading.Event)

    def put(self, status: str, **fields: Any) -> str:
        """A job as it is now; returns its id."""
        number = len(self.jobs) + 1
        request_id = f"job-{number:04d}"
        self.jobs[request_id] = {
            "request_id": request_id,
            "model": "hello",
            "status": status,
            "priority": 0,
            "fair_key": None,
            "attempt": 0,
            "retries": 0,
            "inputs": {},
            "outputs": None,
            "info": {},
            "error": None,
            "created_at": (STARTED_AT + timedelta(seconds=number)).isoformat(),
            "claimed_at": None,
            "done_at": None,
            **fields,
        }
        return request_id

    def submit(self, body: JsonObject) -> JsonObject:
        """Store a job, or find the one with its idempotency key."""
        key = body.get("idempotency_key")
        if key in self.keys:
            request_id = self.keys[key]
            status = self.jobs[request_id]["status"]
            return {"requestId": request_id, "request_id": request_id, "status": status, "duplicate": True}
        request_id = self.put("pending", inputs=body["payload"], **{k: body[k] for k in ("priority",) if k in body})
        self.jobs[request_id]["asked"] = body
        if key is not None:
            self.keys[key] = request_id
        self.room -= 1
        return {"requestId": request_id, "request_id": request_id, "status": "pending"}

    def look(self, request_ids: list[str]) -> list[JsonObject]:
        """These jobs, as far as they are there, at this look."""
        self.looks += 1
        self.seen.update(request_ids)
        return [self.at_look(each) for each in request_ids if each in self.jobs]

    def at_look(self, request_id: str) -> JsonObject:
        job = self.jobs[request_id]
        if job["status"] == "pending" and self.looks >= self.looks_until_ended:
            job.update(self.outcome(job))
        return job


def submit_many(handler: Handler, request: Request) -> None:
    queue = handler.platform.queue
    bodies = request.json
    queue.sizes.append(len(bodies))
    for at, body in enumerate(bodies):
        if body["payload"].get("refuse"):
            handler.answer(400, refusal("The payload is refused.", "invalid_request", f"[{at}].payload"))
            return
    if len(bodies) > queue.room:
        queue.room += queue.room_per_refusal
        handler.answer(429, refusal("The queue is full.", "queue_full"), Retry_After="0")
        return
    answer = {"object": "list", "data": [queue.submit(body) for body in bodies]}
    if queue.lost_answers:
        queue.lost_answers -= 1
        handler.close_connection = True
        return
    handler.answer(200, answer)


def refusal(message: str, code: str, param: str | None = None) -> JsonObject:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def results(handler: Handler, request: Request) -> None:
    data = handler.platform.queue.look(request.json["request_ids"])
    handler.answer(200, {"object": "list", "data": data})


def list_jobs(handler: Handler, request: Request) -> None:
    query = request.query
    wanted = query["status"].split(",") if "status" in query else None
    found = [
        job
        for job in reversed(handler.platform.queue.jobs.values())
        if (wanted is None or job["status"] in wanted)
        and query.get("fair_key", job["fair_key"]) == job["fair_key"]
        and query.get("created_after", "") < job["created_at"]
    ]
    start, limit = int(query.get("cursor", 0)), int(query.get("limit", 50))
    cursor = str(start + limit) if len(found) > start + limit else None
    handler.answer(200, {"object": "list", "data": found[start : start + limit], "next_cursor": cursor})


def resubmit(handler: Handler, request: Request) -> None:
    queue = handler.platform.queue
    wanted = request.json["request_ids"]
    unended = [each for each in wanted if queue.jobs[each]["status"] in ("pending", "running")]
    if unended:
        handler.answer(409, refusal(f"The job {unended[0]} has not ended.", "conflict"))
        return
    new = {old: queue.put("pending", resubmit_of=old) for old in wanted}
    data = [{"request_id": new[old], "resubmit_of": old, "status": "pending"} for old in wanted]
    handler.answer(200, {"object": "list", "data": data})


def settings(handler: Handler, request: Request) -> None:
    handler.answer(200, handler.platform.queue.settings)


def change_settings(handler: Handler, request: Request) -> None:
    known = handler.platform.queue.settings
    keys = request.json.pop("keys", {}) if "keys" in request.json else {}
    known.update({name: value for name, value in request.json.items() if name != "keys"})
    known["keys"] = {name: key for name, key in {**known["keys"], **keys}.items() if key is not None}
    handler.answer(200, known)


def events(handler: Handler, request: Request) -> None:
    queue = handler.platform.queue
    if not queue.connections:
        handler.answer(503, refusal("No more events.", "unavailable"))
        return
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.send_header("Connection", "close")  # who asks again does so on another one
    handler.end_headers()
    for step in queue.connections.pop(0):
        if isinstance(step, str):
            if step == HOLD:
                queue.may_end.wait(SECONDS_MAX)
            elif step == OVER:
                write_piece(handler, "event: end\ndata: {}\n\n")
            elif step == END:
                handler.wfile.write(b"0\r\n\r\n")
            break
        write_piece(handler, f": keep-alive\n\nid: {step[0]}\nevent: job\ndata: {json.dumps(step[1])}\n\n")
    handler.close_connection = True


def write_piece(handler: Handler, text: str) -> None:
    piece = text.encode()
    handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
    handler.wfile.flush()


ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("POST", "/v1/queue/results", results),
    ("GET", "/v1/queue/jobs", list_jobs),
    ("POST", "/v1/queue/resubmit", resubmit),
    ("GET", "/v1/queue/settings", settings),
    ("PATCH", "/v1/queue/settings", change_settings),
    ("GET", "/v1/queue/events", events),
]
