"""The command `machineshop`: serve, keys, projects, doctor."""

import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import cyclopts
import msgspec
import uvloop
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from machineshop import __version__, logs
from machineshop.app import Platform
from machineshop.beside import on_storage, on_store
from machineshop.blobs import Storage
from machineshop.config import (
    DEFAULT_AUDIT_DAYS,
    DEFAULT_GATEWAY_LIMITS,
    DEFAULT_HOST,
    DEFAULT_PORT,
    MIB,
    GatewayLimits,
    Settings,
    contexts_path,
    default_data_dir,
    read_login,
)
from machineshop.datadir import DataDir
from machineshop.doctor import examine
from machineshop.errors import InvalidRequest, MachineshopError
from machineshop.lifetimes import parse_lifetime
from machineshop.models import ApiKey, Organization, Project, Scope
from machineshop.runtime.base import ArtifactKind
from machineshop.serve import run
from machineshop.services.garbage import GRACE_SECONDS, Collected, GarbageCollector
from machineshop.services.identity import DEFAULT_SLUG, IdentityService
from machineshop.services.keyring import KeyRing
from machineshop.services.secret_rotation import Rotated
from machineshop.services.secret_rotation import rotate as rotate_key
from machineshop.store.database import Database
from machineshop.tls.keeper import authority_fingerprint

T = TypeVar("T")

RUNS = {ArtifactKind.BUNDLE: "bundles as processes", ArtifactKind.IMAGE: "images as containers"}
WIDE = 10_000
EXIT_USAGE = 2
PEOPLES_SCOPES = (Scope.ADMIN, Scope.DEVELOPER, Scope.VIEWER)

app = cyclopts.App(
    name="machineshop", help="Run your own models as a service.", version=__version__, version_flags=["--version"]
)
keys = cyclopts.App(name="keys", help="Make, list and revoke API keys.")
app.command(keys)
projects = cyclopts.App(name="projects", help="Make and list projects.")
app.command(projects)
secrets = cyclopts.App(name="secrets", help="Look after the key that secrets are sealed with.")
app.command(secrets)
registry = cyclopts.App(name="registry", help="Look after the registry.")
app.command(registry)

DataDirOption = Annotated[
    Path | None, Parameter(name="--data-dir", help="Where everything is kept [~/.local/share/machineshop].")
]
JsonOption = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.")]


def main() -> None:
    """Run the command line; every error is one sentence and a status: 2 where the command line is wrong, else 1."""
    try:
        app(exit_on_error=False)
    except cyclopts.CycloptsError:  # it has said what is wrong
        sys.exit(EXIT_USAGE)
    except InvalidRequest as error:
        print(f"machineshop: {error.message}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except MachineshopError as error:
        print(f"machineshop: {error.message}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("MACHINESHOP_DEBUG"):
            raise
        print(
            f"machineshop: Something went wrong inside: {type(error).__name__}: {error}. That is a defect; "
            "MACHINESHOP_DEBUG=1 shows where it is.",
            file=sys.stderr,
        )
        sys.exit(70)  # EX_SOFTWARE


@app.command
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
    package_index: str | None = None,
    tls: str | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    tls_ca: Path | None = None,
    hsts: bool | None = None,
    audit_days: int = DEFAULT_AUDIT_DAYS,
    webhook_network: Annotated[list[str] | None, Parameter(negative=())] = None,
    gateway_hold_seconds: float = DEFAULT_GATEWAY_LIMITS.hold_seconds,
    gateway_max_held: int = DEFAULT_GATEWAY_LIMITS.held,
    gateway_max_body_mib: int = DEFAULT_GATEWAY_LIMITS.body_bytes // MIB,
    gateway_silence_seconds: float = DEFAULT_GATEWAY_LIMITS.silence_seconds,
    gateway_key_concurrency: int = DEFAULT_GATEWAY_LIMITS.key_concurrency,
    gateway_key_rate: float = DEFAULT_GATEWAY_LIMITS.key_rate,
    access_log: Annotated[bool, Parameter(negative=())] = False,
    verbose: Annotated[bool, Parameter(negative=())] = False,
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
        package_index: The index that has all packages but sprocket and jig, as https://HOST/simple: the platform's own
            index at /simple passes on to it.
        tls: auto: serve HTTPS, with an authority and a certificate that the platform makes and renews by itself.
        tls_cert: Serve HTTPS with this certificate, in PEM form with those between it and its authority. It is read
            again when it changes.
        tls_key: The private key of tls-cert.
        tls_ca: The authority that signed tls-cert, where machines do not know it: replicas and jig are told of it.
        hsts: Tell browsers to come by HTTPS only [where tls-cert is given, and not on loopback].
        audit_days: How many days it is kept who changed what.
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
    logs.configure(verbose=verbose, access=access_log)
    settings = Settings(
        data_dir=data_dir or default_data_dir(),
        host=host,
        port=port,
        runtime=runtime,
        database_url=database_url or os.environ.get("MACHINESHOP_DATABASE_URL") or None,
        storage_dir=storage_dir or _path(os.environ.get("MACHINESHOP_STORAGE_DIR")),
        storage_url=storage_url or os.environ.get("MACHINESHOP_STORAGE_URL") or None,
        storage_endpoint=storage_endpoint or os.environ.get("MACHINESHOP_STORAGE_ENDPOINT") or None,
        storage_redirects=storage_redirects,
        registry_url=(registry_url or os.environ.get("MACHINESHOP_REGISTRY_URL") or "").rstrip("/") or None,
        registry_login=read_login(
            os.environ.get("MACHINESHOP_REGISTRY_USER"),
            os.environ.get("MACHINESHOP_REGISTRY_PASSWORD"),
            os.environ.get("MACHINESHOP_REGISTRY_PASSWORD_FILE"),
        ),
        public_url=public_url.rstrip("/") if public_url else None,
        server_url=(server_url or os.environ.get("MACHINESHOP_SERVER_URL") or "").rstrip("/") or None,
        package_index=(package_index or os.environ.get("MACHINESHOP_PACKAGE_INDEX") or "").rstrip("/") or None,
        tls=tls or os.environ.get("MACHINESHOP_TLS") or "off",
        tls_cert=tls_cert or _path(os.environ.get("MACHINESHOP_TLS_CERT")),
        tls_key=tls_key or _path(os.environ.get("MACHINESHOP_TLS_KEY")),
        tls_ca=tls_ca or _path(os.environ.get("MACHINESHOP_TLS_CA")),
        hsts=hsts,
        audit_days=audit_days,
        webhook_networks=tuple(webhook_network or _listed(os.environ.get("MACHINESHOP_WEBHOOK_NETWORKS", ""))),
        gateway=GatewayLimits(
            body_bytes=gateway_max_body_mib * MIB,
            silence_seconds=gateway_silence_seconds,
            hold_seconds=gateway_hold_seconds,
            held=gateway_max_held,
            held_in_all=max(gateway_max_held, DEFAULT_GATEWAY_LIMITS.held_in_all),
            key_concurrency=gateway_key_concurrency,
            key_rate=gateway_key_rate,
        ),
        secrets_key=os.environ.get("MACHINESHOP_SECRETS_KEY") or None,
        admin_key=os.environ.get("MACHINESHOP_ADMIN_KEY") or None,
    )
    _run(run(settings, _announce, lambda line: print(line, flush=True)))


@keys.command
def create(
    *,
    name: str,
    scope: str = Scope.DEVELOPER,
    project: str = DEFAULT_SLUG,
    expires_in: str | None = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an API key and print it; it is not shown again.

    Args:
        name: What the key is for.
        scope: admin (everything, and keys), developer (everything but keys) or viewer (look, and change nothing).
        project: The slug of its project, which is made if there is none.
        expires_in: When it ends by itself, as 12h, 90d or 1y; without it, never.
    """
    if scope not in PEOPLES_SCOPES:
        raise InvalidRequest(f"--scope is '{scope}'; it must be {', '.join(PEOPLES_SCOPES)}.", param="scope")
    lifetime = None if expires_in is None else parse_lifetime(expires_in)
    record, key = _with_identity(
        data_dir, lambda service: service.create_key(project, name, Scope(scope), lifetime_seconds=lifetime)
    )
    if as_json:
        print(json.dumps({**_key_view(record), "key": key}))
    else:
        print(key)


@keys.command(name="list")
def list_keys(*, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """List the keys that people use, revoked ones too."""
    records = _with_identity(data_dir, lambda service: service.list_keys())
    if as_json:
        print(json.dumps([_key_view(record) for record in records]))
        return
    table = Table("KEY", "NAME", "SCOPE", "CREATED", "LAST USED", "STATE", "ID", box=None, pad_edge=False)
    for record in records:
        view = _key_view(record)
        used = view["last_used_at"] or "never"
        table.add_row(
            view["prefix"] + "…", record.name, record.scope, view["created_at"], used, view["state"], record.id
        )
    _print_table(table)


@keys.command
def revoke(key: str, *, data_dir: DataDirOption = None) -> None:
    """Revoke a key, which ends within two seconds on a running server.

    Args:
        key: Its id, or its first ten characters as `keys list` prints them.
    """
    _with_identity(data_dir, lambda service: service.revoke_key(key))
    print("revoked")


@projects.command(name="create")
def create_project(
    slug: str,
    *,
    name: str | None = None,
    organization: str | None = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a project. Its first key is made by `machineshop keys create --project`.

    Args:
        slug: Its name in commands and URLs.
        name: Its name for people [the slug].
        organization: The slug of the organization that it belongs to, made if there is none [one of its own]. Projects
            of an organization share a namespace of the registry, and its admins.
    """
    made = _with_identity(data_dir, lambda service: service.create_project(slug, name, organization_slug=organization))
    print(json.dumps(_project_view(*made)) if as_json else f"{made[0].slug} of {made[1].slug}")


@projects.command(name="list")
def list_projects(*, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """List the projects of all organizations."""
    found = _with_identity(data_dir, lambda service: service.list_projects())
    if as_json:
        print(json.dumps([_project_view(*one) for one in found]))
        return
    table = Table("PROJECT", "NAME", "ORGANIZATION", "ID", box=None, pad_edge=False)
    for project, organization in found:
        table.add_row(project.slug, project.name, organization.slug, project.id)
    _print_table(table)


@registry.command
def gc(
    *,
    grace: float = GRACE_SECONDS / 3600,
    data_dir: DataDirOption = None,
    storage_dir: Path | None = None,
    storage_url: str | None = None,
    as_json: JsonOption = False,
) -> None:
    """Remove what no tag, no revision of a deployment and no push under way needs; a running server does so by itself.

    Args:
        grace: How many hours something must have been unneeded. With 0 all of it goes now: run that while nobody
            pushes.
        storage_dir: Where bytes are kept, if not in the data directory.
        storage_url: The object storage that they are kept in, if any.
    """
    if grace < 0:
        raise InvalidRequest(f"--grace is {grace:g}; it must be 0 or more hours.", param="grace")

    async def collect(database: Database, storage: Storage) -> Collected:
        return await GarbageCollector(database, storage.blobs).collect_all(grace * 3600)

    storage_dir = storage_dir or _path(os.environ.get("MACHINESHOP_STORAGE_DIR"))
    storage_url = storage_url or os.environ.get("MACHINESHOP_STORAGE_URL") or None
    collected = on_storage(data_dir, storage_dir, storage_url, collect)
    if as_json:
        print(json.dumps(msgspec.to_builtins(collected)))
    else:
        print(
            f"removed {collected.manifests} manifests, {collected.blobs} blobs of repositories, {collected.files} files"
        )


@secrets.command
def rotate(*, data_dir: DataDirOption = None, storage_dir: Path | None = None, as_json: JsonOption = False) -> None:
    """Seal all secrets with a new key, beside running servers; run again, it goes on where it was cut off.

    Args:
        storage_dir: Where bytes are kept, if not in the data directory; the file of the keys is there.
    """
    folder = DataDir(data_dir or default_data_dir(), storage_dir or _path(os.environ.get("MACHINESHOP_STORAGE_DIR")))
    keys = KeyRing(folder.secrets_key, os.environ.get("MACHINESHOP_SECRETS_KEY") or None)

    async def run(database: Database) -> Rotated:
        return await rotate_key(database, keys)

    rotated = on_store(data_dir, run)
    if as_json:
        print(json.dumps(msgspec.to_builtins(rotated)))
        return
    print(f"secrets are sealed with the key {rotated.key_id} now; {rotated.sealed_anew} were sealed anew")
    if keys.is_given:
        print("Take the other keys out of MACHINESHOP_SECRETS_KEY, and start the servers again.")
    else:
        print(f"Back up {folder.secrets_key}.")


@app.command
def doctor(
    *,
    data_dir: DataDirOption = None,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    as_json: JsonOption = False,
) -> None:
    """Check this machine for what the platform needs, and name the mend for what it lacks.

    Args:
        host: Where a server is to listen, as for `serve`.
        port: The port there, as for `serve`.
    """
    storage_dir = _path(os.environ.get("MACHINESHOP_STORAGE_DIR"))
    database_url = os.environ.get("MACHINESHOP_DATABASE_URL") or None
    storage_url = os.environ.get("MACHINESHOP_STORAGE_URL") or None
    folder = data_dir or default_data_dir()
    findings = list(examine(folder, storage_dir, database_url, storage_url, host, port))
    if as_json:
        print(json.dumps([{"name": f.name, "state": f.state, "detail": f.detail} for f in findings]))
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        colors = {"ok": "green", "note": "yellow", "missing": "red"}
        for finding in findings:
            table.add_row(finding.name, f"[{colors[finding.state]}]{finding.state}[/]", finding.detail)
        _print_table(table)
    if any(finding.state == "missing" for finding in findings):
        sys.exit(1)


def _print_table(table: Table) -> None:
    """What goes to a program or a file is not cut to the width of a terminal."""
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _listed(text: str) -> list[str]:
    """The entries of a list with commas."""
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _announce(platform: Platform) -> None:
    accepts = " and ".join(RUNS[kind] for kind in sorted(platform.runtime.accepts))
    print(f"Machineshop {__version__} is ready at {platform.base_url}")
    print(f"  runtime    {platform.runtime.name}, runs {accepts}")
    print(f"  data       {platform.data_dir.path}")
    if platform.settings.storage_url is not None:
        print(f"  storage    {platform.settings.storage_url}")
    elif platform.data_dir.storage != platform.data_dir.path:
        print(f"  storage    {platform.data_dir.storage}")
    if platform.tls is not None and platform.tls.authority_pem is not None:
        print(f"  authority  SHA-256 {authority_fingerprint(platform.tls.authority_pem)}")
    if platform.made_admin_key is not None:
        print(f"  admin key  {platform.made_admin_key}  (shown this once, kept in {platform.data_dir.admin_key})")
    if platform.context_name is not None:
        print(f"  jig        knows it as the context '{platform.context_name}' in {contexts_path()}: try `jig list`")
    print("Ctrl-C stops it and its replicas.", flush=True)


def _with_identity(data_dir: Path | None, work: Callable[[IdentityService], Awaitable[T]]) -> T:
    return on_store(data_dir, lambda database: work(IdentityService(database)))


def _key_view(record: ApiKey) -> dict[str, Any]:
    return {
        "id": record.id,
        "prefix": record.prefix,
        "name": record.name,
        "scope": record.scope,
        "project_id": record.project_id,
        "created_at": _iso(record.created_at),
        "expires_at": _iso(record.expires_at),
        "last_used_at": _iso(record.last_used_at),
        "state": _key_state(record),
    }


def _key_state(record: ApiKey) -> str:
    if record.revoked_at:
        return "revoked"
    return "expired" if record.expires_at is not None and record.expires_at <= time.time() else "valid"


def _project_view(project: Project, organization: Organization) -> dict[str, Any]:
    return {"id": project.id, "slug": project.slug, "name": project.name, "organization": organization.slug}


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _run(work: Coroutine[Any, Any, None]) -> None:
    uvloop.run(work)
