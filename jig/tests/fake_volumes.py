"""The volumes of the fake platform: their versions are what lies in its storage under `<name>/<version>/`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from fake_platform import FakePlatform, Handler, Request

VOLUMES = "/v1/deployments/storage/volumes"
NOW = "2026-01-01T00:00:00Z"
JsonObject = dict[str, Any]


@dataclass
class FakeVersion:
    sealed_at: str | None = None
    status: str | None = None
    """What is said instead of pending or ready; with `s3` it is ready after so many looks."""
    status_message: str | None = None
    origin: JsonObject | None = None
    looks: int = 2
    mounted_by: list[str] = field(default_factory=list)


@dataclass
class FakeVolumes:
    """The versions of each volume by its name; `parts` are those of uploads in parts, by upload and number.

    `called` are other names under which files are listed and sent, and `unhashed` for how many more lists no SHA-256 is
    known. Where it does not take ranges, whole files come instead. What is sent passes through `spoil`, and is cut off
    after as many bytes as `cuts` says, one after the other.
    """

    versions: dict[str, list[FakeVersion]] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    called: dict[str, str] = field(default_factory=dict)
    unhashed: int = 0
    takes_ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    spoil: Callable[[bytes], bytes] = bytes

    def put(self, platform: FakePlatform, name: str, *versions: dict[str, bytes]) -> None:
        """Have a volume with these versions, sealed."""
        self.versions[name] = [FakeVersion(sealed_at=NOW) for _ in versions]
        for number, files in enumerate(versions):
            for path, content in files.items():
                platform.files[f"{name}/{number}/{path}"] = content


def files_of(platform: FakePlatform, name: str, number: int) -> dict[str, bytes]:
    """The files of a version."""
    prefix = f"{name}/{number}/"
    found = {
        unquote(each).removeprefix(prefix): content
        for each, content in platform.files.items()
        if unquote(each).startswith(prefix)
    }
    return dict(sorted(found.items()))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def rows(files: dict[str, bytes]) -> list[JsonObject]:
    return [
        {"name": path, "size": len(content), "sha256": digest(content), "last_modified": NOW}
        for path, content in files.items()
    ]


def told(platform: FakePlatform, name: str, number: int) -> JsonObject:
    """What is said of one version."""
    version = platform.volumes.versions[name][number]
    files = files_of(platform, name, number)
    source = {"origin": version.origin} if version.origin else {"source_prefix": f"{name}/{number}"}
    content = {
        "type": "files",
        **source,
        "files": rows(files),
        "files_count": len(files),
        "size": sum(map(len, files.values())),
        "files_truncated": False,
    }
    return {
        "version": number,
        "content": content,
        "mounted_by": version.mounted_by,
        "status": version.status or ("ready" if files else "pending"),
        "status_message": version.status_message,
        "sealed_at": version.sealed_at,
    }


def view(platform: FakePlatform, name: str, number: int | None = None) -> JsonObject:
    current = len(platform.volumes.versions[name]) - 1
    history = {str(each): told(platform, name, each) for each in range(current)}
    for each in history.values():
        each["content"] = {
            key: each["content"][key] for key in each["content"] if key not in ("files", "files_truncated")
        }
    return {
        "object": "volume",
        "id": f"vol-{name}",
        "name": name,
        "type": "readOnly",
        "current_version": current,
        "mounts_count": sum(len(each.mounted_by) for each in platform.volumes.versions[name]),
        **told(platform, name, current if number is None else number),
        "version_history": history,
        "created_at": NOW,
        "updated_at": NOW,
    }


def refuse(handler: Handler, status: int, message: str, code: str | None = None) -> None:
    kinds = {404: "not_found_error", 409: "conflict_error"}
    kind = kinds.get(status, "invalid_request_error")
    handler.answer(status, {"error": {"message": message, "type": kind, "param": None, "code": code}})


def missing(handler: Handler, name: str) -> bool:
    if name in handler.platform.volumes.versions:
        return False
    refuse(handler, 404, f"There is no volume '{name}' in this project.")
    return True


def list_all(handler: Handler, request: Request) -> None:
    data = [view(handler.platform, name) for name in handler.platform.volumes.versions]
    handler.answer(200, {"object": "list", "data": data})


def create(handler: Handler, request: Request) -> None:
    platform, name = handler.platform, request.json["name"]
    if name in platform.volumes.versions:
        refuse(handler, 409, f"A volume named '{name}' already exists.")
        return
    assert request.json["type"] == "readOnly"
    platform.volumes.versions[name] = [begun(request.json["content"], f"{name}/0")]
    handler.answer(200, view(platform, name))


def begun(content: JsonObject, prefix: str) -> FakeVersion:
    if "origin" in content:
        return FakeVersion(status="syncing", origin=content["origin"])
    assert content == {"type": "files", "source_prefix": prefix}
    return FakeVersion()


def get(handler: Handler, request: Request, name: str) -> None:
    platform = handler.platform
    if missing(handler, name):
        return
    number = int(request.query["version"]) if "version" in request.query else None
    versions = platform.volumes.versions[name]
    if number is not None and number >= len(versions):
        refuse(handler, 404, f"The volume '{name}' has no version {number}.")
        return
    version = versions[-1 if number is None else number]
    if version.status == "syncing" and version.origin:
        version.looks -= 1
        version.status = "syncing" if version.looks > 0 else None
        platform.files[f"{name}/{len(versions) - 1}/fetched.bin"] = b"from S3"
    handler.answer(200, view(platform, name, number))


def update(handler: Handler, request: Request, name: str) -> None:
    if missing(handler, name):
        return
    versions = handler.platform.volumes.versions[name]
    content = request.json["content"]
    prefix = f"{name}/{len(versions)}"
    if "origin" not in content and content["source_prefix"] != prefix:
        refuse(handler, 400, f"'content.source_prefix' of the next version is {prefix}.")
        return
    versions.append(begun(content, prefix))
    handler.answer(200, view(handler.platform, name))


def delete(handler: Handler, request: Request, name: str) -> None:
    if missing(handler, name):
        return
    del handler.platform.volumes.versions[name]
    handler.answer(200, {"object": "volume", "name": name, "deleted": True})


def seal(handler: Handler, name: str) -> None:
    if missing(handler, name):
        return
    handler.platform.volumes.versions[name][-1].sealed_at = NOW
    handler.answer(200, {})


def compare(handler: Handler, request: Request, name: str, number: str) -> None:
    if missing(handler, name):
        return
    platform, versions = handler.platform, handler.platform.volumes.versions[name]
    if int(number) < len(versions) and versions[int(number)].sealed_at:
        refuse(handler, 409, f"Version {number} of '{name}' is sealed.")
        return
    assert int(number) <= len(versions)
    there = files_of(platform, name, int(number))
    known = {
        (len(content), digest(content)): content
        for each in range(len(versions) + 1)
        for content in files_of(platform, name, each).values()
    }
    data = []
    for asked in request.json["files"]:
        key = (asked["size"], asked["sha256"])
        own = there.get(asked["path"])
        if own is not None and (len(own), digest(own)) == key:
            status = "present"
        elif key in known:
            platform.files[f"{name}/{number}/{asked['path']}"] = known[key]
            status = "linked"
        else:
            status = "missing"
        data.append({"path": asked["path"], "status": status})
    handler.answer(200, {"object": "list", "version": int(number), "data": data})


def batch_of(request: Request) -> dict[str, tuple[str, bytes]]:
    """The files of a batch by their paths: the digest that is said of each, and its bytes."""
    line, _, data = request.body.partition(b"\n")
    files, at = {}, 0
    for each in json.loads(line)["files"]:
        files[each["path"]] = each["sha256"], data[at : at + each["size"]]
        at += each["size"]
    assert at == len(data)
    return files


def put_batch(handler: Handler, request: Request, name: str, number: str) -> None:
    if missing(handler, name):
        return
    batch = batch_of(request)
    for path, (said, content) in batch.items():
        if digest(content) != said:
            refuse(handler, 400, f"The bytes of '{path}' have another SHA-256 than is said of them.", "digest_mismatch")
            return
    for path, (_, content) in batch.items():
        handler.platform.files[f"{name}/{number}/{path}"] = content
    handler.answer(200, {"object": "file_batch", "version": int(number)})


def contents(handler: Handler, request: Request, name: str, number: str) -> None:
    if missing(handler, name):
        return
    there = files_of(handler.platform, name, int(number))
    own = {other: path for path, other in handler.platform.volumes.called.items()}
    asked = {path: there[own.get(path, path)] for path in request.json["paths"]}
    told = [{"path": path, "size": len(content), "sha256": digest(content)} for path, content in asked.items()]
    handler.send_response(200)
    send(handler, json.dumps({"files": told}).encode() + b"\n" + b"".join(asked.values()))


def send(handler: Handler, content: bytes) -> None:
    """The bytes of an answer whose head has begun, or as many of them as a test lets through."""
    volumes = handler.platform.volumes
    handler.send_header("Content-Length", str(len(content)))
    handler.send_header("Connection", "close")
    handler.end_headers()
    end = len(content) - handler.platform.missing_bytes
    handler.wfile.write(volumes.spoil(content)[: volumes.cuts.pop(0) if volumes.cuts else end])
    handler.close_connection = True


def files(handler: Handler, request: Request, name: str, number: str) -> None:
    if missing(handler, name):
        return
    volumes = handler.platform.volumes
    all_rows = rows(files_of(handler.platform, name, int(number)))
    for row in all_rows:
        row["name"] = volumes.called.get(row["name"], row["name"])
        row["sha256"] = None if volumes.unhashed else row["sha256"]
    volumes.unhashed = max(0, volumes.unhashed - 1)
    after, limit = request.query.get("after", ""), int(request.query.get("limit", 1000))
    left = [each for each in all_rows if each["name"] > after]
    handler.answer(200, {"object": "list", "version": int(number), "data": left[:limit], "has_more": len(left) > limit})


def remove(handler: Handler, request: Request, filename: str) -> None:
    stored = {unquote(each): each for each in handler.platform.files}
    if handler.platform.files.pop(stored.get(unquote(filename), ""), None) is None:
        refuse(handler, 404, "There is no such file.")
        return
    handler.answer(200, {"object": "file", "deleted": True})


def init(handler: Handler, request: Request) -> None:
    upload_id = f"upload-{len(handler.platform.volumes.parts)}"
    handler.platform.volumes.parts[upload_id] = {}
    urls = [
        {"part_number": number, "url": f"{handler.platform.url}/signed/part/{upload_id}/{number}", "method": "PUT"}
        for number in range(1, request.json["parts_count"] + 1)
    ]
    handler.answer(200, {"upload_id": upload_id, "path": request.json["filename"], "part_upload_urls": urls})


def put_part(handler: Handler, request: Request, upload_id: str, number: str) -> None:
    if upload_id not in handler.platform.volumes.parts:
        refuse(handler, 404, "There is no such upload.")
        return
    handler.platform.volumes.parts[upload_id][int(number)] = request.body
    handler.answer(200, {}, ETag=f'"{digest(request.body)}"')


def complete(handler: Handler, request: Request) -> None:
    parts = handler.platform.volumes.parts.pop(request.json["upload_id"], None)
    if parts is None:
        refuse(handler, 404, "There is no such upload.")
        return
    assert [each["etag"] for each in request.json["parts"]] == [digest(part) for _, part in sorted(parts.items())]
    handler.platform.files[request.json["filename"]] = b"".join(part for _, part in sorted(parts.items()))
    handler.answer(200, {"path": request.json["filename"]})


ROUTES = (
    ("GET", VOLUMES, list_all),
    ("POST", VOLUMES, create),
    ("GET", rf"{VOLUMES}/([\w.-]+)", get),
    ("PATCH", rf"{VOLUMES}/([\w.-]+)", update),
    ("DELETE", rf"{VOLUMES}/([\w.-]+)", delete),
    ("POST", rf"{VOLUMES}/([\w.-]+)/versions/(\d+)/files", compare),
    ("GET", rf"{VOLUMES}/([\w.-]+)/versions/(\d+)/files", files),
    ("PUT", rf"{VOLUMES}/([\w.-]+)/versions/(\d+)/files", put_batch),
    ("POST", rf"{VOLUMES}/([\w.-]+)/versions/(\d+)/files/contents", contents),
    ("POST", "/v1/storage/multipart/init", init),
    ("POST", "/v1/storage/multipart/complete", complete),
    ("PUT", r"/signed/part/([\w-]+)/(\d+)", put_part),
    ("DELETE", "/v1/storage/(.+)", remove),
)
