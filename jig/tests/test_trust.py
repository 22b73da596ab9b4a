"""An authority's fingerprint, and what is trusted with it."""

import ssl

import pytest

from jig.errors import PlatformError
from jig.trust import fingerprint, is_same_fingerprint, trusting

CERTIFICATE = """-----BEGIN CERTIFICATE-----
MIIBfzCCASWgAwIBAgIUF8LKPDf1wYlyai5pGhrepvC9cukwCgYIKoZIzj0EAwIw
-----END CERTIFICATE-----
"""


@pytest.mark.parametrize(
    "text",
    ["AB:CD", "ab:cd", "abcd", "SHA-256 AB:CD", "SHA256:abcd", "sha256 Fingerprint=AB:CD", " ab cd "],
)
def test_a_fingerprint_may_be_written_in_every_way(text: str) -> None:
    assert is_same_fingerprint(text, "AB:CD")
    assert not is_same_fingerprint(text, "AB:CE")


def test_a_damaged_certificate_is_said_to_be_so() -> None:
    with pytest.raises(PlatformError, match="damaged"):
        trusting(CERTIFICATE)
    with pytest.raises(PlatformError, match="no certificate"):
        fingerprint("nothing")


def test_without_an_authority_the_usual_ones_are_trusted() -> None:
    assert trusting(None).verify_mode is ssl.CERT_REQUIRED
