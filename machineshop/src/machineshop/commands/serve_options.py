"""Options of `machineshop serve` that belong together; their names and defaults are those of the command line."""

from dataclasses import dataclass
from pathlib import Path

from cyclopts import Parameter

from machineshop.config import DEFAULT_GATEWAY_LIMITS, MIB, GatewayLimits


@Parameter(name="*")
@dataclass(frozen=True)
class StorageOptions:
    """Where bytes of images, bundles and files are."""

    storage_dir: Path | None = None
    """Where bytes of images, bundles and files are kept [the data directory]. Servers that share a database share this
    too."""
    storage_url: str | None = None
    """A bucket of an object storage in the directory's place: s3://bucket/prefix. Credentials, region and endpoint come
    from AWS_* variables, ~/.aws, or the machine's role. Servers that share a database share this too."""
    storage_endpoint: str | None = None
    """The endpoint of the object storage as clients reach it, where that is another than for the platform."""
    storage_redirects: bool = True
    """Send whoever reads an image or a file to the object storage; otherwise the bytes pass through the platform."""


@Parameter(name="*")
@dataclass(frozen=True)
class TlsOptions:
    """How the server speaks HTTPS."""

    tls: str | None = None
    """auto: serve HTTPS, with an authority and a certificate that the platform makes and renews by itself."""
    tls_cert: Path | None = None
    """Serve HTTPS with this certificate, in PEM form with those between it and its authority. It is read again when it
    changes."""
    tls_key: Path | None = None
    """The private key of tls-cert."""
    tls_ca: Path | None = None
    """The authority that signed tls-cert, where machines do not know it: replicas and jig are told of it."""
    hsts: bool | None = None
    """Tell browsers to come by HTTPS only [where tls-cert is given, and not on loopback]."""


@Parameter(name="*")
@dataclass(frozen=True)
class GatewayOptions:
    """What requests to models may take."""

    gateway_hold_seconds: float = DEFAULT_GATEWAY_LIMITS.hold_seconds
    """How long a request waits for a replica that wakes, starts or is busy."""
    gateway_max_held: int = DEFAULT_GATEWAY_LIMITS.held
    """How many requests wait so for one deployment."""
    gateway_max_body_mib: int = DEFAULT_GATEWAY_LIMITS.body_bytes // MIB
    """How long a request's body may be."""
    gateway_silence_seconds: float = DEFAULT_GATEWAY_LIMITS.silence_seconds
    """How long a replica may say nothing."""
    gateway_key_concurrency: int = DEFAULT_GATEWAY_LIMITS.key_concurrency
    """How many requests of one key may be under way at a time."""
    gateway_key_rate: float = DEFAULT_GATEWAY_LIMITS.key_rate
    """How many requests one key may begin in a second, on average; 0: any number."""

    def limits(self) -> GatewayLimits:
        """The same, as the gateway has it."""
        return GatewayLimits(
            body_bytes=self.gateway_max_body_mib * MIB,
            silence_seconds=self.gateway_silence_seconds,
            hold_seconds=self.gateway_hold_seconds,
            held=self.gateway_max_held,
            held_in_all=max(self.gateway_max_held, DEFAULT_GATEWAY_LIMITS.held_in_all),
            key_concurrency=self.gateway_key_concurrency,
            key_rate=self.gateway_key_rate,
        )
