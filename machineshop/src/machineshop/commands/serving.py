"""What `machineshop serve` does once its options are read: serve, and say to the terminal what there is to know."""

import uvloop

from machineshop import __version__
from machineshop.app import Platform
from machineshop.config import Settings, contexts_path
from machineshop.runtime.base import ArtifactKind
from machineshop.signals import run
from machineshop.tls.keeper import authority_fingerprint

RUNS = {ArtifactKind.BUNDLE: "bundles as processes", ArtifactKind.IMAGE: "images as containers"}


def serve_until_stopped(settings: Settings) -> None:
    """Serve until a signal.

    Raises:
        MachineshopError: Something that the platform needs is not to be had.
    """
    uvloop.run(run(settings, _announce, lambda line: print(line, flush=True)))


def _announce(platform: Platform) -> None:
    accepts = " and ".join(RUNS[kind] for kind in sorted(platform.parts.runtime.accepts))
    print(f"Machineshop {__version__} is ready at {platform.base_url}")
    if platform.reach.is_everywhere:
        print(f"  listens    {_listens(platform.reach.url_from_others())}")
    if platform.reach.is_in_the_clear:
        print("  security   keys come over the network in the clear: use --tls auto, or put TLS in front")
    print(f"  runtime    {platform.parts.runtime.name}, runs {accepts}")
    print(f"  data       {platform.data_dir.path}")
    if platform.settings.storage_url is not None:
        print(f"  storage    {platform.settings.storage_url}")
    elif platform.data_dir.storage != platform.data_dir.path:
        print(f"  storage    {platform.data_dir.storage}")
    if platform.tls is not None and platform.tls.authority_pem is not None:
        print(f"  authority  SHA-256 {authority_fingerprint(platform.tls.authority_pem)}")
    if platform.made_admin_key is not None:
        print(f"  admin key  {platform.made_admin_key}  (shown this once, kept in {platform.data_dir.admin_key})")
    if platform.context is not None:
        name, is_current = platform.context
        mend = "try `jig list`" if is_current else f"another is the current one, so `jig context use {name}`"
        print(f"  jig        knows it as the context '{name}' in {contexts_path()}: {mend}")
    print("Ctrl-C stops it and its replicas.", flush=True)


def _listens(url_from_others: str | None) -> str:
    where = f"; from another one: {url_from_others}" if url_from_others else ""
    return f"on all addresses of this machine{where}"
