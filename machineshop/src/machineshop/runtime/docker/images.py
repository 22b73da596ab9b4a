"""Images in the engine: found by their reference, pulled where they are not there, and pinned by digest.

The policy is one for all references: what the engine has is used, what it lacks is pulled. A tag that has moved at a
registry is therefore not noticed; whoever wants the newer image names its digest, or pulls it.

The engine is one for all projects. So what it has is used under the name that it has there alone, and what was pulled
for a project from the platform's registry is used by leave of that registry alone.
"""

import base64
import contextlib
import json
import logging
import time
from typing import Any

import msgspec

from machineshop.errors import ArtifactMissing, InvalidRequest, MachineshopError
from machineshop.runtime.base import ImageSource, PullGrant
from machineshop.runtime.docker.api import EngineApi, EngineAway, EngineError
from machineshop.runtime.docker.names import DEFAULT_TAG, has_digest, is_nameless, is_tagged, split
from machineshop.runtime.docker.pulled import PulledImages
from machineshop.runtime.docker.pulls import Pull, Pulls
from machineshop.runtime.engine import PreparationFailed

TOKEN_USER = "machineshop"  # noqa: S105 - no secret
LONGEST_WORDS = 400
"""Characters of the engine's own words in a message."""
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i386": "386", "i686": "386"}

logger = logging.getLogger(__name__)


class Image(msgspec.Struct, frozen=True):
    """An image in the engine."""

    id: str
    """`sha256:` and the digest of its configuration: what a container is made from, whatever tags do meanwhile."""
    architecture: str = ""
    has_command: bool = True
    stop_signal: str = ""
    read_only_root: bool = False
    """Its label says that it writes nothing outside of /tmp and its volumes."""


READ_ONLY_LABEL = "machineshop.read-only-root"


class Images:
    """The engine's images.

    Args:
        api: The engine.
        source: The platform's registry, which says what is its own and lets the engine pull it.
        pulled: Remembers what was pulled from there.
    """

    def __init__(self, api: EngineApi, source: ImageSource, pulled: PulledImages) -> None:
        self._api, self._source, self._pulled = api, source, pulled
        self._pulls = Pulls()

    def doing(self, project_id: str, reference: str) -> str:
        """What `fetch` does for this image just now, in a sentence."""
        return str(self._pulls.of(project_id, reference) or "Its image is being looked for.")

    async def fetch(self, project_id: str, reference: str) -> Image:
        """Get an image: the engine's own, or pulled.

        Raises:
            PreparationFailed: It is nowhere, or cannot be pulled; the message says why.
        """
        grant = await self._grant(project_id, reference)
        wanted = reference if grant is None else grant.reference
        try:
            found = await self.find(wanted, granted=grant is not None)
            if found is not None:
                self._pulled.used(wanted, time.time())
            else:
                if grant is not None:
                    self._pulled.pulling(wanted, time.time())
                elif self._pulled.has(wanted):
                    # An engine that has all parts of an image takes it from there, and asks its registry nothing.
                    raise why_not_pulled(reference, "not found: it is not this project's")
                with self._pulls.begun(project_id, reference) as pull:
                    await self._pull(wanted, grant, pull)
                found = await self.find(wanted, granted=True)
        except EngineAway as error:
            raise PreparationFailed("ErrImagePull", f"The image cannot be pulled: {error}.") from error
        except EngineError as error:
            raise why_not_pulled(reference, error.message) from error
        if found is None:
            raise why_not_pulled(reference, "the engine has pulled it and does not know it")
        return found

    async def find(self, reference: str, *, granted: bool = False) -> Image | None:
        """The engine's image of this reference; None where it has none, or none that may be used for it.

        Args:
            reference: Which.
            granted: Whether it has just been pulled, or the platform's registry gives leave to.
        """
        name, tag, digest = split(reference)
        about = await self._inspect(f"{name}@{digest}" if digest else f"{name}:{tag or DEFAULT_TAG}")
        if about is not None:
            by_leave = has_digest(about, name) and (granted or not self._pulled.has(reference))
            if by_leave or is_tagged(about, name) or is_nameless(about):
                return _image(about)
        if digest is None or granted:
            return None
        # An image that was built here and never pushed has no other digest than that of its configuration; and by that
        # one an engine finds any image that it has, also those that it has for others.
        about = await self._inspect(digest)
        return _image(about) if about is not None and (is_tagged(about, name) or is_nameless(about)) else None

    async def pin(self, reference: str) -> str:
        """The same reference with the digest of what it means now; as it is where the engine does not have it."""
        name, tag, digest = split(reference)
        if digest is not None:
            return reference
        try:
            about = await self._inspect(f"{name}:{tag or DEFAULT_TAG}")
        except (EngineError, EngineAway):
            return reference
        if about is None or not is_tagged(about, name):
            return reference
        prefix = f"{name.removeprefix('docker.io/').removeprefix('library/')}@"
        pushed = (known.removeprefix(prefix) for known in about.get("RepoDigests") or () if known.startswith(prefix))
        return f"{reference}@{next(pushed, about['Id'])}"

    async def _grant(self, project_id: str, reference: str) -> PullGrant | None:
        try:
            return await self._source.grant_pull(project_id, reference)
        except (ArtifactMissing, InvalidRequest) as error:
            raise PreparationFailed("ErrImagePull", error.message, final=True) from error
        except MachineshopError as error:
            raise PreparationFailed("ErrImagePull", error.message) from error

    async def _inspect(self, name: str) -> dict[str, Any] | None:
        """What the engine says of an image; None where it has none."""
        try:
            about: dict[str, Any] = await self._api.get(f"/images/{name}/json")
        except EngineError as error:
            if error.status == 404:
                return None
            raise
        return about

    async def _pull(self, reference: str, grant: PullGrant | None, pull: Pull) -> None:
        name, tag, digest = split(reference)
        logger.info("image pulled: reference=%s", reference)
        if await self._api.is_podman():
            # Docker takes what speaks HTTP on the loopback for safe by itself; Podman is to be told, by its own API.
            path = "/libpod/images/pull"
            asked: dict[str, object] = {
                "reference": f"{name}@{digest}" if digest else f"{name}:{tag or DEFAULT_TAG}",
                "tlsVerify": False if grant is not None and name.startswith("127.") else None,
            }
        else:
            path, asked = "/images/create", {"fromImage": name, "tag": digest or tag or DEFAULT_TAG}
        progress = self._api.progress(path, credentials(grant), **asked)
        async with contextlib.aclosing(progress):
            async for step in progress:
                if error := step.get("error") or (step.get("errorDetail") or {}).get("message"):
                    raise EngineError(500, str(error))
                pull.heard(step)


def architecture(machine: str) -> str:
    """A machine's architecture in the words of images."""
    return ARCHITECTURES.get(machine, machine)


def why_not_pulled(reference: str, words: str) -> PreparationFailed:
    """What the engine's words about a pull mean, and the mend."""
    lower, quoted, final = words.lower(), words[:LONGEST_WORDS], True
    if "no matching manifest" in lower or "no image found in manifest list" in lower:
        why = f"There is no image of '{reference}' for this machine's architecture ({quoted}). Build it for this one."
    elif "no space left" in lower:
        final = False
        why = f"The engine's disk is full, so '{reference}' cannot be pulled. Free some space: docker system prune."
    elif any(sign in lower for sign in ("not found", "manifest unknown", "no such image", "name unknown")):
        why = f"There is no image '{reference}' ({quoted}). Correct the name, build it on this machine, or push it."
    elif any(sign in lower for sign in ("unauthorized", "denied", "authentication required", "forbidden")):
        why = (
            f"The image '{reference}' is not there, or not public ({quoted}). Push it to this platform's registry, or "
            "pull it on this machine with a login of yours: what the engine has is used as it is."
        )
    elif any(sign in lower for sign in ("no such host", "connection refused", "timeout", "i/o", "dial tcp", "lookup")):
        final = False
        why = f"The registry of '{reference}' cannot be reached from this machine ({quoted}). It is tried again."
    else:
        final = False
        why = f"The image '{reference}' cannot be pulled: {quoted}."
    return PreparationFailed("ErrImagePull", why, final=final)


def credentials(grant: PullGrant | None) -> dict[str, str]:
    """The header with which an engine pulls what it is allowed to."""
    if grant is None or grant.credential is None:
        return {}
    said = {"serveraddress": grant.reference.partition("/")[0]}
    if isinstance(grant.credential, str):  # as a password, which all engines know
        said |= {"username": TOKEN_USER, "password": grant.credential}
    else:
        said |= {"username": grant.credential.user, "password": grant.credential.password}
    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(said).encode()).decode()}


def _image(about: dict[str, Any]) -> Image:
    config = about.get("Config") or {}
    return Image(
        id=about["Id"],
        architecture=about.get("Architecture") or "",
        has_command=bool(config.get("Entrypoint") or config.get("Cmd")),
        stop_signal=config.get("StopSignal") or "",
        read_only_root=(config.get("Labels") or {}).get(READ_ONLY_LABEL, "").lower() == "true",
    )
