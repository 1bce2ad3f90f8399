"""What may be downloaded: which URLs, from which hosts, at which addresses, and how much of it."""

import ipaddress
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from tlx.errors import DataError

_PORTS = {"https": 443, "http": 80}
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*|\[[0-9a-f:.]+\]")
_PATTERN = re.compile(rf"\*(\.{_LABEL}){{2,}}|{_HOST.pattern}")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Of IPv6 only this part is given out for the public internet; this IPv4 part is for protocols.
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_PROTOCOLS = ipaddress.ip_network("192.0.0.0/24")


class RefusedError(Exception):
    """A download that is not made, or not kept: its `cause` in a few words, and what was seen."""

    def __init__(self, cause: str, detail: str = ""):
        super().__init__(detail or cause)
        self.cause = cause


class Target(NamedTuple):
    """A URL that may be asked for: `host` in ASCII, `path` with the query, percent-encoded."""

    scheme: str
    host: str
    port: int
    path: str


@dataclass(frozen=True)
class Limits:
    """What may be downloaded.

    `hosts` are names such as "images.example.com", or "*.example.com" for all under it. `seconds` is for
    each file, from the first look-up to its last byte; `max_bytes` for each, `total_bytes` for all of them.
    """

    hosts: tuple[str, ...]
    allow_http: bool = False
    max_bytes: int = 50_000_000
    total_bytes: int = 20_000_000_000
    seconds: float = 30.0
    redirects: int = 5
    ports: frozenset[int] = frozenset(_PORTS.values())

    def __post_init__(self):
        for pattern in self.hosts:
            if not _PATTERN.fullmatch(pattern):
                raise DataError(
                    f"{pattern!r} is no host to allow; write names such as images.example.com, or *.example.com"
                )

    def allows(self, host: str) -> bool:
        """Return whether `hosts` has the host."""
        return any(host == one or (one.startswith("*.") and host.endswith(one[1:])) for one in self.hosts)


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses that the system's resolver tells for a host."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_public(address: str) -> bool:
    """Return whether an IP address is one of the public internet, and so is the IPv4 address that it stands for.

    Private, loopback, link-local, shared (carrier-grade NAT), multicast, documentation, reserved and
    unspecified ranges are not. IPv4 addresses inside of IPv6 ones (mapped, 6to4, NAT64) are looked at themselves.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    given_out = ip in _GLOBAL_UNICAST if ip.version == 6 else ip not in _PROTOCOLS
    return given_out and ip.is_global and not (ip.is_private or ip.is_multicast or ip.is_reserved)


@dataclass(frozen=True)
class Network:
    """The network as downloads see it; tests put their own servers in its place."""

    resolve: Callable[[str, int], list[str]] = resolve
    is_public: Callable[[str], bool] = is_public
    context: ssl.SSLContext = field(default_factory=ssl.create_default_context)


def host_of(url: str) -> str:
    """Return a URL's host in ASCII and lower case; raises RefusedError where it has none."""
    try:
        host = urlsplit(url).hostname or ""
        if ":" in host:
            return f"[{ipaddress.IPv6Address(host)}]"
        host = host.rstrip(".").encode("idna").decode("ascii").lower()
    except ValueError as error:
        raise RefusedError("not a URL", f"{url[:200]!r} ({error})") from error
    if not _HOST.fullmatch(host):
        raise RefusedError("not a URL", f"{url[:200]!r} names no host")
    return host


def checked(url: str, limits: Limits) -> Target:
    """Return what to ask for a URL; raises RefusedError where the limits do not allow it."""
    if re.search(r"[\x00-\x1f\x7f\\]", url) or len(url) > 8000:
        raise RefusedError("not a URL", f"{url[:200]!r} has control characters or backslashes, or is too long")
    host = host_of(url)
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme not in _PORTS:
        raise RefusedError(f"{scheme[:20]}, not https", url[:200])
    if "@" in parts.netloc:
        raise RefusedError("credentials in the URL", f"{host}: remove them")
    if scheme == "http" and not limits.allow_http:
        raise RefusedError("http, not https", f"{url[:200]}: --allow_http allows it")
    if not limits.allows(host):
        raise RefusedError("host not allowed", host)
    try:
        port = parts.port or _PORTS[scheme]
    except ValueError as error:
        raise RefusedError("not a URL", f"{url[:200]!r} ({error})") from error
    if port not in limits.ports:
        raise RefusedError("port not allowed", f"{host}:{port}")
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~?")
    return Target(scheme, host, port, f"{path}?{query}" if query else path)


def addresses(target: Target, network: Network) -> list[str]:
    """Return the addresses to connect to; raises RefusedError where one of them is not public, or there is none."""
    host = target.host.strip("[]")
    try:
        found = network.resolve(host, target.port)
    except (OSError, UnicodeError) as error:
        raise RefusedError("unknown host", f"{host} ({error})") from error
    for address in found:
        if not network.is_public(address):
            raise RefusedError("private address", f"{host} is at {address}, which is not on the public internet")
    if not found:
        raise RefusedError("unknown host", host)
    return found
