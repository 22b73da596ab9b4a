"""Inputs by address become local files before predict sees them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import aiohttp
from yarl import URL

from .backoff import Backoff
from .config import Config
from .errors import InputError
from .guard import BlockedAddressError, GuardedResolver, is_ip_address, is_public
from .platform import Platform, describe

MAX_REDIRECTS = 5
AT_A_TIME = 4
TRIES = 3
CHUNK_BYTES = 1 << 20
RETRY_BACKOFF = Backoff(first_seconds=0.2, longest_seconds=2.0)
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
STORAGE_PATH = "/v1/storage/"
NAME_LIMIT_CHARS = 100


class _TransientError(InputError):
    """Worth another try."""


class Downloader:
    """Fetches the files that a payload names. Use inside a running event loop; `close` it."""

    def __init__(self, config: Config, platform: Platform | None) -> None:
        self._config = config
        self._platform = platform
        self._base_url = platform.config.base_url if platform else None
        self._origin = URL(self._base_url).origin() if self._base_url else None
        self._storage_prefix = f"{self._base_url}{STORAGE_PATH}" if self._base_url else None
        # The whole fetch is bounded by `_fetch_one`; a second clock of the same length would go off first at times.
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
        self._guarded = _session(GuardedResolver())
        self._open = _session(None)

    async def close(self) -> None:
        """Close the connections."""
        await self._guarded.close()
        await self._open.close()

    def remote_names(self, payload: Mapping[str, Any]) -> list[str]:
        """Find the top-level values that are addresses of files."""
        return [name for name, value in payload.items() if isinstance(value, str) and self._is_remote(value)]

    async def fetch(self, payload: Mapping[str, Any], directory: Path) -> dict[str, Any]:
        """Give the payload with local paths in place of addresses.

        Args:
            payload: the job's payload.
            directory: an existing, empty directory for the files.

        Raises:
            InputError: one could not be fetched; the text names it.
        """
        limit = asyncio.Semaphore(AT_A_TIME)

        async def one(index: int, name: str) -> tuple[str, str]:
            async with limit:
                place = directory / str(index)
                place.mkdir()
                return name, str(await self._fetch_one(name, payload[name], place))

        tasks = [asyncio.ensure_future(one(i, name)) for i, name in enumerate(self.remote_names(payload))]
        try:
            return {**payload, **dict(await asyncio.gather(*tasks))}
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _is_remote(self, value: str) -> bool:
        if value.startswith("https://"):
            return True
        return self._storage_prefix is not None and value.startswith(self._storage_prefix)

    async def _fetch_one(self, name: str, address: str, place: Path) -> Path:
        failures = 0
        while True:
            try:
                return await asyncio.wait_for(self._follow(address, place), self._config.input_timeout_seconds)
            except _TransientError as error:  # noqa: PERF203 - tries again
                failures += 1
                if failures == TRIES:
                    raise InputError(f"input {name!r}: {error}") from None
                await asyncio.sleep(RETRY_BACKOFF.pause_seconds(failures))
            except asyncio.TimeoutError:
                seconds = f"{self._config.input_timeout_seconds:g} s"
                raise InputError(f"input {name!r}: not fetched within {seconds}") from None
            except InputError as error:
                raise InputError(f"input {name!r}: {error}") from None

    async def _follow(self, address: str, place: Path) -> Path:
        url = _parse(address)
        path = place / safe_name(url.path)
        trusted = False
        for _ in range(MAX_REDIRECTS + 1):
            location = await self._get(url, path, trusted=trusted)
            if location is None:
                return path
            # The platform's storage sends its readers to where the bytes are, which may well be a private place.
            trusted = self._is_storage(url)
            target = _parse(str(url.join(_parse(location, relative=True))))
            if target.scheme != "https" and url.scheme == "https" and not trusted:
                raise InputError(f"{_shown(url)} redirects to an unencrypted address")
            url = target
        raise InputError(f"{_shown(_parse(address))} redirects more than {MAX_REDIRECTS} times")

    async def _get(self, url: URL, path: Path, *, trusted: bool) -> str | None:
        """Fetch into `path`; give the new location instead where there is a redirect."""
        session = self._session_for(url, trusted=trusted)
        headers = {"Accept-Encoding": "identity"}
        if self._platform is not None and self._is_storage(url):
            headers["Authorization"] = f"Bearer {self._platform.config.api_key}"
        try:
            async with session.get(url, headers=headers, timeout=self._timeout, allow_redirects=False) as answer:
                if answer.status in REDIRECT_STATUSES and "Location" in answer.headers:
                    return answer.headers["Location"]
                self._check(url, answer)
                await self._save(answer, url, path)
                return None
        except aiohttp.InvalidURL:
            raise _no_address() from None
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, BlockedAddressError):
                raise _blocked(url) from None
            raise _TransientError(f"{_shown(url)}: {describe(error)}") from None
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            raise _TransientError(f"{_shown(url)}: {describe(error)}") from None

    def _session_for(self, url: URL, *, trusted: bool) -> aiohttp.ClientSession:
        if trusted or self._config.allow_private_downloads or url.origin() == self._origin:
            return self._open
        # The connector takes an IP address as it is, without asking the resolver.
        if is_ip_address(url.host or "") and not is_public(url.host or ""):
            raise _blocked(url)
        return self._guarded

    def _is_storage(self, url: URL) -> bool:
        if self._origin is None or self._base_url is None or url.origin() != self._origin:
            return False
        return url.path.startswith(URL(self._base_url).path.rstrip("/") + STORAGE_PATH) and ".." not in url.parts

    def _check(self, url: URL, answer: aiohttp.ClientResponse) -> None:
        if answer.status >= 500 or answer.status == 429:
            raise _TransientError(f"{_shown(url)} answered {answer.status}")
        if answer.status != 200:
            raise InputError(f"{_shown(url)} answered {answer.status}")
        if (answer.content_length or 0) > self._config.max_input_bytes:
            raise self._too_large(url)

    async def _save(self, answer: aiohttp.ClientResponse, url: URL, path: Path) -> None:
        loop = asyncio.get_running_loop()
        received_bytes = 0
        with path.open("wb") as file:
            async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                received_bytes += len(chunk)
                if received_bytes > self._config.max_input_bytes:
                    raise self._too_large(url)
                await loop.run_in_executor(None, file.write, chunk)

    def _too_large(self, url: URL) -> InputError:
        return InputError(f"{_shown(url)} is larger than {self._config.max_input_bytes} bytes")


def safe_name(url_path: str) -> str:
    """Give a harmless file name for a URL's path: its last part, of letters, digits, dots, dashes and underscores."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", unquote(url_path).rstrip("/").rpartition("/")[2])
    stem, dot, suffix = name.lstrip(".").rpartition(".")
    if not dot:
        return suffix[:NAME_LIMIT_CHARS] or "input"
    return f"{stem[: NAME_LIMIT_CHARS - 16]}.{suffix[:15]}"


def _session(resolver: GuardedResolver | None) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


def _parse(address: str, *, relative: bool = False) -> URL:
    try:
        url = URL(address)
        if relative or (url.host and url.scheme in ("http", "https") and url.port is not None):
            return url
    except ValueError:
        pass
    raise _no_address()


def _shown(url: URL) -> str:
    """The address without its query and credentials: those may be secret."""
    return str(url.origin().with_path(url.path))


def _no_address() -> InputError:
    return InputError("this is no address that can be fetched")


def _blocked(url: URL) -> InputError:
    return InputError(
        f"{_shown(url)} is not on the public internet; inputs are fetched from there or from the platform's storage "
        "(SPROCKET_ALLOW_PRIVATE_DOWNLOADS=1 in the worker's environment lifts this)"
    )
