"""`machineshop serve`: run the platform."""

from typing import Annotated

from cyclopts import Parameter

from machineshop.commands.options import DataDirOption, base_url_of, path_of, variable
from machineshop.commands.serve_options import GatewayOptions, StorageOptions, TlsOptions
from machineshop.config import (
    DEFAULT_AUDIT_DAYS,
    DEFAULT_HOST,
    DEFAULT_PORT,
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
    storage: StorageOptions = StorageOptions(),  # noqa: B008 - it is frozen
    registry_url: str | None = None,
    public_url: str | None = None,
    server_url: str | None = None,
    volume_cache_gib: float | None = None,
    package_index: str | None = None,
    tls: TlsOptions = TlsOptions(),  # noqa: B008 - it is frozen
    audit_days: int = DEFAULT_AUDIT_DAYS,
    keep_files: Annotated[list[str] | None, Parameter(negative=())] = None,
    webhook_network: Annotated[list[str] | None, Parameter(negative=())] = None,
    volume_network: Annotated[list[str] | None, Parameter(negative=())] = None,
    volume_machine_credentials: bool = False,
    gateway: GatewayOptions = GatewayOptions(),  # noqa: B008 - it is frozen
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
        registry_url: A registry that others run, in the place of the platform's own: https://host/path. The login is in
            MACHINESHOP_REGISTRY_USER and MACHINESHOP_REGISTRY_PASSWORD, or MACHINESHOP_REGISTRY_PASSWORD_FILE.
        public_url: The base URL at which clients reach the platform, where it is another than host and port.
        server_url: The base URL at which other servers on the same database reach this one, where host and port do not
            say it.
        volume_cache_gib: How much of this machine's disk the volumes that replicas mount may take, where they are
            copied [half of it].
        package_index: The index that has all packages but sprocket and jig, as https://HOST/simple: the platform's own
            index at /simple passes on to it.
        audit_days: How many days it is kept who changed what.
        keep_files: For how many days files are kept that users upload under names with some beginning, as inputs/=30;
            give it several times for several. All others stay until somebody deletes them.
        volume_network: A network that is not public and may be what volumes are copied from all the same, as
            10.0.0.0/8; give it several times for several.
        volume_machine_credentials: Let every project copy volumes from all that this machine's own credentials, and the
            roles that it may take on, may read.
        webhook_network: A network that is not public and may be sent webhooks all the same, as 10.0.0.0/8; give it
            several times for several.
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
        storage_dir=storage.storage_dir or path_of(variable("MACHINESHOP_STORAGE_DIR")),
        storage_url=storage.storage_url or variable("MACHINESHOP_STORAGE_URL"),
        storage_endpoint=storage.storage_endpoint or variable("MACHINESHOP_STORAGE_ENDPOINT"),
        storage_redirects=storage.storage_redirects,
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
        tls=tls.tls or variable("MACHINESHOP_TLS") or "off",
        tls_cert=tls.tls_cert or path_of(variable("MACHINESHOP_TLS_CERT")),
        tls_key=tls.tls_key or path_of(variable("MACHINESHOP_TLS_KEY")),
        tls_ca=tls.tls_ca or path_of(variable("MACHINESHOP_TLS_CA")),
        hsts=tls.hsts,
        audit_days=audit_days,
        kept_files=tuple(keep_files or _listed(variable("MACHINESHOP_KEEP_FILES"))),
        volume_networks=tuple(volume_network or _listed(variable("MACHINESHOP_VOLUME_NETWORKS"))),
        volume_machine_credentials=volume_machine_credentials,
        webhook_networks=tuple(webhook_network or _listed(variable("MACHINESHOP_WEBHOOK_NETWORKS"))),
        gateway=gateway.limits(),
        secrets_key=variable("MACHINESHOP_SECRETS_KEY"),
        admin_key=variable("MACHINESHOP_ADMIN_KEY"),
    )
    serve_until_stopped(settings)


def _listed(text: str | None) -> list[str]:
    """The entries of a list with commas."""
    return [entry.strip() for entry in (text or "").split(",") if entry.strip()]
