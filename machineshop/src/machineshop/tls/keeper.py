"""Keeps what the server needs for HTTPS in files, and renews it while the server runs.

Below the data directory:

    tls/server.pem        the server's key and certificate, mode 0600
    tls/ca.pem            the authority's certificate, to be given to clients
    tls/bundle.pem        what replicas trust: the system's authorities and that one

and in the storage directory, as servers that share it are one platform and have one authority:

    tls/authority.pem     the authority's key and certificate, mode 0600
"""

import asyncio
import contextlib
import fcntl
import logging
import socket
import ssl
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from cryptography import x509

from machineshop.config import Settings
from machineshop.contexts import write_private
from machineshop.datadir import DataDir
from machineshop.errors import MachineshopError
from machineshop.tls import authority
from machineshop.tls.bundle import certificates, make_bundle, read_certificates
from machineshop.tls.names import Names, machine_names

log = logging.getLogger(__name__)

FOLDER = "tls"


class CertificateUnusable(MachineshopError):
    """The certificate {certificate} with the key {key} cannot be used: {cause}. Give a pair of files in PEM form."""


class TlsFolderUnusable(MachineshopError):
    """The folder {path} for certificates cannot be used: {cause}. Mend its permissions, or use --tls-cert."""


class AuthorityUnusable(MachineshopError):
    """The authority in {path} cannot be used: {cause}. Put it back, or remove it to have a new one made."""


class TlsKeeper(Protocol):
    """What the server knows of its certificate."""

    context: ssl.SSLContext
    """For handshakes; it takes up a renewed certificate by itself."""
    authority_pem: str | None
    """The authority that clients have to be told of; None where they know it already."""
    bundle: Path | None
    """A file of what replicas trust; None where that is what they trust anyway."""

    async def run_once(self, now: float) -> bool:
        """Renew what is due; returns whether anything was."""
        ...


def open_tls(settings: Settings, data_dir: DataDir, now: float) -> TlsKeeper | None:
    """What the settings ask for; None for plain HTTP. The data directory must be open.

    Raises:
        MachineshopError: A file cannot be read or written, or holds something else.
    """
    try:
        if settings.tls_cert is not None and settings.tls_key is not None:
            return GivenCertificate(settings.tls_cert, settings.tls_key, settings.tls_ca, data_dir.path / FOLDER)
        if settings.tls == "auto":
            return OwnAuthority(data_dir, given_names(settings), now)
    except OSError as error:
        raise TlsFolderUnusable(path=data_dir.path / FOLDER, cause=error.strerror or str(error)) from error
    return None


def given_names(settings: Settings) -> list[str]:
    """By which names the settings say that the server is reached."""
    urls = (settings.public_url, settings.server_url)
    return [settings.host, *((urlsplit(url).hostname or "") for url in urls if url)]


def authority_fingerprint(pem: str) -> str:
    """The fingerprint of an authority's certificate, to be compared by people."""
    return authority.fingerprint(x509.load_pem_x509_certificate(pem.encode()))


class OwnAuthority:
    """A server whose certificate we sign ourselves.

    Args:
        data_dir: Where everything is kept.
        given: Names that this machine has beside those that it knows of.
        now: The time.
    """

    def __init__(self, data_dir: DataDir, given: Iterable[str], now: float) -> None:
        self._given = list(given)
        self._folder = _private_folder(data_dir.path / FOLDER)
        self._shared_folder = _private_folder(data_dir.storage / FOLDER)
        self._server = self._folder / "server.pem"
        self.bundle: Path | None = self._folder / "bundle.pem"
        self.context = _server_context()
        self.authority_pem: str | None = None
        self.renew(now)
        self.context.load_cert_chain(self._server)

    async def run_once(self, now: float) -> bool:
        """Renew the certificate before it ends, or when this machine has got another address."""
        if renewed := await asyncio.to_thread(self.renew, now):
            self.context.load_cert_chain(self._server)
        return renewed

    def renew(self, now: float) -> bool:
        """Make what is missing or about to end; returns whether the server's certificate is another one now."""
        current = self._authority(now)
        pem = authority.certificate_pem(current.certificate)
        if pem != self.authority_pem:
            _write_public(self._folder / "ca.pem", pem)
            _write_public(self._folder / "bundle.pem", make_bundle(pem))
            self.authority_pem = pem
        wanted = machine_names(self._given)
        if _is_good(self._server, current, wanted, now):
            return False
        write_private(self._server, authority.make_server_certificate(current, wanted, now).pem())
        log.info("tls.certificate_made names=%s", ",".join(sorted(wanted.hosts | wanted.addresses)))
        return True

    def _authority(self, now: float) -> authority.Pair:
        path = self._shared_folder / "authority.pem"
        with _locked(self._shared_folder):
            try:
                current = authority.read_pair(path.read_bytes()) if path.exists() else None
            except ValueError as error:
                raise AuthorityUnusable(path=path, cause=error) from error
            if current is None or authority.days_left(current.certificate, now) < authority.RENEW_AUTHORITY_DAYS:
                name = f"Machineshop on {socket.gethostname()}"
                current = authority.make_authority(name, now) if current is None else _followed(current, now)
                write_private(path, current.pem())
                log.info("tls.authority_made fingerprint=%s", authority.fingerprint(current.certificate))
        return current


class GivenCertificate:
    """A server with a certificate that somebody brings, and may replace while it runs.

    Args:
        certificate: A file with the certificate and those between it and its authority.
        key: A file with its private key, without a password.
        authority_file: The authority, where clients do not know it.
        folder: Where the bundle for replicas is kept.
    """

    def __init__(self, certificate: Path, key: Path, authority_file: Path | None, folder: Path) -> None:
        self._certificate, self._key = certificate, key
        self.bundle: Path | None = None
        self.authority_pem: str | None = None
        self.context = _server_context()
        self._seen = self._load()
        if authority_file is not None:
            pem = read_certificates(authority_file)
            self.authority_pem = certificates(pem)[0] + "\n"
            self.bundle = _private_folder(folder) / "bundle.pem"
            _write_public(self.bundle, make_bundle(pem))

    async def run_once(self, _now: float) -> bool:
        """Take up files that have changed; a bad pair is told of and not taken up."""
        try:
            if self._version() == self._seen:
                return False
            self._seen = self._load()
        except (OSError, MachineshopError) as error:
            log.warning("tls.certificate_not_taken_up error=%s", error)
            return False
        log.info("tls.certificate_taken_up file=%s", self._certificate)
        return True

    def _load(self) -> tuple[float, float]:
        try:
            version = self._version()
            # In a context of its own first: one that fails half-way would leave a pair that does not match.
            for context in (_server_context(), self.context):
                # A key with a password must not make OpenSSL ask for it at the terminal.
                context.load_cert_chain(self._certificate, self._key, password=lambda: b"")
        except (OSError, ValueError) as error:
            cause = getattr(error, "strerror", None) or str(error)
            raise CertificateUnusable(certificate=self._certificate, key=self._key, cause=cause) from error
        return version

    def _version(self) -> tuple[float, float]:
        return self._certificate.stat().st_mtime, self._key.stat().st_mtime


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _followed(current: authority.Pair, now: float) -> authority.Pair:
    """The same authority for another ten years: the same name and key, so that who knows the old one trusts on."""
    (name,) = current.certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return authority.make_authority(str(name.value), now, current.key)


def _is_good(path: Path, issuer: authority.Pair, wanted: Names, now: float) -> bool:
    """Whether the certificate in a file still does."""
    try:
        current = authority.read_pair(path.read_bytes()).certificate
        current.verify_directly_issued_by(issuer.certificate)
    except Exception:  # noqa: BLE001 - whatever is wrong with it, another one is made
        return False
    return authority.days_left(current, now) >= authority.RENEW_SERVER_DAYS and authority.names_of(current).cover(
        wanted
    )


def _private_folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def _write_public(path: Path, text: str) -> None:
    """Replace a file at once by one that all may read: containers run as other users."""
    write_private(path, text)
    path.chmod(0o644)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Servers that start at once make one authority."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
