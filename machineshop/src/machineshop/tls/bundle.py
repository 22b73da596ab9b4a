"""What replicas trust: the system's authorities and the platform's own, in one file.

Programs replace their list of authorities by the one that they are told of, so ours alone would cut replicas off from
the rest of the world.
"""

import os
import ssl
from pathlib import Path

import certifi

from machineshop.errors import MachineshopError

# Where systems keep theirs, should OpenSSL's own idea of it lead nowhere.
USUAL_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
# Who runs the server behind an authority of their own says so by one of these.
VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
# The system's are a quarter of a megabyte.
MAX_FILE_BYTES = 8 * 1024 * 1024
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


class BundleUnreadable(MachineshopError):
    """The certificates in {path} cannot be used: {cause}. Name a file of certificates in PEM form."""


def make_bundle(own: str) -> str:
    """Everything to trust, each certificate once.

    Args:
        own: The platform's authority, in PEM form.
    """
    texts = [own, *(_read(Path(path)) for path in _system_files())]
    return "".join(f"{certificate}\n" for certificate in dict.fromkeys(c for text in texts for c in certificates(text)))


def certificates(text: str) -> list[str]:
    """The PEM blocks of a text, without the names and remarks between them."""
    parts = text.split(_BEGIN)[1:]
    return [f"{_BEGIN}{part.partition(_END)[0]}{_END}" for part in parts if _END in part]


def read_certificates(path: Path) -> str:
    """A file of certificates.

    Raises:
        BundleUnreadable: There is none, or it has none.
    """
    try:
        text = path.read_bytes()[:MAX_FILE_BYTES].decode("latin-1")
        found = certificates(text)
        ssl.create_default_context(cadata="\n".join(found) or "nothing")
    except (OSError, ssl.SSLError, ValueError) as error:
        raise BundleUnreadable(path=path, cause=getattr(error, "strerror", None) or str(error)) from error
    return "\n".join(found) + "\n"


def _system_files() -> list[str]:
    named = [value for name in VARIABLES if (value := os.environ.get(name))]
    default = ssl.get_default_verify_paths().openssl_cafile
    # The first that is there, and what Python programs bring along where there is none.
    system = next((path for path in (default, *USUAL_FILES) if Path(path).is_file()), certifi.where())
    return [*named, system]


def _read(path: Path) -> str:
    try:
        return path.read_bytes()[:MAX_FILE_BYTES].decode("latin-1")
    except OSError:
        return ""
