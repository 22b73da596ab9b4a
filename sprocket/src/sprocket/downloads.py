"""Inputs by address become local files before predict sees them: all of a job's, within its limits."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from yarl import URL

from .addresses import InputFile, files_in, with_paths
from .backoff import Backoff
from .config import Config
from .errors import InputError
from .fetching import Fetcher, parse
from .partial import Budget, PartialFile, TransientError
from .platform import Platform
from .response import FileResponse
from .timeouts import timeout

AT_A_TIME = 4
TRIES = 3
"""In a row; one that brought more of the file is the first of a new row."""
RETRY_BACKOFF = Backoff(first_seconds=0.2, longest_seconds=2.0)
MAX_INPUTS = 1000
"""Files of one job: a list of more is a payload gone wrong, or somebody who wants to see us busy."""
NAME_LIMIT_CHARS = 100
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Downloader:
    """Fetches the files that payloads name. Use inside a running event loop; `close` it."""

    def __init__(
        self,
        config: Config,
        platform: Platform | None,
        *,
        nested: bool = False,
        process: Callable[[FileResponse, Path], Awaitable[None]] | None = None,
    ) -> None:
        self._config = config
        self._nested = nested
        self._process = process
        self._fetcher = Fetcher(config, platform)

    async def close(self) -> None:
        """Close the connections."""
        await self._fetcher.close()

    def files_in(self, payload: Mapping[str, Any]) -> list[InputFile]:
        """Find the values that are addresses of files."""
        return files_in(payload, self._fetcher.is_address, nested=self._nested)

    async def fetch(self, payload: Mapping[str, Any], directory: Path) -> dict[str, Any]:
        """Give the payload with local paths in place of addresses.

        Args:
            payload: the job's payload.
            directory: an existing, empty directory for the files.

        Raises:
            InputError: one could not be fetched; the text names it.
            Exception: whatever `process` raised.
        """
        files = self.files_in(payload)
        if len(files) > MAX_INPUTS:
            raise InputError(f"the payload names {len(files)} files; a job may have {MAX_INPUTS}")
        budget = Budget(self._config.max_input_bytes, self._config.max_job_input_bytes)
        limit = asyncio.Semaphore(AT_A_TIME)

        async def one(index: int, wanted: InputFile) -> str:
            async with limit:
                place = directory / str(index)
                place.mkdir()
                path = place / safe_name(_path_of(wanted))
                if self._process is None:
                    await self._fetch_one(wanted, path, budget)
                else:
                    raw = directory / f"{index}.raw"
                    await self._process(await self._fetch_one(wanted, raw, budget), path)
                    raw.unlink()
                return str(path)

        tasks = [asyncio.ensure_future(one(index, wanted)) for index, wanted in enumerate(files)]
        try:
            async with timeout(self._config.job_input_timeout_seconds):
                paths = await asyncio.gather(*tasks)
        except asyncio.TimeoutError:
            seconds = f"{self._config.job_input_timeout_seconds:g} s"
            raise InputError(f"the job's inputs were not all fetched within {seconds}") from None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return with_paths(payload, {wanted.place: path for wanted, path in zip(files, paths, strict=True)})

    async def _fetch_one(self, wanted: InputFile, path: Path, budget: Budget) -> FileResponse:
        try:
            with contextlib.closing(PartialFile(path, budget)) as file:
                async with timeout(self._config.input_timeout_seconds):
                    url = await self._try(wanted, file)
                return FileResponse(path, url, file.headers)
        except asyncio.TimeoutError:
            seconds = f"{self._config.input_timeout_seconds:g} s"
            raise InputError(f"input {wanted.name}: not fetched within {seconds}") from None
        except InputError as error:
            raise InputError(f"input {wanted.name}: {error}") from None
        except OSError as error:
            reason = "the worker's disk is full" if error.errno in FULL_DISK else error.strerror or str(error)
            raise InputError(f"input {wanted.name}: it cannot be written: {reason}") from None

    async def _try(self, wanted: InputFile, file: PartialFile) -> URL:
        failures = most_bytes = 0
        while True:
            try:
                return await self._fetcher.fetch(wanted.address, file)
            except TransientError:  # noqa: PERF203 - tries again
                failures = failures + 1 if file.received_bytes <= most_bytes else 1
                most_bytes = max(most_bytes, file.received_bytes)
                if failures == TRIES:
                    raise
                await asyncio.sleep(RETRY_BACKOFF.pause_seconds(failures))


def _path_of(wanted: InputFile) -> str:
    try:
        return parse(wanted.address).path
    except InputError as error:
        raise InputError(f"input {wanted.name}: {error}") from None


def safe_name(url_path: str) -> str:
    """Give a harmless file name for a URL's path: its last part, of letters, digits, dots, dashes and underscores."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", unquote(url_path).rstrip("/").rpartition("/")[2])
    stem, dot, suffix = name.lstrip(".").rpartition(".")
    if not dot:
        return suffix[:NAME_LIMIT_CHARS] or "input"
    return f"{stem[: NAME_LIMIT_CHARS - 16]}.{suffix[:15]}"
