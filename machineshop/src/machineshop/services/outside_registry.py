"""A registry elsewhere in the place of ours: what deployments want of it, over the OCI distribution API."""

import asyncio
import base64
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from machineshop.blobs.layout import algorithm_of
from machineshop.config import RegistryLogin
from machineshop.errors import ArtifactMissing, RegistryAway
from machineshop.runtime.base import ArtifactKind, Bundle, PullGrant
from machineshop.services.artifacts import DEFAULT_TAG, Located, bundle_parts, kind_of, not_accepted
from machineshop.services.manifests import (
    IMAGES,
    INDEXES,
    Descriptor,
    ManifestContent,
    digest_of,
    parse_manifest,
)
from machineshop.services.references import Reference
from machineshop.services.registry_errors import ManifestInvalid
from machineshop.store import identities
from machineshop.store.database import Database

log = logging.getLogger(__name__)
T = TypeVar("T")

# A registry that checks a layer, or wakes its storage, takes a while; one that says nothing for so long is away.
TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10, sock_read=60)
CHUNK_BYTES = 1024 * 1024
# As large as ours may be.
MANIFEST_LIMIT_BYTES = 4 * 1024 * 1024
TOKEN_LIMIT_BYTES = 1024 * 1024
TAGS_LIMIT_BYTES = 4 * 1024 * 1024
SMALL_SECONDS = 60.0
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class OutsideRegistry:
    """An OCI registry that others run. Each organization has its namespace below the URL's path, and no other.

    Args:
        url: `https://host/path`.
        login: None: anonymously.
        database: Knows whose project is which.
    """

    def __init__(self, url: str, login: RegistryLogin | None, database: Database) -> None:
        parts = urlsplit(url)
        self.host = parts.netloc.lower()
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._path = parts.path.strip("/")
        self._login = login
        self._database = database
        self._opened: aiohttp.ClientSession | None = None

    def base_path(self, slug: str) -> str:
        """Where an organization's images go."""
        return f"{self._origin}/{self._namespace(slug)}".rstrip("/")

    def has(self, reference: Reference) -> bool:
        """Whether a reference is of this registry, in whoever's namespace; other paths there are not ours."""
        host = (reference.registry or "").lower()
        return host == self.host and (not self._path or reference.name.startswith(f"{self._path}/"))

    async def not_there(self, project_id: str, reference: Reference) -> ArtifactMissing:
        """The error for a reference that is of another namespace or registry; it says which is right."""
        _, organization = await self._database.read(identities.get_project, project_id)
        return ArtifactMissing(
            f"'{reference}' is not in the registry of this platform's images, which is "
            f"{self.host}/{self._namespace(organization.slug)}/: push it there, as 'jig deploy' does."
        )

    async def locate(self, project_id: str, reference: Reference) -> Located:
        """Which artifact a reference means now.

        Raises:
            ArtifactMissing: There is none, or it is another organization's.
            RegistryAway: The registry does not answer, or refuses us.
        """
        await self._check(project_id, reference)
        digest, fields = await self._manifest(reference)
        return Located(kind_of(fields), reference.name, digest)

    async def grant_pull(self, project_id: str, reference: Reference) -> PullGrant:
        """Leave for an engine to pull, with the platform's login. What is pinned is not looked up again.

        Raises:
            ArtifactMissing: There is none, or it is another organization's.
            RegistryAway: The registry does not answer, or refuses us.
        """
        await self._check(project_id, reference)
        digest = reference.digest or (await self._manifest(reference))[0]
        return PullGrant(reference.pinned(self.host, digest), self._login)

    async def open_bundle(self, project_id: str, reference: Reference) -> Bundle:
        """See `BundleSource`."""
        await self._check(project_id, reference)
        digest, fields = await self._manifest(reference)
        if kind_of(fields) is not ArtifactKind.BUNDLE:
            raise not_accepted(str(reference), ArtifactKind.IMAGE)
        config, layer = bundle_parts(str(reference), fields)
        config_bytes = b"".join([chunk async for chunk in self._blob(reference, config)])
        return Bundle(digest, config_bytes, self._blob(reference, layer))

    async def tags(self, slug: str, name: str) -> list[str]:
        """The tags of a repository in an organization's namespace.

        Raises:
            ArtifactMissing: There is none.
        """
        reference = Reference(self.host, f"{self._namespace(slug)}/{name}")
        answer = await self._whole(self._get(reference, "tags/list"), TAGS_LIMIT_BYTES)
        return self._decoded(answer, _TAGS).tags or []

    async def close(self) -> None:
        """Close its connections."""
        if self._opened is not None:
            await self._opened.close()

    def _namespace(self, slug: str) -> str:
        return f"{self._path}/{slug}".lstrip("/")

    async def _check(self, project_id: str, reference: Reference) -> None:
        """Keep to the organization's own namespace: the login reaches those of others too.

        Raises:
            ArtifactMissing: The reference is of another one, or of another registry.
        """
        _, organization = await self._database.read(identities.get_project, project_id)
        if not self.has(reference) or not reference.name.startswith(f"{self._namespace(organization.slug)}/"):
            raise await self.not_there(project_id, reference)

    async def _manifest(self, reference: Reference) -> tuple[str, ManifestContent]:
        """A manifest with its digest, which is made of its bytes, whatever the registry says."""
        wanted = reference.digest or reference.tag or DEFAULT_TAG
        accepted = {"Accept": ", ".join(sorted(IMAGES | INDEXES))}
        content = await self._whole(self._get(reference, f"manifests/{wanted}", accepted), MANIFEST_LIMIT_BYTES)
        digest = digest_of(content, algorithm_of(reference.digest) if reference.digest else "sha256")
        if reference.digest not in (None, digest):
            raise ArtifactMissing(f"The registry {self.host} has something else under '{reference}'.")
        try:
            return digest, parse_manifest(content)
        except ManifestInvalid:
            raise ArtifactMissing(f"What the registry has under '{reference}' is no manifest.") from None

    async def _blob(self, reference: Reference, wanted: Descriptor) -> AsyncIterator[bytes]:
        """A blob's chunks; the end comes only if they have the digest."""
        hasher, left = hashlib.new(algorithm_of(wanted.digest)), wanted.size
        async with self._get(reference, f"blobs/{wanted.digest}") as answer:
            async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                left -= len(chunk)
                if left < 0:
                    break
                await asyncio.to_thread(hasher.update, chunk)
                yield chunk
        if left != 0 or f"{hasher.name}:{hasher.hexdigest()}" != wanted.digest:
            raise ArtifactMissing(
                f"The part {wanted.digest} of '{reference}' is damaged in the registry: push it again."
            )

    @asynccontextmanager
    async def _get(
        self, reference: Reference, path: str, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a GET in a repository, after a login where one is asked for."""
        url = f"{self._origin}/v2/{reference.name}/{path}"
        sent = dict(headers or {})
        try:
            session = self._session()
            async with session.get(url, headers=sent) as answer:
                if answer.status != 401:
                    self._check_status(answer, reference)
                    yield answer
                    return
                challenge = answer.headers.get("WWW-Authenticate", "")
            sent["Authorization"] = await self._authorization(challenge)
            async with session.get(url, headers=sent) as answer:
                self._check_status(answer, reference)
                yield answer
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("registry.away host=%s cause=%r", self.host, error)
            raise RegistryAway(f"The registry {self.host} does not answer: try again.") from error

    def _check_status(self, answer: aiohttp.ClientResponse, reference: Reference) -> None:
        if answer.status == 404:
            raise ArtifactMissing(f"There is no '{reference}' in this registry: push it first, or correct the name.")
        if answer.status in {401, 403}:
            log.warning("registry.refused host=%s name=%s status=%d", self.host, reference.name, answer.status)
            raise RegistryAway(
                f"The registry {self.host} does not let the platform read '{reference}': whoever runs the platform "
                "sets MACHINESHOP_REGISTRY_USER and MACHINESHOP_REGISTRY_PASSWORD."
            )
        if answer.status != 200:
            log.warning("registry.failed host=%s name=%s status=%d", self.host, reference.name, answer.status)
            raise RegistryAway(f"The registry {self.host} answered {answer.status} for '{reference}': try again.")

    async def _authorization(self, challenge: str) -> str:
        """What to show for a challenge: the login itself, or a token that it gets us."""
        basic = None if self._login is None else _basic(self._login)
        kind, _, rest = challenge.partition(" ")
        if kind.lower() != "bearer":
            return basic or ""
        facts = dict(_CHALLENGE.findall(rest))
        realm = urlsplit(facts.get("realm", ""))
        if realm.scheme not in {"http", "https"} or (basic and realm.scheme == "http" != urlsplit(self._origin).scheme):
            raise RegistryAway(f"The registry {self.host} asks for a login at no address that is safe.")
        params = {name: facts[name] for name in ("service", "scope") if name in facts}
        headers = {} if basic is None else {"Authorization": basic}
        async with self._session().get(realm.geturl(), params=params, headers=headers) as answer:
            if answer.status != 200:
                return basic or ""  # the registry says what is the matter
            found = self._decoded(await _content(answer, TOKEN_LIMIT_BYTES), _TOKEN)
        return f"Bearer {found.token or found.access_token}"

    async def _whole(self, asked: AbstractAsyncContextManager[aiohttp.ClientResponse], limit_bytes: int) -> bytes:
        """A small answer, in time however slowly it comes."""
        try:
            async with asyncio.timeout(SMALL_SECONDS), asked as answer:
                return await _content(answer, limit_bytes)
        except TimeoutError as error:
            raise RegistryAway(f"The registry {self.host} does not answer in time: try again.") from error

    def _decoded(self, content: bytes, decoder: "msgspec.json.Decoder[T]") -> T:
        try:
            return decoder.decode(content)
        except msgspec.MsgspecError as error:
            raise RegistryAway(f"What {self.host} answers makes no sense: is it a registry?") from error

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            self._opened = aiohttp.ClientSession(timeout=TIMEOUT, auto_decompress=False, trust_env=True)
        return self._opened


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


_TOKEN = msgspec.json.Decoder(_Token)
_TAGS = msgspec.json.Decoder(_Tags)


def _basic(login: RegistryLogin) -> str:
    return "Basic " + base64.b64encode(f"{login.user}:{login.password}".encode()).decode()


async def _content(answer: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    parts, size = [], 0
    async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
        size += len(chunk)
        if size > limit_bytes:
            raise ArtifactMissing(f"What the registry answered has more than {limit_bytes} bytes.")
        parts.append(chunk)
    return b"".join(parts)
