"""From an address to a file: which addresses may be asked, along which redirects, and with which key."""

from __future__ import annotations

import asyncio

import aiohttp
from yarl import URL

from .config import Config
from .errors import InputError
from .guard import BlockedAddressError, GuardedResolver, is_ip_address, is_public
from .partial import PartialFile, TransientError
from .platform import Platform, describe

MAX_REDIRECTS = 5
CHUNK_BYTES = 1 << 20
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
RANGE_NOT_SATISFIABLE = 416
STORAGE_PATH = "/v1/storage/"

TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
"""A server that says nothing for so long is given up, and asked again. `Downloader` knows how long all may take."""


class Fetcher:
    """Asks servers for files. Use inside a running event loop; `close` it."""

    def __init__(self, config: Config, platform: Platform | None) -> None:
        self._allow_private = config.allow_private_downloads
        self._platform = platform
        self._base_url = platform.config.base_url if platform else None
        self._beginnings = ("https://", *([f"{self._base_url}{STORAGE_PATH}"] if platform else []))
        self._origin = URL(self._base_url).origin() if self._base_url else None
        self._guarded = _session(GuardedResolver())
        self._open = _session(None)

    async def close(self) -> None:
        """Close the connections."""
        await self._guarded.close()
        await self._open.close()

    def is_address(self, value: str) -> bool:
        """Whether a text of the payload names a file."""
        return value.startswith(self._beginnings)

    async def fetch(self, address: str, file: PartialFile) -> URL:
        """Try once to get a file, or the rest of it.

        Returns:
            Where it lay in the end.

        Raises:
            TransientError: what came is kept; another try may bring the rest.
            InputError: it cannot be had.
            OSError: it cannot be written.
        """
        url = parse(address)
        trusted = False
        for _ in range(MAX_REDIRECTS + 1):
            location = await self._get(url, file, trusted=trusted)
            if location is None:
                return url
            # The platform's storage sends its readers to where the bytes are, which may well be a private place.
            trusted = self._is_storage(url)
            target = parse(str(url.join(parse(location, relative=True))))
            if target.scheme != "https" and url.scheme == "https" and not trusted:
                raise InputError(f"{shown(url)} redirects to an unencrypted address")
            url = target
        raise InputError(f"{shown(parse(address))} redirects more than {MAX_REDIRECTS} times")

    async def _get(self, url: URL, file: PartialFile, *, trusted: bool) -> str | None:
        """Fetch into `file`; give the new location instead where there is a redirect."""
        session = self._session_for(url, trusted=trusted)
        headers = {"Accept-Encoding": "identity", **file.wish()}
        if self._platform is not None and self._is_storage(url):
            url = url.with_user(None)
            headers["Authorization"] = f"Bearer {self._platform.config.api_key}"
        try:
            async with session.get(url, headers=headers, timeout=TIMEOUT, allow_redirects=False) as answer:
                if answer.status in REDIRECT_STATUSES and "Location" in answer.headers:
                    return answer.headers["Location"]
                await _take(answer, url, file)
                return None
        except aiohttp.InvalidURL:
            raise _no_address() from None
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, BlockedAddressError):
                raise _blocked(url) from None
            raise TransientError(f"{shown(url)}: {describe(error)}") from None
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            raise TransientError(f"{shown(url)}: {describe(error)}") from None

    def _session_for(self, url: URL, *, trusted: bool) -> aiohttp.ClientSession:
        if trusted or self._allow_private or url.origin() == self._origin:
            return self._open
        # The connector takes an IP address as it is, without asking the resolver.
        if is_ip_address(url.host or "") and not is_public(url.host or ""):
            raise _blocked(url)
        return self._guarded

    def _is_storage(self, url: URL) -> bool:
        if self._origin is None or self._base_url is None or url.origin() != self._origin:
            return False
        return url.path.startswith(URL(self._base_url).path.rstrip("/") + STORAGE_PATH) and ".." not in url.parts


async def _take(answer: aiohttp.ClientResponse, url: URL, file: PartialFile) -> None:
    if answer.status == RANGE_NOT_SATISFIABLE and file.wish():
        file.restart()
        raise TransientError(f"{shown(url)} has become shorter while it was fetched")
    if answer.status >= 500 or answer.status == 429:
        raise TransientError(f"{shown(url)} answered {answer.status}")
    if answer.status != 200 and not (answer.status == 206 and file.wish()):
        raise InputError(f"{shown(url)} answered {answer.status}")
    try:
        file.begin(answer.status, answer.headers)
        await file.take(answer.content.iter_chunked(CHUNK_BYTES))
        file.check_whole()
    except InputError as error:
        raise type(error)(f"{shown(url)}: {error}") from None


def parse(address: str, *, relative: bool = False) -> URL:
    """Read an address.

    Raises:
        InputError: it is none.
    """
    try:
        url = URL(address)
        if relative or (url.host and url.scheme in ("http", "https") and url.port is not None):
            return url
    except ValueError:
        pass
    raise _no_address()


def shown(url: URL) -> str:
    """The address without its query and credentials: those may be secret."""
    return str(url.origin().with_path(url.path))


def _session(resolver: GuardedResolver | None) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False)
    # Compression is undone by us, within limits.
    return aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, read_bufsize=CHUNK_BYTES
    )


def _no_address() -> InputError:
    return InputError("this is no address that can be fetched")


def _blocked(url: URL) -> InputError:
    return InputError(
        f"{shown(url)} is not on the public internet; inputs are fetched from there or from the platform's storage "
        "(SPROCKET_ALLOW_PRIVATE_DOWNLOADS=1 in the worker's environment lifts this)"
    )
