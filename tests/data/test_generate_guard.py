"""A server calls only public addresses for its users, in whatever form others are written."""

import asyncio

import httpx
import pytest

from recorded_teacher import recorded_teacher
from tunesmith.core.errors import Forbidden
from tunesmith.data.generate.guard import AddressGuard, GuardedTransport, is_public

HIDDEN = [
    "127.0.0.1",
    "127.8.9.1",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1%eth0",
    "fc00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2002:c0a8:101::",
    "fec0::1",
    "64:ff9b:1::a00:1",
    "64:ff9b:1::101:101",
    "::127.0.0.1",
    "::1.1.1.1",
    "192.0.0.8",
    "192.0.0.9",
    "::ffff:192.0.0.9",
]


@pytest.mark.parametrize("address", HIDDEN)
def test_private_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "64:ff9b::101:101"])
def test_public_addresses_are(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/v1",
        "http://127.0.0.1/v1",
        "http://127.1/v1",
        "http://2130706433/v1",
        "http://0x7f000001/v1",
        "http://[::1]:8000/v1",
        "http://[::ffff:127.0.0.1]/v1",
        "https://169.254.169.254/latest",
        "http://no-such-host.invalid/v1",
    ],
)
def test_the_guard_refuses(url: str) -> None:
    with pytest.raises(Forbidden) as caught:
        asyncio.run(AddressGuard("").check(url))
    assert caught.value.code == "teacher_address_refused"
    assert "TUNESMITH_TEACHER_HOSTS=" in str(caught.value)


def test_the_owner_may_list_hosts_with_their_ports() -> None:
    guard = AddressGuard("localhost:8000, [::1]:443")
    assert asyncio.run(guard.check("http://LOCALHOST:8000/v1")) is None
    assert asyncio.run(guard.check("https://[::1]/v1")) is None
    for url in ("http://localhost:8001/v1", "http://127.0.0.1:8000/v1", "http://[::1]/v1"):
        with pytest.raises(Forbidden):
            asyncio.run(guard.check(url))


def test_a_public_address_is_the_one_connected_to() -> None:
    assert asyncio.run(AddressGuard("").check("http://1.1.1.1/v1")) == "1.1.1.1"


def test_the_transport_looks_at_every_request() -> None:
    async def ask(url: str, allowed: str) -> int:
        transport = GuardedTransport(AddressGuard(allowed))
        async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
            return (await client.post(url, json={})).status_code

    with recorded_teacher() as teacher:
        url = teacher.base_url + "/none"
        host = teacher.base_url.removeprefix("http://").removesuffix("/v1")
        assert asyncio.run(ask(url, host)) == 404
        with pytest.raises(Forbidden):
            asyncio.run(ask(url, ""))
        assert teacher.bodies == []
