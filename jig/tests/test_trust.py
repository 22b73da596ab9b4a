"""An authority's fingerprint, and what is trusted with it."""

import ssl

import pytest
from jig_process import Jig

from jig.answers import may_repeat
from jig.errors import PlatformError
from jig.http import httpx
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


@pytest.mark.parametrize("reason", ["WRONG_VERSION_NUMBER", "CERTIFICATE_VERIFY_FAILED"])
def test_what_speaks_no_tls_or_is_not_trusted_is_not_asked_again(reason: str) -> None:
    error = httpx.ConnectError(f"[SSL: {reason}] as OpenSSL says it")
    assert not may_repeat(error, is_repeatable=True, has_answered=True)


def test_https_on_a_plain_platform_is_said_to_be_so(jig: Jig) -> None:
    base_url = jig.environment["TOGETHER_BASE_URL"]
    finished = jig("list", TOGETHER_BASE_URL=f"https{base_url.removeprefix('http')}")
    assert finished.code == 1
    assert "speaks no TLS" in finished.err
    login = jig("auth", "login", f"https{base_url.removeprefix('http')}", "--api-key-stdin", stdin="msk_1")
    assert login.code == 1
    assert f"speaks no TLS.\nPerhaps it is {base_url}." in login.err
