"""The settings of one worker, read once: flags win over the environment, the environment over arguments in code."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from .errors import ConfigError
from .version import __version__

DEFAULT_PORT = 8000
DEFAULT_PREDICT_PATH = "/generate"
PREDICT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")
RESERVED_PATHS = frozenset({"/health", "/metrics", "/openapi.json"})
DEFAULT_GRACE_PERIOD_SECONDS = 300.0

CLAIM_TIMEOUT_SECONDS = 90
"""How long a claim holds without news: long enough for a network hiccup, short enough for a lost worker."""

HEARTBEAT_SECONDS = 2.0
"""Renewing needs a heartbeat every third of the claim timeout only; cancels are seen in its answer, hence this."""

VERSION_LIMIT_CHARS = 200

RANKS_LIMIT = 64
"""More GPUs has no machine, and this many processes of Python are some gigabytes already."""
RANK_TIMEOUT_SECONDS = 60.0
"""Ranks that meet in collectives end within milliseconds of one another; to tidy up may take some seconds."""

CANCEL_GRACE_SECONDS = 10.0
"""Enough to notice and to clean up, and less than the 30 s after which the platform replaces the whole replica."""

MAX_INPUT_BYTES = 5 * 1024**3
INPUT_TIMEOUT_SECONDS = 1800.0
"""For one input file in all: 5 GiB at a slow 25 Mbit/s."""
MAX_JOB_INPUT_BYTES = 4 * MAX_INPUT_BYTES
JOB_INPUT_TIMEOUT_SECONDS = 2 * INPUT_TIMEOUT_SECONDS
"""For all of a job's files: beyond that its submitter is better served by an answer."""


@dataclass(frozen=True)
class PlatformConfig:
    """Where the platform is, and as whom this worker speaks to it."""

    base_url: str
    api_key: str = field(repr=False)
    deployment: str
    hostname: str
    worker_version: str = f"sprocket/{__version__}"
    claim_timeout_seconds: int = CLAIM_TIMEOUT_SECONDS
    heartbeat_seconds: float = HEARTBEAT_SECONDS


@dataclass(frozen=True)
class Config:
    """The settings of one worker process.

    `platform` is None where none is configured (plain HTTP mode). `version` is the image's own, empty where it has told
    none. `warmup_rounds_and_exit` is how often to run the warm-up before ending without having served; 0: serve.
    """

    port: int = DEFAULT_PORT
    predict_path: str = DEFAULT_PREDICT_PATH
    queue: bool = False
    version: str = ""
    warmup_rounds_and_exit: int = 0
    platform: PlatformConfig | None = None
    grace_period_seconds: float = DEFAULT_GRACE_PERIOD_SECONDS
    max_input_bytes: int = MAX_INPUT_BYTES
    input_timeout_seconds: float = INPUT_TIMEOUT_SECONDS
    max_job_input_bytes: int = MAX_JOB_INPUT_BYTES
    job_input_timeout_seconds: float = JOB_INPUT_TIMEOUT_SECONDS
    allow_private_downloads: bool = False
    cancel_grace_seconds: float = CANCEL_GRACE_SECONDS
    process: bool | None = None
    """Whether the model gets a process of its own; None: as its class says."""
    gpu_check: bool = False
    ranks: int = 1
    rank_timeout_seconds: float = RANK_TIMEOUT_SECONDS
    """How long a rank may go on after rank 0 has ended, or another rank has raised."""


@dataclass(frozen=True)
class Flags:
    """What the command line said; None and False where it said nothing."""

    queue: bool = False
    port: int | None = None
    name: str | None = None


def read_config(
    environ: Mapping[str, str],
    flags: Flags,
    *,
    name: str | None,
    port: int | None,
    queue: bool | None,
    predict_path: str = DEFAULT_PREDICT_PATH,
) -> Config:
    """Combine flags, environment and the arguments of `run`.

    A worker that only warms up needs no queue and no platform, whatever its command line says: that is how images are
    made, far from both.

    Raises:
        ConfigError: a setting is missing or not what it must be.
    """
    warmup_rounds_and_exit = _rounds(environ.get("RUN_AND_EXIT", ""))
    wants_queue = (flags.queue or bool(queue)) and not warmup_rounds_and_exit
    deployment = flags.name or environ.get("TOGETHER_DEPLOYMENT_NAME") or name or ""
    port_text = environ.get("PORT", "")
    env_port = _port(port_text, "PORT") if port_text else None
    code_port = DEFAULT_PORT if port is None else _port(str(port), "port")
    wanted_port = next((p for p in (flags.port, env_port) if p is not None), code_port)
    return Config(
        port=0 if warmup_rounds_and_exit else wanted_port,
        predict_path=_predict_path(predict_path),
        queue=wants_queue,
        version=_version(environ),
        warmup_rounds_and_exit=warmup_rounds_and_exit,
        platform=_platform(environ, deployment, required=wants_queue),
        grace_period_seconds=_number(environ, "TERMINATION_GRACE_PERIOD_SECONDS", DEFAULT_GRACE_PERIOD_SECONDS),
        max_input_bytes=int(_number(environ, "SPROCKET_MAX_INPUT_BYTES", MAX_INPUT_BYTES)),
        input_timeout_seconds=_number(environ, "SPROCKET_INPUT_TIMEOUT_SECONDS", INPUT_TIMEOUT_SECONDS),
        max_job_input_bytes=int(_number(environ, "SPROCKET_MAX_JOB_INPUT_BYTES", MAX_JOB_INPUT_BYTES)),
        job_input_timeout_seconds=_number(environ, "SPROCKET_JOB_INPUT_TIMEOUT_SECONDS", JOB_INPUT_TIMEOUT_SECONDS),
        cancel_grace_seconds=_number(environ, "SPROCKET_CANCEL_GRACE_SECONDS", CANCEL_GRACE_SECONDS),
        process=_choice(environ, "SPROCKET_PROCESS"),
        gpu_check=bool(_choice(environ, "SPROCKET_GPU_CHECK")),
        ranks=_ranks(environ, "SPROCKET_RANKS" if environ.get("SPROCKET_RANKS") else "WORLD_SIZE"),
        rank_timeout_seconds=_number(environ, "SPROCKET_RANK_TIMEOUT_SECONDS", RANK_TIMEOUT_SECONDS),
        allow_private_downloads=environ.get("SPROCKET_ALLOW_PRIVATE_DOWNLOADS", "") in ("1", "true"),
    )


def normalize_base_url(text: str) -> str:
    """Give the platform's address with a scheme, and without a trailing slash or `/v1`.

    Raises:
        ConfigError: it is no http(s) address.
    """
    url = text.strip()
    if "://" not in url:
        url = f"https://{url}"
    url = url.rstrip("/")
    if url.endswith("/v1"):
        url = url[: -len("/v1")].rstrip("/")
    scheme, _, rest = url.partition("://")
    if scheme not in ("http", "https") or any(c in rest for c in " ?#@") or not _names_a_server(url):
        raise ConfigError(f"TOGETHER_API_BASE_URL must look like https://host or http://host:port, not {text!r}")
    return url


def _names_a_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.port != 0 and bool((parts.hostname or "").encode("idna"))
    except ValueError:
        return False


def _platform(environ: Mapping[str, str], deployment: str, *, required: bool) -> PlatformConfig | None:
    wanted = {
        "TOGETHER_API_KEY": environ.get("TOGETHER_API_KEY", ""),
        "TOGETHER_API_BASE_URL": environ.get("TOGETHER_API_BASE_URL", ""),
        "TOGETHER_DEPLOYMENT_NAME (or --name)": deployment,
    }
    missing = [key for key, value in wanted.items() if not value]
    if required and missing:
        raise ConfigError(f"--queue needs {', '.join(missing)} to be set: that is how the worker finds its queue")
    if not wanted["TOGETHER_API_KEY"] or not wanted["TOGETHER_API_BASE_URL"]:
        return None
    if not all("!" <= character <= "~" for character in wanted["TOGETHER_API_KEY"]):
        raise ConfigError("TOGETHER_API_KEY has a character that no key has: is there a line break at its end?")
    claim_timeout_seconds = int(_number(environ, "SPROCKET_CLAIM_TIMEOUT_SECONDS", CLAIM_TIMEOUT_SECONDS))
    heartbeat_seconds = _number(environ, "SPROCKET_HEARTBEAT_SECONDS", HEARTBEAT_SECONDS)
    return PlatformConfig(
        base_url=normalize_base_url(wanted["TOGETHER_API_BASE_URL"]),
        api_key=wanted["TOGETHER_API_KEY"],
        deployment=deployment,
        hostname=environ.get("MACHINESHOP_REPLICA_ID") or socket.gethostname(),
        worker_version=_version(environ) or f"sprocket/{__version__}",
        claim_timeout_seconds=claim_timeout_seconds,
        heartbeat_seconds=min(heartbeat_seconds, claim_timeout_seconds / 3),
    )


def _version(environ: Mapping[str, str]) -> str:
    version = environ.get("VERSION", "").strip()
    if not version.isascii() or not version.isprintable() or len(version) > VERSION_LIMIT_CHARS:
        raise ConfigError(f"VERSION must be at most {VERSION_LIMIT_CHARS} plain characters: it is sent as a header")
    return version


def _predict_path(path: str) -> str:
    if not PREDICT_PATH.fullmatch(path) or path in RESERVED_PATHS:
        taken = " or ".join(sorted(RESERVED_PATHS))
        raise ConfigError(f"predict_path must be a path such as /generate, other than {taken}, not {path!r}")
    return path


def _rounds(text: str) -> int:
    if text and not (text.isascii() and text.isdigit()):
        raise ConfigError(f"RUN_AND_EXIT must be how often to run the warm-up inputs, a whole number, not {text!r}")
    return int(text or 0)


def _ranks(environ: Mapping[str, str], key: str) -> int:
    text = environ.get(key) or "1"
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= RANKS_LIMIT:
        raise ConfigError(f"{key} must be the number of ranks, from 1 to {RANKS_LIMIT}, not {text!r}")
    return int(text)


def _port(text: str, key: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise ConfigError(f"{key} must be a port number from 0 (any free one) to 65535, not {text!r}")
    return int(text)


def _choice(environ: Mapping[str, str], key: str) -> bool | None:
    text = environ.get(key, "")
    if text not in ("", "0", "1"):
        raise ConfigError(f"{key} must be 1 or 0, not {text!r}")
    return text == "1" if text else None


def _number(environ: Mapping[str, str], key: str, default: float) -> float:
    text = environ.get(key, "")
    try:
        value = float(text) if text else float(default)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"{key} must be a number above 0, not {text!r}")
    return value
