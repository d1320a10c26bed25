"""Which addresses a server may call for its users: public ones, and those its owner has listed.

A name is resolved once for each call, every address it has is checked, and the connection goes to a checked one: a
name that changes its address between check and call gains nothing.
"""

import asyncio
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

import httpx

from tunesmith.core.errors import Forbidden

DEFAULT_PORTS = {"http": 80, "https": 443}
_NAT64 = IPv6Network("64:ff9b::/96")
_NEVER_PUBLIC = (
    IPv4Network("192.0.0.0/24"),  # RFC 6890: a provider's own equipment, some of which Python calls global
    IPv6Network("::/96"),  # RFC 4291 2.5.5.1: IPv4 in IPv6, as it was written once
    IPv6Network("64:ff9b:1::/48"),  # RFC 8215: NAT64 into a private network
    IPv6Network("fec0::/10"),  # RFC 3879: site local
)


class AddressGuard:
    """Made from ``TUNESMITH_TEACHER_HOSTS``: ``host:port`` pairs with commas between; those are let through unseen."""

    def __init__(self, allowed: str):
        self._allowed = {pair.strip().lower() for pair in allowed.split(",") if pair.strip()}

    async def check(self, url: str) -> str | None:
        """The address to connect to for ``url``; None where the owner has listed it. Raises Forbidden."""
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        port = parts.port or DEFAULT_PORTS[parts.scheme]
        shown_host = f"[{host}]" if ":" in host else host
        if f"{shown_host}:{port}" in self._allowed:
            return None
        addresses = await _resolve(host, port)
        hidden = next((address for address in addresses if not is_public(address)), None)
        if hidden is not None or not addresses:
            raise _refusal(f"{shown_host}:{port}", hidden)
        return addresses[0]


class GuardedTransport(httpx.AsyncBaseTransport):
    """Checks each request's address as it goes out; TLS still proves the name that was asked for."""

    def __init__(self, guard: AddressGuard):
        self._guard = guard
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        address = await self._guard.check(str(request.url))
        if address is not None:
            request.extensions = {**request.extensions, "sni_hostname": request.url.host}
            request.url = request.url.copy_with(host=address)
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


def is_public(text: str) -> bool:
    """Whether an address is one of the open internet, also where it is wrapped in another form."""
    address = ip_address(text.partition("%")[0])
    inner = _wrapped(address)
    if inner is not None and not is_public(str(inner)):
        return False
    if any(address in network for network in _NEVER_PUBLIC):
        return False
    return address.is_global and not address.is_multicast


def _wrapped(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for: mapped, 6to4 or NAT64."""
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


async def _resolve(host: str, port: int) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(entry[4][0]) for entry in found]


def _refusal(where: str, hidden: str | None) -> Forbidden:
    why = f"it is the address {hidden} of a private network" if hidden else "its name has no address"
    return Forbidden(
        f"This server does not call {where}: {why}.",
        code="teacher_address_refused",
        param="teacher.base_url",
        mend=f"The server's owner can allow it: TUNESMITH_TEACHER_HOSTS={where}.",
    )
