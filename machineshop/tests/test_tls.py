"""The platform's authority, the certificates that it signs, and the files that they are kept in."""

import asyncio
import hashlib
import ssl
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from machineshop.config import Settings, check
from machineshop.datadir import DataDir
from machineshop.errors import InvalidRequest
from machineshop.hsts import hsts_headers
from machineshop.tls import authority, open_tls
from machineshop.tls.bundle import BundleUnreadable, certificates, make_bundle, read_certificates
from machineshop.tls.keeper import (
    AuthorityUnusable,
    CertificateUnusable,
    GivenCertificate,
    OwnAuthority,
    authority_fingerprint,
    given_names,
)
from machineshop.tls.names import Names, machine_names, sort

NOW = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
DAY = 86400.0
NAMES = Names(frozenset({"example.com"}), frozenset({"10.0.0.7", "::1"}))


@pytest.fixture
def data_dir(tmp_path: Path) -> DataDir:
    data_dir = DataDir(tmp_path / "data")
    data_dir.make_private()
    return data_dir


def served(data_dir: DataDir) -> x509.Certificate:
    return x509.load_pem_x509_certificate((data_dir.path / "tls" / "server.pem").read_bytes())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_certificate_names_hosts_and_addresses_and_is_signed_by_the_authority() -> None:
    issuer = authority.make_authority("Test", NOW)
    server = authority.make_server_certificate(issuer, NAMES, NOW)

    server.certificate.verify_directly_issued_by(issuer.certificate)
    assert authority.names_of(server.certificate) == NAMES
    assert authority.days_left(server.certificate, NOW) == authority.SERVER_DAYS
    assert authority.names_of(issuer.certificate) == Names(frozenset(), frozenset())


def test_an_authority_signs_servers_and_no_other_authority() -> None:
    extensions = authority.make_authority("Test", NOW).certificate.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)

    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)


def test_a_pair_is_read_as_it_was_written_and_a_mixed_one_is_not() -> None:
    one, other = authority.make_authority("One", NOW), authority.make_authority("Other", NOW)

    assert authority.read_pair(one.pem().encode()).certificate == one.certificate
    mixed = one.pem().replace(authority.certificate_pem(one.certificate), authority.certificate_pem(other.certificate))
    with pytest.raises(ValueError, match="belong together"):
        authority.read_pair(mixed.encode())


def test_names_are_sorted_into_hosts_and_addresses_and_what_is_neither_is_left_out() -> None:
    found = sort(["Example.COM.", "[::1]", "10.0.0.7", "0.0.0.0", "", "no name", "*.example.com"])

    assert found == Names(frozenset({"example.com", "*.example.com"}), frozenset({"::1", "10.0.0.7"}))


def test_this_machines_names_hold_loopback_and_what_settings_say() -> None:
    settings = Settings(
        data_dir=Path("x"), host="10.1.2.3", public_url="https://ship.example.com:1", server_url="http://[fd00::5]:2"
    )
    names = machine_names(given_names(settings))

    assert {"localhost", "host.docker.internal", "ship.example.com"} <= names.hosts
    assert {"127.0.0.1", "::1", "10.1.2.3", "fd00::5"} <= names.addresses


def test_keys_are_their_owners_alone_and_the_rest_may_be_read(data_dir: DataDir) -> None:
    keeper = OwnAuthority(data_dir, [], NOW)
    folder = data_dir.path / "tls"

    assert [mode(folder / name) for name in ("authority.pem", "server.pem")] == [0o600, 0o600]
    assert [mode(folder / name) for name in ("ca.pem", "bundle.pem")] == [0o644, 0o644]
    assert keeper.authority_pem == (folder / "ca.pem").read_text()
    assert "PRIVATE" not in (folder / "ca.pem").read_text() + (folder / "bundle.pem").read_text()


def test_nothing_older_than_tls_1_2_is_spoken(data_dir: DataDir) -> None:
    assert OwnAuthority(data_dir, [], NOW).context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_restart_keeps_the_certificate(data_dir: DataDir) -> None:
    OwnAuthority(data_dir, [], NOW)
    before = served(data_dir)
    OwnAuthority(data_dir, [], NOW + DAY)

    assert served(data_dir) == before


async def test_it_is_renewed_a_month_before_its_end(data_dir: DataDir) -> None:
    keeper = OwnAuthority(data_dir, [], NOW)
    assert not await keeper.run_once(NOW + 59 * DAY)
    assert await keeper.run_once(NOW + 61 * DAY)

    assert authority.days_left(served(data_dir), NOW + 61 * DAY) == authority.SERVER_DAYS


def test_another_name_makes_another_certificate_of_the_same_authority(data_dir: DataDir) -> None:
    before = OwnAuthority(data_dir, [], NOW).authority_pem
    after = OwnAuthority(data_dir, ["ship.example.com"], NOW).authority_pem

    assert "ship.example.com" in authority.names_of(served(data_dir)).hosts
    assert before == after


@pytest.mark.parametrize("text", ["", "not a certificate"])
def test_a_broken_certificate_is_made_anew(data_dir: DataDir, text: str) -> None:
    OwnAuthority(data_dir, [], NOW)
    (data_dir.path / "tls" / "server.pem").write_text(text)
    OwnAuthority(data_dir, [], NOW)

    assert authority.days_left(served(data_dir), NOW) > 0


def test_a_broken_authority_is_not_replaced_in_silence(data_dir: DataDir) -> None:
    OwnAuthority(data_dir, [], NOW)
    (data_dir.path / "tls" / "authority.pem").write_text("half of it")

    with pytest.raises(AuthorityUnusable, match=r"authority\.pem"):
        OwnAuthority(data_dir, [], NOW)


async def test_an_authority_near_its_end_is_followed_by_one_with_the_same_key(data_dir: DataDir) -> None:
    keeper = OwnAuthority(data_dir, [], NOW)
    old = x509.load_pem_x509_certificate((keeper.authority_pem or "").encode())
    later = NOW + (authority.AUTHORITY_DAYS - authority.RENEW_AUTHORITY_DAYS + 1) * DAY
    await keeper.run_once(later)

    new = x509.load_pem_x509_certificate((keeper.authority_pem or "").encode())
    assert new != old
    served(data_dir).verify_directly_issued_by(old)
    served(data_dir).verify_directly_issued_by(new)
    assert str(keeper.authority_pem) in (data_dir.path / "tls" / "bundle.pem").read_text()


def test_servers_that_share_a_storage_directory_share_the_authority(tmp_path: Path) -> None:
    both = [DataDir(tmp_path / name, tmp_path / "shared") for name in ("one", "other")]
    for data_dir in both:
        data_dir.make_private()
    pems = [OwnAuthority(data_dir, [], NOW).authority_pem for data_dir in both]

    assert pems[0] == pems[1]
    assert served(both[0]) != served(both[1])


def test_the_bundle_holds_the_systems_authorities_and_ours_once(
    data_dir: DataDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pem = str(OwnAuthority(data_dir, [], NOW).authority_pem)
    private = authority.certificate_pem(authority.make_authority("Of the company", NOW).certificate)
    (tmp_path / "company.pem").write_text(f"# ours\n{private}{pem}")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "company.pem"))

    bundle = certificates(make_bundle(pem))

    assert bundle.count(pem.strip()) == 1
    assert private.strip() in bundle
    assert len(bundle) > 50, "the system's are there too"


def test_a_given_certificate_is_taken_up_when_it_changes_and_a_bad_one_is_not(data_dir: DataDir) -> None:
    issuer = authority.make_authority("Of the company", NOW)
    certificate, key = data_dir.path / "cert.pem", data_dir.path / "key.pem"
    both = authority.make_server_certificate(issuer, NAMES, NOW).pem()
    certificate.write_text(both)
    key.write_text(both)
    (data_dir.path / "company.pem").write_text(authority.certificate_pem(issuer.certificate))
    keeper = GivenCertificate(certificate, key, data_dir.path / "company.pem", data_dir.path / "tls")

    assert keeper.authority_pem == authority.certificate_pem(issuer.certificate)
    assert keeper.bundle is not None
    assert keeper.authority_pem in keeper.bundle.read_text()

    async def changed(text: str) -> bool:
        keeper._seen = (0.0, 0.0)
        certificate.write_text(text)
        return await keeper.run_once(NOW)

    assert asyncio.run(changed(both))
    assert not asyncio.run(changed("nonsense"))


def test_a_certificate_that_cannot_be_used_is_named(data_dir: DataDir) -> None:
    with pytest.raises(CertificateUnusable, match=r"missing\.pem"):
        GivenCertificate(data_dir.path / "missing.pem", data_dir.path / "key.pem", None, data_dir.path)
    (data_dir.path / "empty.pem").write_text("")
    with pytest.raises(BundleUnreadable, match=r"empty\.pem"):
        read_certificates(data_dir.path / "empty.pem")


def test_without_tls_nothing_is_made(data_dir: DataDir) -> None:
    assert open_tls(Settings(data_dir=data_dir.path), data_dir, NOW) is None
    assert not (data_dir.path / "tls").exists()


def test_the_fingerprint_is_the_one_that_openssl_prints() -> None:
    pem = authority.certificate_pem(authority.make_authority("Test", NOW).certificate)
    digest = authority_fingerprint(pem)

    assert len(digest) == 95
    assert bytes.fromhex(digest.replace(":", "")) == hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).digest()


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"tls": "on"}, "tls"),
        ({"tls_cert": Path("c")}, "tls_cert"),
        ({"tls_cert": Path("c"), "tls_key": Path("k"), "tls": "auto"}, "tls"),
        ({"tls_ca": Path("c")}, "tls_ca"),
        ({"hsts": True}, "hsts"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(given: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check(Settings(data_dir=Path("x"), **given))  # type: ignore[arg-type]
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("given", "base_url", "sent"),
    [
        ({"tls": "auto"}, "https://ship.example.com", False),
        ({"tls_cert": Path("c")}, "https://ship.example.com", True),
        ({"tls_cert": Path("c")}, "https://127.0.0.1:1", False),
        ({"tls_cert": Path("c"), "hsts": False}, "https://ship.example.com", False),
        ({"tls": "auto", "hsts": True}, "https://localhost:1", True),
        ({}, "https://ship.example.com", False),
    ],
)
def test_browsers_are_held_to_https_where_a_certificate_was_given(
    given: dict[str, object], base_url: str, sent: bool
) -> None:
    assert bool(hsts_headers(Settings(data_dir=Path("x"), **given), base_url)) is sent  # type: ignore[arg-type]
