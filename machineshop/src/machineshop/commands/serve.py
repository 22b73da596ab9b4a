"""`machineshop serve`: run the platform."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from machineshop.commands.options import DataDirOption, base_url_of, path_of, variable
from machineshop.config import (
    DEFAULT_AUDIT_DAYS,
    DEFAULT_GATEWAY_LIMITS,
    DEFAULT_HOST,
    DEFAULT_PORT,
    MIB,
    GatewayLimits,
    Settings,
    default_data_dir,
    read_login,
)


def serve(
    *,
    data_dir: DataDirOption = None,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    runtime: str = "auto",
    database_url: str | None = None,
    storage_dir: Path | None = None,
    storage_url: str | None = None,
    storage_endpoint: str | None = None,
    storage_redirects: bool = True,
    registry_url: str | None = None,
    public_url: str | None = None,
    server_url: str | None = None,
    volume_cache_gib: float | None = None,
    package_index: str | None = None,
    tls: str | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    tls_ca: Path | None = None,
    hsts: bool | None = None,
    audit_days: int = DEFAULT_AUDIT_DAYS,
    keep_files: Annotated[list[str] | None, Parameter(negative=())] = None,
    webhook_network: Annotated[list[str] | None, Parameter(negative=())] = None,
    volume_network: Annotated[list[str] | None, Parameter(negative=())] = None,
    volume_machine_credentials: bool = False,
    gateway_hold_seconds: float = DEFAULT_GATEWAY_LIMITS.hold_seconds,
    gateway_max_held: int = DEFAULT_GATEWAY_LIMITS.held,
    gateway_max_body_mib: int = DEFAULT_GATEWAY_LIMITS.body_bytes // MIB,
    gateway_silence_seconds: float = DEFAULT_GATEWAY_LIMITS.silence_seconds,
    gateway_key_concurrency: int = DEFAULT_GATEWAY_LIMITS.key_concurrency,
    gateway_key_rate: float = DEFAULT_GATEWAY_LIMITS.key_rate,
    access_log: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    verbose: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
) -> None:
    """Run the platform: one process, one port.

    The admin key comes from MACHINESHOP_ADMIN_KEY, or is made at the first start and kept in the data directory.
    Ctrl-C, or closing the terminal, ends the replicas too; SIGTERM leaves them running, and the next start adopts them.

    Args:
        host: The address to listen on; 0.0.0.0 lets other machines in.
        port: The port to listen on; 0 takes a free one.
        runtime: process runs bundles as processes, docker runs images as containers; auto does both where a container
            engine answers.
        database_url: Another database than SQLite in the data directory: postgresql://... or sqlite:///path. Where it
            holds a password, set MACHINESHOP_DATABASE_URL instead: others can read a command line. Several servers
            may share a Postgres.
        storage_dir: Where bytes of images, bundles and files are kept [the data directory]. Servers that share a
            database share this too.
        storage_url: A bucket of an object storage in the directory's place: s3://bucket/prefix. Credentials, region and
            endpoint come from AWS_* variables, ~/.aws, or the machine's role. Servers that share a database share this
            too.
        storage_endpoint: The endpoint of the object storage as clients reach it, where that is another than for the
            platform.
        storage_redirects: Send whoever reads an image or a file to the object storage; otherwise the bytes pass through
            the platform.
        registry_url: A registry that others run, in the place of the platform's own: https://host/path. The login is in
            MACHINESHOP_REGISTRY_USER and MACHINESHOP_REGISTRY_PASSWORD, or MACHINESHOP_REGISTRY_PASSWORD_FILE.
        public_url: The base URL at which clients reach the platform, where it is another than host and port.
        server_url: The base URL at which other servers on the same database reach this one, where host and port do not
            say it.
        volume_cache_gib: How much of this machine's disk the volumes that replicas mount may take, where they are
            copied [half of it].
        package_index: The index that has all packages but sprocket and jig, as https://HOST/simple: the platform's own
            index at /simple passes on to it.
        tls: auto: serve HTTPS, with an authority and a certificate that the platform makes and renews by itself.
        tls_cert: Serve HTTPS with this certificate, in PEM form with those between it and its authority. It is read
            again when it changes.
        tls_key: The private key of tls-cert.
        tls_ca: The authority that signed tls-cert, where machines do not know it: replicas and jig are told of it.
        hsts: Tell browsers to come by HTTPS only [where tls-cert is given, and not on loopback].
        audit_days: How many days it is kept who changed what.
        keep_files: For how many days files are kept that users upload under names with some beginning, as inputs/=30;
            give it several times for several. All others stay until somebody deletes them.
        volume_network: A network that is not public and may be what volumes are copied from all the same, as
            10.0.0.0/8; give it several times for several.
        volume_machine_credentials: Let every project copy volumes from all that this machine's own credentials, and the
            roles that it may take on, may read.
        webhook_network: A network that is not public and may be sent webhooks all the same, as 10.0.0.0/8; give it
            several times for several.
        gateway_hold_seconds: How long a request waits for a replica that wakes, starts or is busy.
        gateway_max_held: How many requests wait so for one deployment.
        gateway_max_body_mib: How long a request's body may be.
        gateway_silence_seconds: How long a replica may say nothing.
        gateway_key_concurrency: How many requests of one key may be under way at a time.
        gateway_key_rate: How many requests one key may begin in a second, on average; 0: any number.
        access_log: Log a line for each request that goes through the gateway.
        verbose: Log every event, not only warnings.
    """
    from machineshop import logs  # noqa: PLC0415 - as `commands` says
    from machineshop.commands.serving import serve_until_stopped  # noqa: PLC0415 - as `commands` says

    logs.configure(verbose=verbose, access=access_log)
    settings = Settings(
        data_dir=data_dir or default_data_dir(),
        host=host,
        port=port,
        runtime=runtime,
        database_url=database_url or variable("MACHINESHOP_DATABASE_URL"),
        storage_dir=storage_dir or path_of(variable("MACHINESHOP_STORAGE_DIR")),
        storage_url=storage_url or variable("MACHINESHOP_STORAGE_URL"),
        storage_endpoint=storage_endpoint or variable("MACHINESHOP_STORAGE_ENDPOINT"),
        storage_redirects=storage_redirects,
        registry_url=base_url_of(registry_url or variable("MACHINESHOP_REGISTRY_URL")),
        registry_login=read_login(
            variable("MACHINESHOP_REGISTRY_USER"),
            variable("MACHINESHOP_REGISTRY_PASSWORD"),
            variable("MACHINESHOP_REGISTRY_PASSWORD_FILE"),
        ),
        public_url=public_url.rstrip("/") if public_url else None,
        server_url=base_url_of(server_url or variable("MACHINESHOP_SERVER_URL")),
        volume_cache_gib=volume_cache_gib,
        package_index=base_url_of(package_index or variable("MACHINESHOP_PACKAGE_INDEX")),
        tls=tls or variable("MACHINESHOP_TLS") or "off",
        tls_cert=tls_cert or path_of(variable("MACHINESHOP_TLS_CERT")),
        tls_key=tls_key or path_of(variable("MACHINESHOP_TLS_KEY")),
        tls_ca=tls_ca or path_of(variable("MACHINESHOP_TLS_CA")),
        hsts=hsts,
        audit_days=audit_days,
        kept_files=tuple(keep_files or _listed(variable("MACHINESHOP_KEEP_FILES"))),
        volume_networks=tuple(volume_network or _listed(variable("MACHINESHOP_VOLUME_NETWORKS"))),
        volume_machine_credentials=volume_machine_credentials,
        webhook_networks=tuple(webhook_network or _listed(variable("MACHINESHOP_WEBHOOK_NETWORKS"))),
        gateway=GatewayLimits(
            body_bytes=gateway_max_body_mib * MIB,
            silence_seconds=gateway_silence_seconds,
            hold_seconds=gateway_hold_seconds,
            held=gateway_max_held,
            held_in_all=max(gateway_max_held, DEFAULT_GATEWAY_LIMITS.held_in_all),
            key_concurrency=gateway_key_concurrency,
            key_rate=gateway_key_rate,
        ),
        secrets_key=variable("MACHINESHOP_SECRETS_KEY"),
        admin_key=variable("MACHINESHOP_ADMIN_KEY"),
    )
    serve_until_stopped(settings)


def _listed(text: str | None) -> list[str]:
    """The entries of a list with commas."""
    return [entry.strip() for entry in (text or "").split(",") if entry.strip()]
