"""`jig doctor`: looks at what a deploy needs, in the order in which it would stumble, and names the mend."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from uv import find_uv_bin

from jig.client import Client
from jig.contexts import contexts_path
from jig.errors import DoctorError, JigError, PlatformError
from jig.image.builders import BUILDERS
from jig.image.find import version_of
from jig.image.prepare import dockerfile_path, has_own_dockerfile
from jig.options import PROJECT_DEFAULTS, ProjectGlobals
from jig.output import has_colour, paint
from jig.registry import find_repository, reaching
from jig.rights import NO_CHANGES
from jig.session import Session

OK, NOTE, MISSING = "ok", "note", "missing"
COLOURS = {OK: "green", NOTE: "yellow", MISSING: "red"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        name: of the thing.
        state: ok, note (a deploy works without it) or missing (it does not).
        detail: what is there, or what is not.
        mend: what to do about it; empty where nothing need be done.
    """

    name: str
    state: str
    detail: str
    mend: str = ""


def doctor(*, options: ProjectGlobals = PROJECT_DEFAULTS) -> None:
    """Check what a deploy needs, and name the mend for what is missing."""
    session = Session(options)
    findings = list(examine(session))
    missing = [finding.name for finding in findings if finding.state == MISSING]
    document: dict[str, object] = {"findings": [vars(finding) for finding in findings]}
    if missing and session.output.json:
        raise DoctorError(f"Missing: {', '.join(missing)}.", details=document)
    session.output.result(document, "\n".join(line for finding in findings for line in lines_of(finding)))
    if missing:
        raise DoctorError(f"Missing: {', '.join(missing)}.")


def examine(session: Session) -> Iterator[Finding]:
    """All findings."""
    yield from of_config(session)
    yield uv()
    runtime: Mapping[str, Any] = {}
    for finding, answer in of_platform(session):
        yield finding
        runtime = answer or runtime
    yield builder(runtime)


def of_config(session: Session) -> Iterator[Finding]:
    """The config, and whose Dockerfile there is."""
    try:
        config = session.config
        yield Finding("config", OK, f"{config.path}, deploys {config.name}")
        if has_own_dockerfile(config):
            yield Finding("dockerfile", NOTE, f"{dockerfile_path(config)} is your own: jig builds with it as it is")
    except JigError as error:
        yield Finding("config", MISSING, error.message, error.hint or "")


def uv() -> Finding:
    """What pins the requirements."""
    try:
        return Finding("uv", OK, str(find_uv_bin()))
    except FileNotFoundError:
        return Finding("uv", MISSING, "not found; it pins the requirements", "pip install uv")


def of_platform(session: Session) -> Iterator[tuple[Finding, Mapping[str, Any] | None]]:
    """The platform, the key, the runtime and the registry; what comes after a missing one is not looked at."""
    try:
        target = session.target
        anonymous = Client(target)
        version = anonymous.get("/health").get("version") or "unknown"
        yield Finding("platform", OK, f"{target.base_url}, version {version}, from {target.source}"), None
    except JigError as error:
        yield Finding("platform", MISSING, error.message, error.hint or ""), None
        return
    try:
        client = session.client
        identity = client.get("/v3/whoami")
        scope = (identity.get("api_key") or {}).get("scope") or "unknown"
        project = (identity.get("project") or {}).get("name") or "-"
        yield key_finding(str(scope), str(project)), None
    except JigError as error:
        yield Finding("key", MISSING, error.message, error.hint or f"See {contexts_path(os.environ)}."), None
        return
    yield runtime_of(client)
    yield registry(session, client, may_push=scope not in NO_CHANGES), None


def key_finding(scope: str, project: str) -> Finding:
    """A key that can only look, or only work a queue, deploys nothing."""
    mend = "Log in with `jig auth login` and a key of scope developer or admin."
    if scope == "worker":
        return Finding("key", MISSING, "a replica's own: it can only work a queue", mend)
    if scope == "viewer":
        return Finding("key", MISSING, f"of project {project}, scope viewer: it can only look", mend)
    return Finding("key", OK, f"of project {project}, scope {scope}")


def runtime_of(client: Client) -> tuple[Finding, Mapping[str, Any] | None]:
    """What the platform runs."""
    try:
        runtime: Mapping[str, Any] = client.get("/v1/runtime")
    except PlatformError as error:
        return Finding("runtime", NOTE, f"unknown: {error.message}", "It is taken to run images."), {}
    accepts = " and ".join(f"{kind}s" for kind in runtime.get("accepts") or []) or "nothing"
    gpus = runtime.get("gpus") or 0
    return Finding("runtime", OK, f"{runtime.get('runtime')}, runs {accepts}; {gpus or 'no'} GPUs"), runtime


def registry(session: Session, client: Client, *, may_push: bool) -> Finding:
    """The registry, with the key as its password, which builders log in with; or with the user's own login there."""
    try:
        repository = find_repository(client, "doctor")
        if repository.is_outside:
            with reaching(client, repository) as outside:
                outside.request("GET", f"{repository.url}/v2/")
            return Finding("registry", OK, f"{repository.host}, which others run, takes your login")
        name_and_key = ("user", session.target.api_key or "")
        client.request("GET", f"{repository.url}/v2/", auth=name_and_key)
    except JigError as error:
        return Finding("registry", MISSING, error.message, error.hint or "Check the platform's --public-url.")
    if not may_push:
        return Finding("registry", NOTE, f"{repository.host} takes the key, and lets it pull alone")
    return Finding("registry", OK, f"{repository.host} takes the key")


def builder(runtime: Mapping[str, Any]) -> Finding:
    """What builds images, where any are built."""
    found = {name: version for name, each in BUILDERS.items() if (version := version_of(each)) is not None}
    if found:
        best = next(iter(found))
        others = f"; also {', '.join(name for name in found if name != best)}" if len(found) > 1 else ""
        return Finding("builder", OK, f"{best} ({found[best].splitlines()[0] if found[best] else 'works'}){others}")
    needed = "bundle" not in (runtime.get("accepts") or ["image"])
    mend = "Install docker, podman or buildah; of docker, see that its engine runs and your user may use it."
    return Finding("builder", MISSING if needed else NOTE, "nothing here can build images", mend)


def lines_of(finding: Finding) -> list[str]:
    """A finding for people."""
    state = paint(f"{finding.state:<8}", COLOURS[finding.state], enabled=has_colour(sys.stdout, os.environ))
    lines = [f"{finding.name:<11} {state} {finding.detail}"]
    return lines + [f"{'':<20} {line}" for line in finding.mend.splitlines()]
