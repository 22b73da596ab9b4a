"""The pages and files of the package index."""

import hashlib
import html.parser
import zipfile
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
from starlette.applications import Starlette

from machineshop.api import packages as packages_api
from machineshop.api.packages import HTML, JSON, PLAIN_HTML, preferred
from machineshop.app import Platform
from machineshop.config import Settings
from machineshop.errors import InvalidRequest
from machineshop.services.packages import PackageIndex, normal_name, read_wheels

ELSEWHERE = "http://127.0.0.1:1/simple"


def make_wheel(folder: Path, name: str, version: str = "1.0") -> Path:
    """A wheel that can be installed and holds one module."""
    folder.mkdir(parents=True, exist_ok=True)
    path, info = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


def client_of(index: PackageIndex) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(Starlette(routes=packages_api.routes(index)))
    return httpx.AsyncClient(transport=transport, base_url="http://testserver")


@pytest.fixture
def client(tmp_path: Path) -> httpx.AsyncClient:
    make_wheel(tmp_path, "our_tool")
    return client_of(PackageIndex(read_wheels(tmp_path), ELSEWHERE))


class Links(html.parser.HTMLParser):
    """The anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found.append(dict(attrs))


async def test_a_page_in_html_names_files_with_digests_that_hold(client: httpx.AsyncClient, tmp_path: Path) -> None:
    page = await client.get("/simple/our-tool/")
    assert page.headers["content-type"].startswith("text/html")
    (link,) = Links(page.text).found
    url, _, digest = urljoin("http://testserver/simple/our-tool/", link["href"]).partition("#sha256=")
    wheel = await client.get(url)
    assert hashlib.sha256(wheel.content).hexdigest() == digest
    assert wheel.content == (tmp_path / "our_tool-1.0-py3-none-any.whl").read_bytes()
    metadata = await client.get(f"{url}.metadata")
    assert link["data-core-metadata"] == f"sha256={hashlib.sha256(metadata.content).hexdigest()}"
    assert metadata.text.startswith("Metadata-Version: 2.1\n")


async def test_a_page_in_json_says_the_same(client: httpx.AsyncClient) -> None:
    page = await client.get("/simple/Our.Tool/", headers={"Accept": JSON})
    assert page.headers["content-type"] == JSON
    document = page.json()
    assert document["meta"] == {"api-version": "1.1"}
    assert (document["name"], document["versions"]) == ("our-tool", ["1.0"])
    (file,) = document["files"]
    wheel = (await client.get(urljoin("/simple/our-tool/", file["url"]))).content
    assert file["hashes"] == {"sha256": hashlib.sha256(wheel).hexdigest()}
    assert file["size"] == len(wheel)


async def test_the_list_has_what_is_carried(client: httpx.AsyncClient) -> None:
    assert [link["href"] for link in Links((await client.get("/simple/")).text).found] == ["our-tool/"]
    assert (await client.get("/simple/", headers={"Accept": JSON})).json()["projects"] == [{"name": "our-tool"}]
    assert (await client.get("/simple")).headers["location"].endswith("/simple/")


async def test_another_package_is_passed_on(client: httpx.AsyncClient) -> None:
    answer = await client.get("/simple/Other_Package/")
    assert (answer.status_code, answer.headers["location"]) == (302, f"{ELSEWHERE}/other-package/")


async def test_without_another_index_another_package_is_unknown(tmp_path: Path) -> None:
    client = client_of(PackageIndex([], None))
    answer = await client.get("/simple/other/")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_a_file_of_another_digest_is_not_given(client: httpx.AsyncClient) -> None:
    assert (await client.get(f"/packages/{'0' * 64}/our_tool-1.0-py3-none-any.whl")).status_code == 404


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", PLAIN_HTML),
        ("*/*", PLAIN_HTML),
        (JSON, JSON),
        ("application/vnd.pypi.simple.latest+json", JSON),
        (f"{JSON}, {HTML};q=0.2, text/html;q=0.01", JSON),
        (f"{JSON};q=0.1, {HTML};q=0.2", HTML),
        ("text/html", PLAIN_HTML),
        (f"{JSON};q=nonsense", PLAIN_HTML),
    ],
)
async def test_the_form_is_the_one_that_the_client_likes_best(accept: str, kind: str) -> None:
    assert preferred(accept) == kind


def test_names_are_compared_in_their_normal_form() -> None:
    assert {normal_name(name) for name in ("Our.Tool", "our_tool", "OUR--tool")} == {"our-tool"}


def test_an_index_that_is_no_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="--package-index"):
        Platform(Settings(data_dir=tmp_path, package_index="somewhere"))
