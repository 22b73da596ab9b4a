"""Where webhooks may go, by form and by address."""

import ipaddress
from pathlib import Path
from typing import Any

import pytest

from machineshop.config import Settings, parse_networks
from machineshop.errors import InvalidRequest
from machineshop.services.targets import Targets, targets_of

PUBLIC_ONLY = Targets([], loopback=False, own_port=lambda: 8799)
LAPTOP = Targets([], loopback=True, own_port=lambda: 8799)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook",
        "http://example.com:8080/hook?token=a%20b",
        "HTTPS://EXAMPLE.COM",
        "https://bücher.example/hook",
        "http://8.8.8.8/",
        "http://[2606:4700::1111]:8443/",
        "http://[64:ff9b::808:808]/",
    ],
)
def test_public_urls_are_taken(url: str) -> None:
    PUBLIC_ONLY.check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com/hook",
        "//example.com/hook",
        "ftp://example.com/",
        "file:///etc/passwd",
        "http:///hook",
        "http://[::1",
        "http://example.com:99999/",
        "http://exam ple.com/",
        "http://example.com/\n",
        "http://example.com\\@10.0.0.1/",
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"must look like https://example\.com/hook") as raised:
        PUBLIC_ONLY.check_url(url)
    assert raised.value.param == "webhook_url"


@pytest.mark.parametrize("url", ["http://user:pass@example.com/", "http://user@example.com/", "http://@example.com/"])
def test_credentials_are_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="carries credentials"):
        PUBLIC_ONLY.check_url(url)


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("10.1.2.3", "10.1.2.3/32"),
        ("172.16.0.1", "172.16.0.1/32"),
        ("192.168.1.1", "192.168.1.1/32"),
        ("100.64.1.1", "100.64.1.1/32"),
        ("169.254.169.254", "169.254.169.254/32"),
        ("127.0.0.1", "127.0.0.1/32"),
        ("127.0.0.1.", "127.0.0.1/32"),
        ("127.1", "127.0.0.1/32"),
        ("0x7f000001", "127.0.0.1/32"),
        ("2130706433", "127.0.0.1/32"),
        ("017700000001", "127.0.0.1/32"),
        ("localhost", "127.0.0.1/32"),
        ("db.LOCALHOST.", "127.0.0.1/32"),
        ("0.0.0.0", "0.0.0.0/32"),
        ("224.0.0.1", "224.0.0.1/32"),
        ("255.255.255.255", "255.255.255.255/32"),
        ("[::1]", "::1/128"),
        ("[::]", "::/128"),
        ("[::127.0.0.1]", "::7f00:1/128"),
        ("[::ffff:10.0.0.1]", "10.0.0.1/32"),
        ("[64:ff9b::10.0.0.1]", "10.0.0.1/32"),
        ("[64:ff9b:1::10.0.0.1]", "64:ff9b:1::a00:1/128"),
        ("[2002:7f00:1::]", "127.0.0.1/32"),
        ("[2001:0:1:2::3]", "2001:0:1:2::3/128"),
        ("[fe80::1]", "fe80::1/128"),
        ("[fe80::1%25eth0]", "fe80::1/128"),
        ("[fec0::1]", "fec0::1/128"),
        ("[fd00::1]", "fd00::1/128"),
        ("[ff02::1]", "ff02::1/128"),
    ],
)
def test_addresses_that_are_not_public_are_refused_with_the_setting_that_allows_them(host: str, network: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        PUBLIC_ONLY.check_url(f"http://{host}/hook")
    assert raised.value.message.endswith(f"start it with --webhook-network {network}.")
    Targets(parse_networks([network]), loopback=False, own_port=lambda: 0).check_url(f"http://{host}/hook")


def test_a_laptop_may_call_itself_but_not_the_platform() -> None:
    for host in ("127.0.0.1", "localhost", "[::1]"):
        LAPTOP.check_url(f"http://{host}:3000/hook")
        with pytest.raises(InvalidRequest, match="the platform itself"):
            LAPTOP.check_url(f"http://{host}:8799/hook")
    with pytest.raises(InvalidRequest, match="the platform itself"):
        LAPTOP.check_url("http://[::ffff:127.0.0.1]:8799/")
    with pytest.raises(InvalidRequest, match="no public address"):
        LAPTOP.check_url("http://192.168.1.5/hook")


def test_the_default_port_is_the_schemes() -> None:
    on_80 = Targets([], loopback=True, own_port=lambda: 80)
    on_80.check_url("https://127.0.0.1/")
    with pytest.raises(InvalidRequest):
        on_80.check_url("http://127.0.0.1/")


def test_an_allowed_network_does_not_open_the_platform() -> None:
    everywhere = Targets(parse_networks(["0.0.0.0/0", "::/0"]), loopback=True, own_port=lambda: 8799)
    assert everywhere.allows(ipaddress.ip_address("10.0.0.1"), 8799)
    for own in ("127.0.0.1", "::1", "0.0.0.0", "::ffff:127.0.0.1"):
        assert not everywhere.allows(ipaddress.ip_address(own), 8799)
        assert everywhere.allows(ipaddress.ip_address(own), 8800)


def test_networks_are_read_or_refused() -> None:
    assert [str(network) for network in parse_networks(["10.0.0.0/8", " fd00::/8", "10.1.1.1"])] == [
        "10.0.0.0/8",
        "fd00::/8",
        "10.1.1.1/32",
    ]
    for wrong in ("10.0.0.1/8", "10.0.0.0/33", "example.com", ""):
        with pytest.raises(InvalidRequest, match="--webhook-network"):
            parse_networks([wrong])


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({}, True),
        ({"host": "::1", "public_url": "http://localhost:8799"}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "box.example"}, False),
        ({"public_url": "https://machineshop.example"}, False),
        ({"server_url": "http://10.0.0.1:8799"}, False),
        ({"host": "0.0.0.0", "webhook_networks": ("127.0.0.0/8",)}, True),
    ],
)
def test_only_a_server_for_this_machine_alone_calls_it_unasked(settings: dict[str, Any], allowed: bool) -> None:
    targets = targets_of(Settings(data_dir=Path("unused"), **settings), lambda: 8799)
    assert targets.allows(ipaddress.ip_address("127.0.0.1"), 3000) is allowed
    assert not targets.allows(ipaddress.ip_address("127.0.0.1"), 8799)
