"""Files that a volume need not be sent again: whose bytes may be claimed, and which bounds that has."""

import hashlib
import time

from sqlalchemy import text

from files.shop import Shop
from machineshop.models import Scope
from machineshop.store.database import Database
from volumes.conftest import VOLUMES, Volumes, claimed


async def test_bytes_that_very_many_files_have_are_found_at_once(team: Volumes, database: Database) -> None:
    """Each batch of claims looks at one of them, not at all."""
    made = await team.create(a=b"x")
    more = text(
        "INSERT INTO files (project_id, name, blob_key, size, etag, created_at, digest, volume_id, volume_version) "
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000) "
        "SELECT project_id, 'weights/0/many/' || i, blob_key, size, etag, created_at, digest, volume_id, 0 "
        "FROM files, n WHERE volume_id = :volume"
    )
    await database.write(lambda conn: conn.execute(more, {"volume": made["id"]}))
    began = time.process_time()
    assert set((await team.claim(0, {f"b{number}": b"x" for number in range(2500)})).values()) == {"linked"}
    assert time.process_time() - began < 5, "a second or so of work, and eight where all of them are looked at"


async def test_what_a_volume_has_need_not_be_uploaded_again(team: Volumes) -> None:
    await team.create(a=b"alpha", b=b"beta")
    await team.seal()
    wanted = {"a": b"alpha", "moved/b": b"beta", "c": b"gamma"}
    assert await team.claim(1, wanted) == {"a": "linked", "moved/b": "linked", "c": "missing"}
    await team.upload("weights/1/c", b"gamma")
    assert set((await team.claim(1, wanted)).values()) == {"present"}, "which is how an upload goes on"
    page = await team.answer("GET", f"{VOLUMES}/weights/versions/1/files?limit=2")
    assert ([file["name"] for file in page["data"]], page["has_more"]) == (["a", "c"], True)
    page = await team.answer("GET", f"{VOLUMES}/weights/versions/1/files?limit=2&after=c")
    assert ([file["name"] for file in page["data"]], page["has_more"]) == (["moved/b"], False)

    seen = await team.update("weights", 1)
    assert [file["name"] for file in seen["content"]["files"]] == ["a", "c", "moved/b"]
    assert await team.read("weights/1/moved/b") == b"beta"
    assert len(team.shop.blobs()) == 3, "five files, three contents"
    await team.answer("DELETE", f"{VOLUMES}/weights")
    await team.shop.remove_gone()
    assert team.shop.blobs() == set()


async def test_bytes_that_others_have_stay_when_a_file_goes(team: Volumes) -> None:
    await team.create(a=b"same")
    assert await team.claim(0, {"b": b"same", "c": b"same"}) == {"b": "linked", "c": "linked"}
    await team.upload("weights/0/a", b"other")
    await team.client.delete("/v1/storage/weights/0/b")
    await team.shop.clean()
    assert await team.read("weights/0/c") == b"same"
    assert await team.claim(0, {"c": b"other"}) == {"c": "linked"}
    assert await team.read("weights/0/c") == b"other"
    assert len(team.shop.blobs()) == 1


async def test_a_claim_is_of_ones_own_bytes_alone(team: Volumes, shop: Shop) -> None:
    """Who knows a hash gets nothing for it: not from another project, nor from another volume."""
    await team.create("theirs", a=b"secret")
    await team.create()
    assert await team.claim(0, {"a": b"secret"}) == {"a": "missing"}
    _, text = await shop.identity.create_key("other", "key", Scope.DEVELOPER)
    stranger = shop.client(text)
    answer = await stranger.post(f"{VOLUMES}/theirs/versions/0/files", json={"files": [claimed("a", b"secret")]})
    assert answer.status_code == 404
    # The same size under a digest that it has not.
    lie = {"path": "a", "size": 6, "sha256": hashlib.sha256(b"a lie!").hexdigest()}
    answer = await team.client.post(f"{VOLUMES}/theirs/versions/0/files", json={"files": [lie]})
    assert [each["status"] for each in answer.json()["data"]] == ["missing"]


async def test_claims_have_bounds(team: Volumes) -> None:
    await team.create(a=b"x")
    files = f"{VOLUMES}/weights/versions/0/files"
    many = [{"path": f"f{number}", "size": 1, "sha256": "0" * 64} for number in range(5000)]
    answer = await team.answer("POST", files, {"files": many})
    assert len(answer["data"]) == 5000
    assert (await team.refused("POST", files, {"files": [*many, {**many[0], "path": "more"}]}))[0] == 400
    assert (await team.refused("POST", files, {"files": []}))[0] == 400
    for digest in ("0" * 63, "0" * 64 + "\n", "A" * 64):
        assert (await team.refused("POST", files, {"files": [{**many[0], "sha256": digest}]}))[0] == 400
    twice = [claimed("a", b"1"), claimed("a", b"2")]
    assert "twice" in (await team.refused("POST", files, {"files": twice}))[2]
    for number in ("2", "-1", "x", "٣"):
        status = (await team.refused("POST", f"{VOLUMES}/weights/versions/{number}/files", {"files": many[:1]}))[0]
        assert status == 400, number
