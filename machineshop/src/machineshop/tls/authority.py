"""A certificate authority of our own, and the certificates that it signs. Pure: takes `now`, returns values.

Certificates satisfy RFC 5280 to the letter (key identifiers, critical basic constraints, key usage): Python 3.13 and
later check that by default.
"""

import ipaddress
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from machineshop.tls.names import Names

AUTHORITY_DAYS = 3650
# From here on clients may get to know the next one; the one before it is good until its end.
RENEW_AUTHORITY_DAYS = 730
# Apple's clients take none of a private authority that is good for more than 825 days; ours is renewed by itself.
SERVER_DAYS = 90
RENEW_SERVER_DAYS = 30
# Clocks of other machines may be behind.
BACKDATED = timedelta(hours=1)


class Pair(NamedTuple):
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def pem(self) -> str:
        """Both in one text, which is secret: a file of it is never half of an older pair."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return key.decode() + certificate_pem(self.certificate)


def read_pair(pem: bytes) -> Pair:
    """What `Pair.pem` wrote.

    Raises:
        ValueError: It is something else, or the two do not belong together.
    """
    key = load_pem_private_key(pem, None)
    certificate = x509.load_pem_x509_certificate(pem)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        raise ValueError("the certificate and the key do not belong together")
    return Pair(certificate, key)


def certificate_pem(certificate: x509.Certificate) -> str:
    """A certificate as text, which is public."""
    return certificate.public_bytes(Encoding.PEM).decode()


def fingerprint(certificate: x509.Certificate) -> str:
    """The SHA-256 of a certificate as people compare it: `AB:CD:...`."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def make_authority(common_name: str, now: float, key: ec.EllipticCurvePrivateKey | None = None) -> Pair:
    """A new authority.

    Args:
        common_name: What it is called in clients' lists.
        now: When.
        key: The key of an earlier one that this one follows: what that one signed stays good.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)  # signs certificates, and lists
    certificate = (
        _begun(name, name, key, now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return Pair(certificate, key)


def make_server_certificate(authority: Pair, names: Names, now: float) -> Pair:
    """A certificate for a server that has these names."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate.subject
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Machineshop server")])
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)  # signs handshakes
    certificate = (
        _begun(subject, issuer, key, now, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .add_extension(_alternative_names(names), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return Pair(certificate, key)


def names_of(certificate: x509.Certificate) -> Names:
    """Whom a certificate is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return Names(frozenset(), frozenset())
    addresses = found.get_values_for_type(x509.IPAddress)
    return Names(frozenset(found.get_values_for_type(x509.DNSName)), frozenset(str(address) for address in addresses))


def days_left(certificate: x509.Certificate, now: float) -> float:
    """For how long it is good."""
    return (certificate.not_valid_after_utc - datetime.fromtimestamp(now, UTC)) / timedelta(days=1)


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: float, days: int
) -> x509.CertificateBuilder:
    begin = datetime.fromtimestamp(now, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - BACKDATED)
        .not_valid_after(begin + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _alternative_names(names: Names) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(
        [
            *(x509.DNSName(name) for name in sorted(names.hosts)),
            *(x509.IPAddress(ipaddress.ip_address(address)) for address in sorted(names.addresses)),
        ]
    )
