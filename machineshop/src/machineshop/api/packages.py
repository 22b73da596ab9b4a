"""The package index: `/simple/` in HTML and JSON (PEP 503, 691, 658), and the wheels.

Anybody may read it: it holds the same free software for everyone and nothing of a project's, and an installer that
builds an image should not need a key, which would stay behind in a layer.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from machineshop.errors import MachineshopError, NotFound
from machineshop.http import error_response
from machineshop.services.packages import PackageIndex, Wheel, normal_name

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "application/vnd.pypi.simple.v1+html"
PLAIN_HTML = "text/html"
LATEST = {"application/vnd.pypi.simple.latest+json": JSON, "application/vnd.pypi.simple.latest+html": HTML}
API_VERSION = "1.1"
# A page says what there is now; a file's URL holds its digest.
PAGE_HEADERS = {"Cache-Control": "no-cache", "Vary": "Accept"}
FILE_HEADERS = {"Cache-Control": "public, max-age=31536000, immutable"}
METADATA_SUFFIX = ".metadata"


def routes(index: PackageIndex) -> list[Route]:
    """All routes of this module."""
    pages = PackagePages(index)
    return [
        Route("/simple/", pages.projects, methods=["GET"]),
        Route("/simple/{project}/", pages.files, methods=["GET"]),
        Route("/packages/{sha256}/{filename}", pages.file, methods=["GET"]),
    ]


class PackagePages:
    """The handlers."""

    def __init__(self, index: PackageIndex) -> None:
        self._index = index

    async def projects(self, request: Request) -> Response:
        """Which packages there are."""
        names = self._index.projects
        document = {"projects": [{"name": name} for name in names]}
        return page(request, "Packages", document, [link(f"{name}/", name) for name in names])

    async def files(self, request: Request) -> Response:
        """The files of one package; what is not ours is at the other index, if there is one."""
        name = normal_name(request.path_params["project"])
        wheels = self._index.files(name)
        if not wheels and self._index.elsewhere:
            return RedirectResponse(f"{self._index.elsewhere}/{name}/", 302)
        if not wheels:
            return error_response(NotFound(what="package", id=name[:256], where=""))
        document = {
            "name": name,
            "versions": sorted({wheel.version for wheel in wheels}),
            "files": [file_entry(wheel) for wheel in wheels],
        }
        return page(request, f"Files of {name}", document, [file_link(wheel) for wheel in wheels])

    async def file(self, request: Request) -> Response:
        """A wheel, or its metadata alone."""
        filename = request.path_params["filename"]
        try:
            wheel = self._index.file(request.path_params["sha256"], filename.removesuffix(METADATA_SUFFIX))
        except MachineshopError as error:
            return error_response(error)
        is_metadata = filename.endswith(METADATA_SUFFIX)
        content, kind = (wheel.metadata, "text/plain") if is_metadata else (wheel.content, "application/zip")
        return Response(content, headers=FILE_HEADERS, media_type=kind)


def page(request: Request, title: str, document: dict[str, Any], links: Sequence[str]) -> Response:
    """One page, in the form that the client likes best."""
    kind = preferred(request.headers.get("accept", ""))
    headers = {**PAGE_HEADERS, "Content-Type": kind}
    if kind == JSON:
        return Response(msgspec.json.encode({"meta": {"api-version": API_VERSION}, **document}), headers=headers)
    head = f'<head><meta name="pypi:repository-version" content="{API_VERSION}"><title>{escape(title)}</title></head>'
    body = "".join(f"{each}<br>\n" for each in links)
    return Response(f"<!DOCTYPE html>\n<html>{head}<body>\n{body}</body></html>\n", headers=headers)


def preferred(accept: str) -> str:
    """The form that an Accept header wants most; HTML where it says nothing that we know."""
    best, best_quality = PLAIN_HTML, 0.0
    for entry in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in entry.split(";"))
        kind = LATEST.get(kind, kind)
        quality = next((quality_of(each) for each in parameters if each.startswith("q=")), 1.0)
        if kind in (JSON, HTML, PLAIN_HTML) and quality > best_quality:
            best, best_quality = kind, quality
    return best


def quality_of(parameter: str) -> float:
    """The number of `q=0.5`; 0 where it is none."""
    try:
        return float(parameter.removeprefix("q="))
    except ValueError:
        return 0.0


def file_url(wheel: Wheel) -> str:
    """Where a file is, seen from its package's page: so it holds behind any proxy."""
    return f"../../packages/{wheel.sha256}/{wheel.filename}"


def file_entry(wheel: Wheel) -> dict[str, Any]:
    """A file in JSON."""
    metadata = {"sha256": wheel.metadata_sha256}
    entry = {
        "filename": wheel.filename,
        "url": file_url(wheel),
        "hashes": {"sha256": wheel.sha256},
        "size": len(wheel.content),
        "core-metadata": metadata,
        "dist-info-metadata": metadata,
    }
    return entry | ({"requires-python": wheel.requires_python} if wheel.requires_python else {})


def file_link(wheel: Wheel) -> str:
    """A file in HTML."""
    metadata = f"sha256={wheel.metadata_sha256}"
    attributes = {"data-core-metadata": metadata, "data-dist-info-metadata": metadata}
    if wheel.requires_python:
        attributes["data-requires-python"] = wheel.requires_python
    return link(f"{file_url(wheel)}#sha256={wheel.sha256}", wheel.filename, attributes)


def link(url: str, text: str, attributes: dict[str, str] | None = None) -> str:
    """An anchor."""
    more = "".join(f' {name}="{escape(value)}"' for name, value in (attributes or {}).items())
    return f'<a href="{escape(url)}"{more}>{escape(text)}</a>'
