"""Volumes: made, filled, sealed, given new versions, mounted and deleted, by the routes that clients use."""

import asyncio
import hashlib

import pytest
from sqlalchemy import text

from files.shop import Shop
from machineshop.errors import ArtifactMissing, InvalidRequest, NotFound, VolumeUnusable
from machineshop.models import Scope
from machineshop.services.volume_paths import trouble_in
from machineshop.store.database import Database
from volumes.conftest import MOUNT, VOLUMES, Volumes, claimed, refusal


async def test_a_volume_is_made_first_and_filled_then(team: Volumes) -> None:
    made = await team.create()
    assert (made["object"], made["name"], made["type"], made["current_version"]) == ("volume", "weights", "readOnly", 0)
    assert (made["status"], made["content"]["source_prefix"], made["content"]["files"]) == ("pending", "weights/0", [])

    await team.upload("weights/0/a.bin", b"alpha")
    await team.upload("weights/0/deep/er/b.bin", b"beta")

    seen = await team.describe(made["id"])
    files = {file["name"]: (file["size"], file["sha256"]) for file in seen["content"]["files"]}
    assert files == {
        "a.bin": (5, hashlib.sha256(b"alpha").hexdigest()),
        "deep/er/b.bin": (4, hashlib.sha256(b"beta").hexdigest()),
    }
    assert (seen["status"], seen["sealed_at"], seen["version_history"]) == ("ready", None, {})
    assert (seen["content"]["files_count"], seen["content"]["size"]) == (2, 9)
    assert await team.read("weights/0/deep/er/b.bin") == b"beta", "the files of volumes are files"
    (listed,) = (await team.answer("GET", "/v1/storage/volumes"))["data"]
    assert (listed["id"], listed["status"], listed["content"]["files_count"]) == (made["id"], "ready", 2)


async def test_each_version_is_what_was_uploaded_for_it(team: Volumes) -> None:
    await team.create(a=b"old", gone=b"gone")
    seen = await team.update("weights", 1, a=b"new")

    assert (seen["current_version"], seen["version"], seen["status"]) == (1, 1, "ready")
    assert [file["name"] for file in seen["content"]["files"]] == ["a"]
    before = seen["version_history"]["0"]
    assert (before["version"], before["status"], before["content"]["source_prefix"]) == (0, "ready", "weights/0")
    assert before["sealed_at"] is not None, "a newer version seals"
    assert (before["content"]["files_count"], before["content"]["size"], "files" in before["content"]) == (2, 7, False)
    older = await team.describe(number=0)
    assert [file["name"] for file in older["content"]["files"]] == ["a", "gone"]
    assert (older["current_version"], older["version"]) == (1, 0)
    assert await team.read("weights/0/a") == b"old"


async def test_what_was_stored_before_its_volume_belongs_to_it(team: Volumes) -> None:
    await team.upload("weights/0/early", b"early")
    await team.upload("weights/00/x", b"another name")
    await team.create(late=b"late")
    assert [file["name"] for file in (await team.describe())["content"]["files"]] == ["early", "late"]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", ".", "..", "volumes", "a" * 101, "a\n"])
async def test_names_that_cannot_be(team: Volumes, name: str) -> None:
    body = {"name": name, "type": "readOnly", "content": {"source_prefix": f"{name}/0"}}
    status, _, message = await team.refused("POST", VOLUMES, body)
    assert status == 400
    assert "cannot be a volume's name" in message


async def test_a_volume_does_not_take_the_place_of_another_by_its_id(team: Volumes, database: Database) -> None:
    weights = await team.create(a=b"0")
    body = {"name": weights["id"], "type": "readOnly", "content": {"source_prefix": f"{weights['id']}/0"}}
    status, _, message = await team.refused("POST", VOLUMES, body)
    assert (status, "looks like the id of one" in message) == (400, True)
    with pytest.raises(InvalidRequest, match="looks like the id of one"):
        await team.mount(weights["id"])
    # One from before that was refused has its name, and the other one its id.
    other = await team.create("other")
    called = text("UPDATE volumes SET name = :name WHERE id = :id")
    await database.write(lambda conn: conn.execute(called, {"name": weights["id"], "id": other["id"]}))
    deployment = await team.mount("user", MOUNT)
    assert deployment.config.volumes[0].volume_id == weights["id"]
    assert (await team.describe(number=0))["sealed_at"] is not None, "what is mounted is sealed"
    made = await team.update("weights", 1, a=b"1")
    assert (made["id"], made["current_version"]) == (weights["id"], 1)
    assert (await team.describe(weights["id"]))["id"] == other["id"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"type": "readOnly", "content": {"source_prefix": "v/0"}}, "'name' is missing"),
        ({"name": "v", "content": {"source_prefix": "v/0"}}, "'type' is missing"),
        ({"name": "v", "type": "readOnly"}, "'content' is missing"),
        ({"name": "v", "type": "readOnly", "content": {}}, "one of the two"),
        ({"name": "v", "type": "readOnly", "content": {"source_prefix": "v/1"}}, "lie under 'v/0'"),
        ({"name": "v", "type": "readOnly", "content": {"source_prefix": "other/0"}}, "lie under 'v/0'"),
        ({"name": "v", "type": "readOnly", "content": {"source_prefix": ""}}, "lie under 'v/0'"),
        ({"name": "v", "type": "readWrite", "content": {"source_prefix": "v/0"}}, "readWrite"),
    ],
)
async def test_bodies_that_cannot_be(team: Volumes, body: dict[str, object], says: str) -> None:
    status, _, message = await team.refused("POST", VOLUMES, body)
    assert status == 400
    assert says in message


async def test_a_name_is_given_once_and_stays(team: Volumes) -> None:
    await team.create()
    body = {"name": "weights", "type": "readOnly", "content": {"source_prefix": "weights/0"}}
    answer = await team.client.post(VOLUMES, json=body)
    assert refusal(answer)[:2] == (409, "already_exists")
    assert "already exists" in refusal(answer)[2]
    assert answer.headers["x-should-retry"] == "false"

    status, _, message = await team.refused("PATCH", f"{VOLUMES}/weights", {"name": "other"})
    assert (status, "cannot be changed" in message) == (400, True)
    assert (await team.answer("PATCH", f"{VOLUMES}/weights", {"name": "weights"}))["current_version"] == 0


async def test_a_prefix_is_the_next_versions_alone(team: Volumes) -> None:
    await team.create(a=b"x")
    for prefix in ("weights/0", "weights/2", "other/1", "/", ""):
        body = {"content": {"type": "files", "source_prefix": prefix}}
        status, _, message = await team.refused("PATCH", f"{VOLUMES}/weights", body)
        assert (status, "lie under 'weights/1'" in message) == (400, True), prefix


@pytest.mark.parametrize("how", ["prewarm", "mount", "version"])
async def test_a_sealed_version_takes_no_change(team: Volumes, how: str) -> None:
    await team.create(a=b"first")
    late = await team.url("weights/0/late")
    if how == "prewarm":
        await team.seal()
    elif how == "mount":
        await team.mount("user", MOUNT)
    else:
        await team.update("weights", 1, a=b"second")

    answers = [
        await team.try_upload("weights/0/a", b"changed"),
        await team.shop.client(None).put(late, content=b"late"),
        await team.upload_in_parts("weights/0/big", b"1", b"2"),
        await team.client.delete("/v1/storage/weights/0/a"),
        await team.client.post(f"{VOLUMES}/weights/versions/0/files", json={"files": [claimed("new", b"first")]}),
    ]
    for answer in answers:
        assert refusal(answer)[:2] == (409, "volume_sealed"), answer.text
        assert answer.headers["x-should-retry"] == "false"
    assert [file["name"] for file in (await team.describe(number=0))["content"]["files"]] == ["a"]
    assert await team.read("weights/0/a") == b"first"
    await team.shop.clean()
    assert len(team.shop.blobs()) == (2 if how == "version" else 1), "what was refused is not kept"


async def test_an_open_version_may_change(team: Volumes) -> None:
    await team.create(a=b"first", b=b"second")
    await team.upload("weights/0/a", b"changed")
    assert (await team.client.delete("/v1/storage/weights/0/b")).status_code == 200
    assert [(file["name"], file["size"]) for file in (await team.describe())["content"]["files"]] == [("a", 7)]
    assert len(team.shop.blobs()) == 1


async def test_a_version_without_files_is_not_sealed(team: Volumes) -> None:
    await team.create()
    with pytest.raises(Exception, match="has no file yet"):
        await team.seal()
    with pytest.raises(VolumeUnusable, match="has no file yet"):
        await team.mount("user", MOUNT)
    await team.upload("weights/0/a", b"x")
    await team.mount("user", MOUNT)


async def test_files_that_make_no_folder_fail_their_version(team: Volumes) -> None:
    await team.create(a=b"file")
    await team.upload("weights/0/a/b", b"in a folder")
    with pytest.raises(Exception, match="'a' is a file and the folder of 'a/b' at once"):
        await team.seal()
    seen = await team.describe()
    assert (seen["status"], "at once" in seen["status_message"]) == ("failed", True)
    with pytest.raises(VolumeUnusable, match="has failed"):
        await team.mount("user", MOUNT)
    assert (await team.update("weights", 1, a=b"file"))["status"] == "ready"


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        ((), "no file"),
        (("a", "b/c", "b/d", "b.x"), ""),
        (("a/b", "a.b", "a"), "'a' is a file and the folder"),
        (("x/" + "y" * 256,), "255 bytes"),
        (("x/" + "ä" * 128,), "255 bytes"),
        (("y" * 255,), ""),
        (("x" * 256 + "/y",), "255 bytes"),
        (("a/" * 31 + "b",), ""),
        (("a/" * 32 + "b",), "more than 32 parts"),
        (("a", "a-b", "a/b"), "'a' is a file and the folder of 'a/b'"),
        (tuple(f"{number}/{'a/' * 30}b" for number in range(6_450)), ""),
        (tuple(f"{number}/{'a/' * 30}b" for number in range(6_500)), "more than 200000 folders"),
    ],
    ids=[
        *("none", "good", "file-and-folder", "long", "long-in-bytes", "longest", "long-folder"),
        *("deepest", "too-deep", "between", "most-folders", "too-many-folders"),
    ],
)
def test_trouble_is_found_in_paths(paths: tuple[str, ...], says: str) -> None:
    found = trouble_in(paths)
    assert says in found
    assert bool(says) == bool(found)


async def test_a_path_that_is_too_deep_is_refused_however_it_comes(team: Volumes) -> None:
    await team.create(a=b"x")
    deep, deepest = "d/" * 32 + "a", "d/" * 31 + "a"
    told = [
        ("POST", f"{VOLUMES}/weights/versions/0/files", {"files": [claimed(deep, b"x")]}),
        ("POST", "/v1/storage/upload-request", {"filename": f"weights/0/{deep}"}),
        ("POST", "/v1/storage/multipart/init", {"filename": f"weights/0/{deep}", "parts_count": 1}),
    ]
    for method, path, body in told:
        status, _, message = await team.refused(method, path, body)
        assert (status, "fewer folders" in message) == (400, True), path
    assert await team.claim(0, {deepest: b"x"}) == {deepest: "linked"}
    await team.seal()


async def test_versions_are_not_deleted_one_by_one(team: Volumes) -> None:
    await team.create(a=b"0")
    status, _, message = await team.refused("DELETE", f"{VOLUMES}/weights?version=0")
    assert (status, "not deleted one by one" in message) == (400, True)
    assert (await team.describe())["content"]["files_count"] == 1


async def test_a_deleted_project_takes_no_bytes(team: Volumes, database: Database) -> None:
    url = await team.url("late")
    gone = text("UPDATE projects SET deleted_at = 1 WHERE id = :id")
    await database.write(lambda conn: conn.execute(gone, {"id": team.project_id}))
    answer = await team.shop.client(None).put(url, content=b"late")
    assert (answer.status_code, "no project" in refusal(answer)[2]) == (404, True)
    assert team.shop.blobs() == set()


@pytest.mark.parametrize("path", ["../a", "a//b", "/a", "a/", ".", "a/../b", "a\x00b", "a\nb"])
async def test_paths_that_lead_elsewhere_are_refused(team: Volumes, path: str) -> None:
    await team.create(a=b"x")
    claims = {"files": [{"path": path, "size": 1, "sha256": "0" * 64}]}
    assert (await team.refused("POST", f"{VOLUMES}/weights/versions/0/files", claims))[0] == 400
    upload = await team.client.post("/v1/storage/upload-request", json={"filename": f"weights/0/{path}"})
    assert upload.status_code == 400


async def test_a_file_in_parts_is_hashed_soon(team: Volumes) -> None:
    await team.create()
    assert (await team.upload_in_parts("weights/0/big", b"one", b"two")).status_code == 200
    whole = b"onetwo"
    assert (await team.describe())["content"]["files"][0]["sha256"] is None
    assert await team.claim(0, {"big": whole, "same": whole}) == {"big": "hashing", "same": "missing"}
    assert await team.shop.contents.hash_new(0.0) == 1
    assert await team.shop.contents.hash_new(0.0) == 0
    assert (await team.describe())["content"]["files"][0]["sha256"] == hashlib.sha256(whole).hexdigest()
    assert await team.claim(0, {"big": whole, "same": whole}) == {"big": "present", "same": "linked"}


async def test_whoever_mounts_gets_every_file_with_its_digest(team: Volumes) -> None:
    made = await team.create(a=b"alpha")
    await team.upload("weights/0/deep/b", b"beta")
    await team.upload_in_parts("weights/0/big", b"one", b"two")
    contents = team.shop.contents
    with pytest.raises(ArtifactMissing, match="not ready"):
        await contents.volume_files(team.project_id, made["id"], 0)
    await team.seal()

    twice = await asyncio.gather(*(contents.volume_files(team.project_id, made["id"], 0) for _ in range(2)))
    assert twice[0] == twice[1]
    expected = {"a": b"alpha", "big": b"onetwo", "deep/b": b"beta"}
    assert {file.path: (file.size, file.digest) for file in twice[0]} == {
        path: (len(data), hashlib.sha256(data).hexdigest()) for path, data in expected.items()
    }
    for file in twice[0]:
        assert b"".join([chunk async for chunk in await contents.open_file(file)]) == expected[file.path]
        target = team.shop.folder / f"link-{file.digest}"
        assert await contents.link_file(file, target)
        assert target.read_bytes() == expected[file.path]
    with pytest.raises(ArtifactMissing):
        await contents.volume_files("another project", made["id"], 0)
    await team.answer("DELETE", f"{VOLUMES}/weights")
    with pytest.raises(ArtifactMissing):
        await contents.volume_files(team.project_id, made["id"], 0)
    await team.shop.remove_gone()
    with pytest.raises(ArtifactMissing, match="was deleted"):
        await contents.open_file(twice[0][0])
    with pytest.raises(ArtifactMissing, match="was deleted"):
        await contents.link_file(twice[0][0], team.shop.folder / "new")


async def test_an_output_of_a_job_is_no_file_of_a_volume(team: Volumes, shop: Shop) -> None:
    """The volume may come after the upload: the job ends all the same."""
    replica = await shop.replica("replica-1")
    claim = await replica.take_new()
    told = {"filename": "weights/0/out", "request_id": claim.job.id, "attempt_token": claim.token}
    asked = await team.client.post("/v1/storage/upload-request", json=told)
    url = asked.json()["upload_url"]["url"]
    assert (await replica.put(url, b"before")).status_code == 200
    await team.create()
    refused = await replica.put(url, b"after")
    assert (refused.status_code, "no file of a volume" in refused.text) == (400, True)
    await replica.finish(claim)
    assert await team.read("weights/0/out") is None
    await shop.clean()
    assert (await shop.rows(), shop.blobs()) == (set(), set())


async def test_a_volume_of_another_project_is_none(team: Volumes, shop: Shop) -> None:
    await team.create(a=b"x")
    key, _ = await shop.identity.create_key("other", "key", Scope.DEVELOPER)
    for call in (
        shop.volumes.describe(key.project_id, "weights"),
        shop.volumes.seal(key.project_id, "weights"),
        shop.volumes.delete(key.project_id, "weights"),
        shop.volumes.list_files(key.project_id, "weights", 0, "", 10),
    ):
        with pytest.raises(NotFound):
            await call
    with pytest.raises(VolumeUnusable, match="no volume"):
        await team.deployments.create(
            key.project_id, {"name": "user", "image": "i@sha256:1", "gpu_type": "none", "volumes": [MOUNT]}
        )


async def test_many_files_are_shown(team: Volumes) -> None:
    await team.create(a=b"x")
    files = {f"f{number:05}": b"x" for number in range(10_000)}
    for at in (0, 5000):
        some = dict(list(files.items())[at : at + 5000])
        assert set((await team.claim(0, some)).values()) == {"linked"}
    content = (await team.describe())["content"]
    assert (len(content["files"]), content["files_count"], content["files_truncated"]) == (10_001, 10_001, False)
    await team.seal()
    assert (await team.describe())["status"] == "ready"
