"""Platforms whose certificate is signed by an authority of their own: getting to know it, by its fingerprint.

Whoever is in between could answer with an authority of theirs, so nothing secret is said before a person, or a script
that was told the fingerprint, has compared it.
"""

from __future__ import annotations

import hashlib
import re
import ssl

from jig.answers import NO_TLS, NOT_TRUSTED, speaks_no_tls
from jig.errors import PlatformError, UnreachableError
from jig.http import httpx

PATH = "/v1/tls/ca"
MAX_BYTES = 64 * 1024
FETCH_TIMEOUT_SECONDS = 10.0
PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


def trusting(ca: str | None) -> ssl.SSLContext:
    """What verifies a platform's certificate: the usual authorities and, where there is one, the platform's own.

    Args:
        ca: the certificate of that one, in PEM form.

    Raises:
        PlatformError: it is no certificate.
    """
    context = httpx.create_ssl_context()
    if ca:
        try:
            context.load_verify_locations(cadata=ca)
        except (ssl.SSLError, ValueError) as error:
            message = "The certificate of the platform's authority that jig keeps is damaged."
            raise PlatformError(message, hint="Log in again: jig auth login.") from error
    return context


def is_trusted(base_url: str, ca: str | None) -> bool:
    """True where the certificate of this platform can be verified.

    Raises:
        UnreachableError: nobody answers there, or not by TLS.
    """
    try:
        httpx.get(f"{base_url}/health", verify=trusting(ca), timeout=FETCH_TIMEOUT_SECONDS)
    except httpx.ConnectError as error:
        if NOT_TRUSTED in str(error):
            return False
        if NO_TLS in str(error):
            raise speaks_no_tls(base_url) from error
        raise UnreachableError(f"No platform answers at {base_url} by HTTPS: {error}.") from error
    except httpx.HTTPError as error:
        raise UnreachableError(f"No platform answers at {base_url}: {str(error) or type(error).__name__}.") from error
    return True


def fetch_authority(base_url: str) -> str:
    """The certificate of a platform's authority, in PEM form: of whom, is for its fingerprint to say.

    Raises:
        PlatformError: the platform has none of its own.
    """
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.check_hostname = False
    nobody.verify_mode = ssl.CERT_NONE  # nothing secret is sent, and what comes is compared
    try:
        answer = httpx.get(f"{base_url}{PATH}", verify=nobody, timeout=FETCH_TIMEOUT_SECONDS)
    except httpx.HTTPError as error:
        raise UnreachableError(f"No platform answers at {base_url}: {str(error) or type(error).__name__}.") from error
    found = PEM.search(answer.text[:MAX_BYTES]) if answer.is_success else None
    if found is None:
        message = f"The certificate of {base_url} is not trusted, and what answers there offers no authority."
        hint = "Set SSL_CERT_FILE to the certificate of its authority, or mend the platform's certificate."
        raise PlatformError(message, hint=hint)
    return found.group() + "\n"


def fingerprint(ca: str) -> str:
    """The SHA-256 of a certificate as people compare it: `AB:CD:...`.

    Raises:
        PlatformError: it is no certificate.
    """
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(ca)).digest().hex(":").upper()
    except ValueError as error:
        raise PlatformError("What the platform offers as its authority is no certificate.") from error


def is_same_fingerprint(one: str, other: str) -> bool:
    """True for the same fingerprint, with or without colons and the algorithm's name."""
    return _bare(one) == _bare(other)


def _bare(text: str) -> str:
    """The digits alone, of what the platform prints or openssl does: `SHA-256 AB:CD`, `sha256 Fingerprint=AB:CD`."""
    without_name = re.sub(r"^SHA-?256", "", text.strip().upper())
    return re.sub(r"FINGERPRINT|[:=\s]", "", without_name)
