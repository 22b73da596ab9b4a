"""The platform's settings, read once from the command line and the environment into a frozen object."""

import ipaddress
import os
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from machineshop.errors import InvalidRequest

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8799
MIB = 1024 * 1024
GIB = 1024 * MIB
MAX_CACHE_GIB = 1_000_000
DATABASE_SCHEMES = ("sqlite:///", "postgresql://", "postgres://")
S3_SCHEME = "s3://"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGISTRY_PATH = re.compile(r"(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")
_DAYS = re.compile(r"[0-9]{1,6}")
_PREFIX = re.compile(r"[A-Za-z0-9._/-]{0,500}")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# Longer than a push takes, over a slow line and with the pause of a night.
COLLECT_GRACE_SECONDS = 24 * 3600.0
# A year and a month: what was done this time last year can still be looked up.
DEFAULT_AUDIT_DAYS = 396
MAX_DAYS = 36500
TLS_MODES = ("off", "auto")
# More of anything is no bound.
MAX_GATEWAY_NUMBER = 1_000_000_000
RUNTIMES = ("auto", "process", "docker", "kubernetes")


class GatewayLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of what a server's gateway takes of its callers, and of replicas."""

    body_bytes: int = 10 * 1024 * MIB
    """A request's body. It is never held in memory, so this bounds what a replica may be made to read."""
    body_silence_seconds: float = 60.0
    """How long nothing of a request's body may come."""
    silence_seconds: float = 3600.0
    """How long a replica may say nothing: a model may think for long before its first byte."""
    hold_seconds: float = 60.0
    """How long a request waits for a replica that wakes, starts, or is busy."""
    held: int = 1000
    """How many requests wait so for one deployment."""
    held_in_all: int = 4000
    """How many for all of them, or as many as for one: each may have 64 KiB of its body in memory."""
    key_concurrency: int = 2000
    """How many requests of one key are under way at a time."""
    key_rate: float = 0.0
    """How many one key may begin in a second, on average; 0: any number."""


DEFAULT_GATEWAY_LIMITS = GatewayLimits()


class StorageUrl(msgspec.Struct, frozen=True):
    """A place in an object storage: a bucket, and what all keys in it begin with (nothing, or it ends with a slash)."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"{S3_SCHEME}{self.bucket}/{self.prefix}"


class KeptFiles(msgspec.Struct, frozen=True):
    """For how many days files are kept that users upload under names with this beginning."""

    prefix: str
    days: int


class RegistryLogin(msgspec.Struct, frozen=True):
    """Who the platform is for a registry that others run."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"RegistryLogin({self.user!r}, ...)"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What `machineshop serve` was asked for."""

    data_dir: Path
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    """0: a free port, the same as last time where that is free."""
    runtime: str = "auto"
    database_url: str | None = None
    """None: SQLite in the data directory. It may hold a password, so it is never logged."""
    storage_dir: Path | None = None
    """Where bytes of images, bundles and files are kept; None: in the data directory."""
    storage_url: str | None = None
    """An object storage in the directory's place, as `s3://bucket/prefix`."""
    storage_endpoint: str | None = None
    """The endpoint of the object storage as clients reach it, where it is another than for the platform."""
    storage_redirects: bool = True
    """Send whoever reads an image or a file to the object storage."""
    registry_url: str | None = None
    """A registry that others run, in the place of ours: `https://host/path`."""
    registry_login: RegistryLogin | None = None
    server_url: str | None = None
    """The base URL at which other servers on the same database reach this one, where host and port do not say it."""
    public_url: str | None = None
    """The base URL that clients use, where it is not the one that the server listens on."""
    tls: str = "off"
    """auto: HTTPS, with an authority of our own."""
    tls_cert: Path | None = None
    """HTTPS, with this certificate."""
    tls_key: Path | None = None
    tls_ca: Path | None = None
    """Who signed `tls_cert`, where replicas and jig do not know that one."""
    hsts: bool | None = None
    """Whether browsers are told to use HTTPS only; None: where a certificate was given and it is no loopback."""
    audit_days: int = DEFAULT_AUDIT_DAYS
    """How long it is recorded who changed what."""
    kept_files: tuple[str, ...] = ()
    """How long files are kept that users upload, as `inputs/=30`: the beginning of their names, and days."""
    webhook_networks: tuple[str, ...] = ()
    """Networks that are not public and may be sent webhooks all the same, as `10.0.0.0/8`."""
    volume_cache_gib: float | None = None
    """What volumes may take of this machine's disk for replicas; None: half of the disk."""
    volume_networks: tuple[str, ...] = ()
    """Networks that are not public and may be what volumes are copied from all the same, as `10.0.0.0/8`."""
    volume_machine_credentials: bool = False
    """Let every project copy volumes from what this machine's own credentials and roles may read."""
    package_index: str | None = None
    """The index of all packages but our own, to which our own index passes on; None: nobody can be passed on."""
    gateway: GatewayLimits = DEFAULT_GATEWAY_LIMITS
    secrets_key: str | None = None
    """The keys that secrets are sealed with, from MACHINESHOP_SECRETS_KEY; None: in a file beside the bytes."""
    admin_key: str | None = None
    """Taken from MACHINESHOP_ADMIN_KEY, never from the command line, where others could read it."""


def default_data_dir() -> Path:
    """Where the platform keeps everything, unless told otherwise."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(os.environ.get("MACHINESHOP_DATA_DIR") or Path(base) / "machineshop")


def cache_bytes(settings: Settings) -> int | None:
    """What copies of volumes may take on this machine; None: it is not said."""
    return None if settings.volume_cache_gib is None else int(settings.volume_cache_gib * GIB)


def contexts_path() -> Path:
    """The file in which jig keeps the platforms that it knows."""
    if path := os.environ.get("JIG_CONTEXTS"):
        return Path(path)
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "jig" / "contexts.json"


def check(settings: Settings) -> Settings:
    """Refuse settings that cannot work.

    Raises:
        InvalidRequest: One is out of range, or names what this version does not have.
    """
    if not 0 <= settings.port <= 65535:
        raise InvalidRequest(f"--port is {settings.port}; it must be between 0 and 65535.", param="port")
    if settings.runtime not in RUNTIMES:
        raise InvalidRequest(
            f"--runtime is '{settings.runtime}'; it must be one of {', '.join(RUNTIMES)}.", param="runtime"
        )
    if settings.runtime == "kubernetes":
        raise InvalidRequest(
            "The kubernetes runtime is not in this version yet; use --runtime docker or process.", param="runtime"
        )
    urls = {
        "--public-url": settings.public_url,
        "--server-url": settings.server_url,
        "--package-index": settings.package_index,
        "--storage-endpoint": settings.storage_endpoint,
        "--registry-url": settings.registry_url,
    }
    for option, url in urls.items():
        if url is not None and not _is_http_url(url):
            raise InvalidRequest(
                f"{option} is '{url}'; it must look like http://host:port or https://host.",
                param=option.removeprefix("--").replace("-", "_"),
            )
    if settings.database_url is not None and not settings.database_url.startswith(DATABASE_SCHEMES):
        raise InvalidRequest(f"--database-url must begin with {' or '.join(DATABASE_SCHEMES)}.", param="database_url")
    _check_tls(settings)
    _check_registry(settings)
    _check_kept(settings)
    if settings.storage_url is not None:
        parse_storage_url(settings.storage_url)
        if settings.storage_dir is not None:
            raise InvalidRequest("--storage-url takes the place of --storage-dir: give one of them.", "storage_url")
    parse_networks(settings.webhook_networks)
    parse_networks(settings.volume_networks, "--volume-network or MACHINESHOP_VOLUME_NETWORKS", "volume_networks")
    _check_gateway(settings.gateway)
    return settings


def _check_kept(settings: Settings) -> None:
    if not 1 <= settings.audit_days <= MAX_DAYS:
        raise InvalidRequest(f"--audit-days is {settings.audit_days}; it must be 1 to {MAX_DAYS}.", param="audit_days")
    parse_kept_files(settings.kept_files)
    cache_gib = settings.volume_cache_gib
    if cache_gib is not None and not 0 <= cache_gib <= MAX_CACHE_GIB:
        raise InvalidRequest(
            f"--volume-cache-gib is {cache_gib:,.12g}; it must be 0 to {MAX_CACHE_GIB:,}.", param="volume_cache_gib"
        )


def _check_gateway(limits: GatewayLimits) -> None:
    for option, value, least in (
        ("--gateway-max-body-mib", limits.body_bytes / MIB, 1),
        ("--gateway-silence-seconds", limits.silence_seconds, 1),
        ("--gateway-hold-seconds", limits.hold_seconds, 0),
        ("--gateway-max-held", limits.held, 0),
        ("--gateway-key-concurrency", limits.key_concurrency, 1),
        ("--gateway-key-rate", limits.key_rate, 0),
    ):
        if not least <= value <= MAX_GATEWAY_NUMBER:
            raise InvalidRequest(
                f"{option} is {value:,.12g}; it must be between {least} and {MAX_GATEWAY_NUMBER:,}.",
                param=option.removeprefix("--").replace("-", "_"),
            )


def _check_tls(settings: Settings) -> None:
    if settings.tls not in TLS_MODES:
        raise InvalidRequest(f"--tls is '{settings.tls}'; it must be one of {', '.join(TLS_MODES)}.", param="tls")
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise InvalidRequest("--tls-cert and --tls-key are given together, or neither of them.", param="tls_cert")
    if settings.tls_cert is not None and settings.tls == "auto":
        raise InvalidRequest("--tls auto makes a certificate of its own: leave out --tls-cert or --tls.", param="tls")
    if settings.tls_ca is not None and settings.tls_cert is None:
        raise InvalidRequest("--tls-ca says who signed --tls-cert, which is missing.", param="tls_ca")
    if settings.hsts and settings.tls == "off" and settings.tls_cert is None:
        raise InvalidRequest("--hsts needs --tls auto or --tls-cert: this server speaks plain HTTP.", param="hsts")


def parse_storage_url(text: str) -> StorageUrl:
    """A place in an object storage.

    Raises:
        InvalidRequest: It is none.
    """
    bucket, _, prefix = text.removeprefix(S3_SCHEME).partition("/")
    prefix = prefix.strip("/")
    if not text.startswith(S3_SCHEME) or not _BUCKET.fullmatch(bucket) or not _PREFIX.fullmatch(prefix):
        raise InvalidRequest(
            "--storage-url must look like s3://bucket or s3://bucket/prefix, without a key in it: those come from "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
            param="storage_url",
        )
    return StorageUrl(bucket, f"{prefix}/" if prefix else "")


def parse_networks(
    texts: Iterable[str],
    setting: str = "--webhook-network or MACHINESHOP_WEBHOOK_NETWORKS",
    param: str = "webhook_networks",
) -> list[Network]:
    """Networks such as `10.0.0.0/8`, or single addresses.

    Raises:
        InvalidRequest: One is neither.
    """
    try:
        return [ipaddress.ip_network(text.strip()) for text in texts]
    except ValueError as error:
        raise InvalidRequest(
            f"{setting}: {error}. It must look like 10.0.0.0/8 or fd00::/8.",
            param=param,
        ) from None


def parse_kept_files(texts: Iterable[str]) -> tuple[KeptFiles, ...]:
    """How long files are kept, from texts such as `inputs/=30`; nothing before the sign is every name.

    Raises:
        InvalidRequest: One is written otherwise, or there are two for the same names.
    """
    found: dict[str, KeptFiles] = {}
    for text in texts:
        prefix, _, days = text.rpartition("=")
        if not _DAYS.fullmatch(days) or "=" not in text or not 1 <= int(days) <= MAX_DAYS or prefix in found:
            raise InvalidRequest(
                f"--keep-files or MACHINESHOP_KEEP_FILES: '{text[:100]}' must look like inputs/=30, with 1 to "
                f"{MAX_DAYS} days, and no two be for the same beginning.",
                param="keep_files",
            )
        found[prefix] = KeptFiles(prefix, int(days))
    return tuple(found.values())


def _is_http_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def _check_registry(settings: Settings) -> None:
    if settings.registry_url is None:
        if settings.registry_login is not None:
            raise InvalidRequest("MACHINESHOP_REGISTRY_USER is for --registry-url, which is missing.")
        return
    url = urlsplit(settings.registry_url)
    if "@" in url.netloc or url.query or url.fragment or not _REGISTRY_PATH.fullmatch(url.path):
        raise InvalidRequest(
            "--registry-url must be as https://host/path, the path in lowercase; the login is in "
            "MACHINESHOP_REGISTRY_USER and MACHINESHOP_REGISTRY_PASSWORD.",
            param="registry_url",
        )


def read_login(user: str | None, password: str | None, password_file: str | None) -> RegistryLogin | None:
    """The login that the environment names; the password stands in it or in a file.

    Raises:
        InvalidRequest: Half of it is missing, or the file cannot be read.
    """
    if password_file and not password:
        try:
            password = Path(password_file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            cause = getattr(error, "strerror", None) or "it is no text"
            raise InvalidRequest(f"MACHINESHOP_REGISTRY_PASSWORD_FILE: {password_file}: {cause}.") from error
    if not user and not password:
        return None
    if not user or not password:
        raise InvalidRequest("MACHINESHOP_REGISTRY_USER and MACHINESHOP_REGISTRY_PASSWORD go together: set both.")
    return RegistryLogin(user, password)
