"""Manifests, tags and referrers."""

import hashlib

import msgspec
import pytest
from sqlalchemy import Connection, select

from machineshop.registry.manifests import MANIFEST_LIMIT_BYTES
from machineshop.store.tables import tags
from pusher import (
    OCI_IMAGE,
    OCI_INDEX,
    Pusher,
    bundle_manifest,
    code_of,
    descriptor,
    digest_of,
    image_manifest,
)
from storage_server import StorageServer

CONFIG, LAYER = b'{"os": "linux"}', b"a layer"


async def test_an_image_is_pulled_by_tag_and_by_digest_byte_by_byte(pusher: Pusher) -> None:
    await pusher.blob("team/app", CONFIG)
    await pusher.blob("team/app", LAYER)
    content = msgspec.json.format(msgspec.json.encode(image_manifest(CONFIG, LAYER)), indent=3)
    put = await pusher.put_manifest("team/app", "v1", content, OCI_IMAGE)
    assert (put.status_code, put.headers["docker-content-digest"]) == (201, digest_of(content))
    assert put.headers["location"] == f"/v2/team/app/manifests/{digest_of(content)}"
    for reference in ("v1", digest_of(content)):
        got = await pusher.client.get(f"/v2/team/app/manifests/{reference}")
        assert (got.content, got.headers["content-type"]) == (content, OCI_IMAGE)
        head = await pusher.client.head(f"/v2/team/app/manifests/{reference}")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(content))
        assert head.headers["docker-content-digest"] == digest_of(content)


async def test_a_tag_moves_and_the_old_manifest_stays(pusher: Pusher) -> None:
    old = await pusher.image("team/app", "latest", CONFIG)
    new = await pusher.image("team/app", "latest", CONFIG, LAYER)
    head = await pusher.client.head("/v2/team/app/manifests/latest")
    assert head.headers["docker-content-digest"] == new != old
    assert (await pusher.client.get(f"/v2/team/app/manifests/{old}")).status_code == 200


async def test_a_manifest_is_pushed_by_its_digest_alone(pusher: Pusher) -> None:
    await pusher.blob("team/app", CONFIG)
    content = msgspec.json.encode(image_manifest(CONFIG))
    assert (await pusher.put_manifest("team/app", digest_of(content), content, OCI_IMAGE)).status_code == 201
    assert (await pusher.client.get("/v2/team/app/tags/list")).json()["tags"] == []
    wrong = await pusher.put_manifest("team/app", digest_of(b"other"), content, OCI_IMAGE)
    assert code_of(wrong) == (400, "DIGEST_INVALID")


async def test_what_a_manifest_refers_to_must_be_in_its_repository(pusher: Pusher) -> None:
    await pusher.blob("team/app", CONFIG)
    await pusher.blob("team/other", LAYER)
    content = msgspec.json.encode(image_manifest(CONFIG, LAYER))
    answer = await pusher.put_manifest("team/app", "v1", content, OCI_IMAGE)
    assert code_of(answer) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert answer.json()["errors"][0]["detail"]["digest"] == digest_of(LAYER)
    assert (await pusher.client.get("/v2/team/app/manifests/v1")).status_code == 404


async def test_a_layer_that_lies_elsewhere_need_not_be_there(pusher: Pusher) -> None:
    await pusher.blob("team/app", CONFIG)
    manifest = image_manifest(CONFIG)
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    manifest["layers"] = [descriptor(LAYER, foreign, urls=["https://example.org/layer"])]
    await pusher.manifest("team/app", "v1", manifest)


async def test_an_index_needs_its_manifests(pusher: Pusher) -> None:
    digest = await pusher.image("team/app", "arm", CONFIG)
    content = (await pusher.client.get(f"/v2/team/app/manifests/{digest}")).content
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(content, OCI_IMAGE)]}
    await pusher.manifest("team/app", "all", index)
    assert (await pusher.client.get("/v2/team/app/manifests/all")).headers["content-type"] == OCI_INDEX
    index["manifests"] = [descriptor(b"unknown", OCI_IMAGE)]
    answer = await pusher.put_manifest("team/app", "all", msgspec.json.encode(index), OCI_INDEX)
    assert code_of(answer) == (400, "MANIFEST_BLOB_UNKNOWN")


BROKEN = {
    "not JSON": b"{",
    "not an object": b"[]",
    "not UTF-8": b'{"schemaVersion": 2, "mediaType": "\xff"}',
    "nested without end": b"[" * 100_000,
    "schema 1": msgspec.json.encode(image_manifest(CONFIG) | {"schemaVersion": 1}),
    "another media type than the header's": msgspec.json.encode(image_manifest(CONFIG) | {"mediaType": OCI_INDEX}),
    "no config": b'{"schemaVersion": 2, "layers": []}',
    "no layers": msgspec.json.encode({"schemaVersion": 2, "config": descriptor(CONFIG, "x")}),
    "an index in an image": msgspec.json.encode(image_manifest(CONFIG) | {"manifests": []}),
    "a digest with a path": msgspec.json.encode(
        image_manifest(CONFIG) | {"layers": [descriptor(LAYER, "x") | {"digest": "sha256:../../etc"}]}
    ),
    "a negative size": msgspec.json.encode(
        image_manifest(CONFIG) | {"layers": [descriptor(LAYER, "x") | {"size": -1}]}
    ),
    "a wrong size": msgspec.json.encode(image_manifest(CONFIG) | {"config": descriptor(CONFIG, "x") | {"size": 1}}),
    "a size that is text": msgspec.json.encode(
        image_manifest(CONFIG) | {"config": descriptor(CONFIG, "x") | {"size": "1"}}
    ),
    "empty": b"",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
async def test_a_broken_manifest_is_refused(pusher: Pusher, content: bytes) -> None:
    await pusher.blob("team/app", CONFIG)
    answer = await pusher.put_manifest("team/app", "v1", content, OCI_IMAGE)
    assert code_of(answer) == (400, "MANIFEST_INVALID")
    assert answer.json()["errors"][0]["message"].startswith("This manifest cannot be taken: ")


async def test_manifests_of_unknown_kinds_are_refused(pusher: Pusher) -> None:
    content = msgspec.json.encode(image_manifest(CONFIG) | {"mediaType": "text/plain"})
    assert code_of(await pusher.put_manifest("team/app", "v1", content, "text/plain")) == (400, "MANIFEST_INVALID")


async def test_a_manifest_that_is_too_large_is_refused(pusher: Pusher) -> None:
    answer = await pusher.put_manifest("team/app", "v1", b" " * (MANIFEST_LIMIT_BYTES + 1), OCI_IMAGE)
    assert code_of(answer) == (413, "SIZE_INVALID")


@pytest.mark.parametrize("tag", ["-x", ".x", "a" * 129, "ä", "a b", "a!"])
async def test_tags_follow_the_grammar(pusher: Pusher, tag: str) -> None:
    answer = await pusher.put_manifest("team/app", tag, b"{}", OCI_IMAGE)
    assert code_of(answer) == (400, "TAG_INVALID")


async def test_deleting_a_tag_leaves_the_manifest(pusher: Pusher) -> None:
    digest = await pusher.image("team/app", "one", CONFIG)
    await pusher.image("team/app", "two", CONFIG)
    assert (await pusher.client.delete("/v2/team/app/manifests/one")).status_code == 202
    assert code_of(await pusher.client.get("/v2/team/app/manifests/one")) == (404, "MANIFEST_UNKNOWN")
    assert (await pusher.client.get("/v2/team/app/manifests/two")).status_code == 200
    assert (await pusher.client.delete(f"/v2/team/app/manifests/{digest}")).status_code == 202
    assert code_of(await pusher.client.get("/v2/team/app/manifests/two")) == (404, "MANIFEST_UNKNOWN")
    assert (await pusher.client.get("/v2/team/app/tags/list")).json()["tags"] == []
    assert code_of(await pusher.client.delete(f"/v2/team/app/manifests/{digest}")) == (404, "MANIFEST_UNKNOWN")


async def test_tags_are_listed_in_order_and_in_pages(pusher: Pusher) -> None:
    for tag in ("v2", "v10", "V1", "latest", "_x"):
        await pusher.image("team/app", tag, CONFIG)
    ordered = ["V1", "_x", "latest", "v10", "v2"]
    assert (await pusher.client.get("/v2/team/app/tags/list")).json() == {"name": "team/app", "tags": ordered}
    seen, url = [], "/v2/team/app/tags/list?n=2"
    for size in (2, 2, 1):
        answer = await pusher.client.get(url)
        assert len(answer.json()["tags"]) == size
        seen += answer.json()["tags"]
        url = answer.links.get("next", {}).get("url", "")
    assert (seen, url) == (ordered, "")
    assert (await pusher.client.get("/v2/team/app/tags/list?n=0")).json()["tags"] == []
    assert (await pusher.client.get("/v2/team/app/tags/list?last=latest")).json()["tags"] == ["v10", "v2"]
    for bad in ("-1", "x", "1e3", "9" * 30):
        wrong = await pusher.client.get("/v2/team/app/tags/list", params={"n": bad})
        assert code_of(wrong) == (400, "PAGINATION_NUMBER_INVALID")


async def test_tags_of_an_unknown_repository(pusher: Pusher) -> None:
    assert code_of(await pusher.client.get("/v2/team/nothing/tags/list")) == (404, "NAME_UNKNOWN")


async def test_referrers_are_listed_by_their_subject_and_type(pusher: Pusher) -> None:
    digest = await pusher.image("team/app", "v1", CONFIG)
    content = (await pusher.client.get(f"/v2/team/app/manifests/{digest}")).content
    subject = descriptor(content, OCI_IMAGE)
    await pusher.blob("team/app", LAYER)
    signature = image_manifest(
        CONFIG, subject=subject, artifactType="application/x-signature", annotations={"by": "me"}
    )
    sbom = bundle_manifest(CONFIG, LAYER, subject=subject)
    put = await pusher.put_manifest("team/app", "s1", msgspec.json.encode(signature), OCI_IMAGE)
    assert put.headers["oci-subject"] == digest
    await pusher.manifest("team/app", "s2", sbom)

    answer = await pusher.client.get(f"/v2/team/app/referrers/{digest}")
    assert answer.headers["content-type"] == OCI_INDEX
    found = answer.json()["manifests"]
    assert [each["artifactType"] for each in found] == ["application/x-signature", sbom["artifactType"]]
    assert found[0]["annotations"] == {"by": "me"}
    assert found[0]["digest"] == put.headers["docker-content-digest"]
    only = await pusher.client.get(
        f"/v2/team/app/referrers/{digest}", params={"artifactType": "application/x-signature"}
    )
    assert only.headers["oci-filters-applied"] == "artifactType"
    assert [each["digest"] for each in only.json()["manifests"]] == [found[0]["digest"]]


async def test_no_referrers_are_an_empty_list(pusher: Pusher) -> None:
    for name in ("team/app", "team/nothing"):
        answer = await pusher.client.get(f"/v2/{name}/referrers/{digest_of(b'x')}")
        assert (answer.status_code, answer.json()["manifests"]) == (200, [])
    assert code_of(await pusher.client.get("/v2/team/app/referrers/x")) == (400, "DIGEST_INVALID")


async def test_a_subject_need_not_be_there_yet(pusher: Pusher) -> None:
    await pusher.image("team/app", "v1", CONFIG, subject=descriptor(b"later", OCI_IMAGE))
    found = (await pusher.client.get(f"/v2/team/app/referrers/{digest_of(b'later')}")).json()["manifests"]
    assert len(found) == 1


async def test_a_manifest_by_its_sha512(pusher: Pusher) -> None:
    await pusher.blob("team/app", b"{}")
    content = msgspec.json.encode(image_manifest(b"{}"))
    digest = f"sha512:{hashlib.sha512(content).hexdigest()}"
    answer = await pusher.put_manifest("team/app", digest, content, OCI_IMAGE)
    assert (answer.status_code, answer.headers["docker-content-digest"]) == (201, digest)
    assert (await pusher.client.get(f"/v2/team/app/manifests/{digest}")).content == content
    wrong = await pusher.put_manifest("team/app", "sha512:" + "0" * 128, content, OCI_IMAGE)
    assert code_of(wrong) == (400, "DIGEST_INVALID")


async def test_ten_thousand_tags_are_listed_whole_and_page_by_page(pusher: Pusher, server: StorageServer) -> None:
    digest = await pusher.image("team/app", "first")
    names = sorted(f"tag-{number}" for number in range(10_000))

    def add_all(conn: Connection) -> None:
        repository_id = conn.execute(select(tags.c.repository_id)).scalar()
        rows = [{"repository_id": repository_id, "name": name, "digest": digest, "updated_at": 0} for name in names]
        conn.execute(tags.insert(), rows)

    await server.database.write(add_all)
    assert (await pusher.client.get("/v2/team/app/tags/list")).json()["tags"] == ["first", *names]
    found: list[str] = []
    path: str | None = "/v2/team/app/tags/list?n=999"
    while path is not None:
        answer = await pusher.client.get(path)
        found += answer.json()["tags"]
        path = answer.links["next"]["url"] if "next" in answer.links else None
    assert found == ["first", *names]


async def test_the_tag_under_which_older_clients_file_referrers_is_a_tag_like_others(pusher: Pusher) -> None:
    """They keep an index there themselves. What it lists has a subject, so the list of referrers has it too."""
    digest = await pusher.image("team/app", "v1", CONFIG, LAYER)
    image = msgspec.json.encode(image_manifest(CONFIG, LAYER))
    signature = image_manifest(CONFIG, LAYER, subject=descriptor(image, OCI_IMAGE), artifactType="test/signature")
    signed = await pusher.manifest("team/app", "signature", signature)
    fallback = digest.replace(":", "-")
    listed = descriptor(msgspec.json.encode(signature), OCI_IMAGE, artifactType="test/signature")
    await pusher.manifest("team/app", fallback, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [listed]})
    by_tag = (await pusher.client.get(f"/v2/team/app/manifests/{fallback}")).json()["manifests"]
    by_list = (await pusher.client.get(f"/v2/team/app/referrers/{digest}")).json()["manifests"]
    assert [each["digest"] for each in by_tag] == [each["digest"] for each in by_list] == [signed]
