from __future__ import annotations

import pytest

from sprocket.guard import BlockedAddressError, GuardedResolver, is_ip_address, is_public


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.1.1.1",
        "255.255.255.255",
        "240.0.0.1",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd12::1",
        "ff02::1",
        "ff0e::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2002:c0a8:101::1",
        "2001:db8::1",
        "not an address",
        "",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1"])
async def test_names_and_odd_spellings_of_private_addresses_are_blocked(host: str) -> None:
    resolver = GuardedResolver()
    with pytest.raises(BlockedAddressError):
        await resolver.resolve(host, 443)
    await resolver.close()


@pytest.mark.parametrize(
    "host", ["127.000.000.001", "2130706433", "0177.0.0.1", "10.000.000.001", "1.2.3", "1.2.3.4.5"]
)
def test_odd_spellings_of_addresses_do_not_pass_for_names(host: str) -> None:
    assert is_ip_address(host)
    assert not is_public(host)
