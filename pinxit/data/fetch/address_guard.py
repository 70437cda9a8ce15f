"""Allows connections to public internet addresses only.

A URL in a dataset is untrusted. It may point to the machine's own services or to the cloud's
metadata server: directly (``http://169.254.169.254/``, ``http://0x7f.1/``), by a name that resolves
to one, by a redirect, or by a name that resolves differently each time (DNS rebinding). One rule
covers all of these: the address is checked at the moment of connecting, whatever name led to it.
`Guard.socket` creates every socket, so no connection bypasses the check; URLs and resolved names
are checked earlier only to save the attempt.

The tables follow the special-purpose address registries of IANA (RFC 6890 and its updates). For
IPv6 the rule is reversed: only global unicast (2000::/3) is public, except for what is reserved.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pinxit.config import UsageError

if TYPE_CHECKING:
    from yarl import URL

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
Socket = socket.socket

SPECIAL = {
    "0.0.0.0/8": "unspecified (this network)",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared by a carrier's customers",
    "127.0.0.0/8": "loopback",
    "168.63.129.16/32": "a cloud platform's own service",
    "169.254.0.0/16": "link-local",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "reserved for protocols",
    "192.0.2.0/24": "documentation",
    "192.31.196.0/24": "reserved for protocols",
    "192.52.193.0/24": "reserved for protocols",
    "192.88.99.0/24": "a 6to4 relay",
    "192.168.0.0/16": "private",
    "192.175.48.0/24": "reserved for protocols",
    "198.18.0.0/15": "for benchmarks of networks",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
    "::/128": "unspecified",
    "::1/128": "loopback",
    "::/96": "IPv4 in IPv6 (compatible)",
    "::ffff:0:0/96": "IPv4 in IPv6 (mapped)",
    "64:ff9b::/96": "IPv4 in IPv6 (NAT64)",
    "64:ff9b:1::/48": "IPv4 in IPv6 (NAT64)",
    "2001::/32": "IPv4 in IPv6 (Teredo)",
    "2001::/23": "reserved for protocols",
    "2001:db8::/32": "documentation",
    "2002::/16": "IPv4 in IPv6 (6to4)",
    "2620:4f:8000::/48": "reserved for protocols",
    "3fff::/20": "documentation",
    "fc00::/7": "private",
    "fe80::/10": "link-local",
    "fec0::/10": "site-local",
    "ff00::/8": "multicast",
}
"""Networks that are not public, and what each is for; the first match is reported."""

PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")
_SPECIAL = tuple((ipaddress.ip_network(network), what) for network, what in SPECIAL.items())
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LABEL = re.compile(r"[a-z0-9_-]{1,63}", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)


class Refused(OSError):
    """A connection that the guard does not allow; `strerror` is the reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EACCES, reason)


@lru_cache(maxsize=4096)
def special_use(address: Address) -> str | None:
    """Returns what a special address is for, or None for a public one."""
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        return "bound to an interface"
    for network, what in _SPECIAL:
        if address in network:
            return what
    if isinstance(address, ipaddress.IPv6Address) and address not in PUBLIC_IPV6:
        return "not global unicast"
    return None


def embedded(address: Address) -> ipaddress.IPv4Address | None:
    """Returns the IPv4 address inside an IPv6 one (mapped, compatible, 6to4, Teredo, NAT64)."""
    if isinstance(address, ipaddress.IPv4Address) or int(address) <= 1:
        return None
    teredo = address.teredo
    inner = address.ipv4_mapped or address.sixtofour or (teredo and teredo[1])
    if inner:
        return inner
    carriers = ("::/96", "64:ff9b::/96", "64:ff9b:1::/48")
    if any(address in ipaddress.IPv6Network(carrier) for carrier in carriers):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


class Guard:
    """Decides on connections, by address, port and domain."""

    def __init__(
        self,
        *,
        allow_networks: Sequence[str] = (),
        ports: Sequence[int] = (80, 443),
        blocked_domains: Sequence[str] = (),
    ) -> None:
        """Allows public addresses on `ports` (empty: on all), and `allow_networks` (CIDR) on any
        port although they are not public. A blocked domain includes its subdomains. Raises
        `UsageError` for an invalid network or domain, and for networks wider than /8."""
        self.allowed = tuple(_network(network) for network in allow_networks)
        self.ports = frozenset(ports)
        self.domains = frozenset(_domain(domain) for domain in blocked_domains)

    def refusal(self, address: str, port: int) -> str | None:
        """Returns why a connection to this address and port is refused, or None if allowed."""
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return f"{address[:60]!r} is not an address"
        if any(ip in network for network in self.allowed):
            inner = embedded(ip)
            return None if inner is None else self.refusal(str(inner), port)
        what = special_use(ip)
        if what is not None:
            return f"{address} is {what}"
        if self.ports and port not in self.ports:
            return f"port {port}"
        return None

    def refuses_url(self, url: URL) -> str | None:
        """Returns why this URL is refused, judging by its text alone, or None if it is allowed."""
        host, port = str(url.raw_host), int(url.port or 0)
        if url.user is not None or url.password is not None:
            return "credentials in the URL"
        if ":" in host or numeric(host):
            return self.refusal(host, port)
        labels = host.rstrip(".").split(".")
        for first in range(len(labels)):
            domain = ".".join(labels[first:])
            if domain in self.domains:
                return f"the domain {domain} is blocked"
        return None

    def socket(self, info: tuple[Any, ...]) -> Socket:
        """Returns a socket for an entry of `socket.getaddrinfo`, or raises `Refused`."""
        family, kind, protocol, _, address = info
        reason = self.refusal(address[0], address[1])
        if reason is not None:
            raise Refused(reason)
        return socket.socket(family, kind, protocol)


def numeric(host: str) -> bool:
    """Returns whether a host is an IPv4 address in any notation: decimal, octal, hex or short.

    A resolver would turn ``2130706433``, ``0x7f.1`` and ``0177.0.0.1`` into 127.0.0.1. As in
    browsers (WHATWG URL, "ends in a number"), the last label decides; only the usual four decimal
    parts are then an address at all.
    """
    last = host.removesuffix(".").rsplit(".", 1)[-1]
    return _NUMBER.fullmatch(last) is not None


def parse_url(text: str) -> URL:
    """Returns the parsed URL: http or https, with a host made of ordinary characters.

    Every check and the client use the returned value, never the text, so that one URL cannot be
    read in two ways. Raises ValueError with the reason.
    """
    from yarl import URL

    text = text.strip()
    if not text or len(text) > 8192:
        raise ValueError("no URL" if not text else "the URL is longer than 8192 characters")
    if _CONTROL.search(text):
        raise ValueError("control characters in the URL")
    url = URL(text)
    if url.scheme not in ("http", "https"):
        raise ValueError(f"the scheme {url.scheme[:20]!r}" if url.scheme else "no scheme")
    host = url.raw_host
    if not host:
        raise ValueError("no host")
    labels = host.removesuffix(".").split(".")
    if "[" in re.split("[/?#]", text.partition("://")[2], maxsplit=1)[0]:
        ordinary = "%" not in host and ":" in host
    else:
        ordinary = len(host) <= 253 and all(_LABEL.fullmatch(label) for label in labels)
    if not ordinary:
        raise ValueError(f"the host {host[:60]!r}")
    if not url.port:
        raise ValueError("port 0")
    return url


def follow(url: URL, location: str) -> str:
    """Returns the target of a ``Location`` header, which may be relative to `url`.

    Raises ValueError for a target that is no URL.
    """
    from yarl import URL

    return str(url.join(URL(location.strip())))


def _network(text: str) -> IPNetwork:
    valid = "a network such as 127.0.0.1/32 or 10.20.0.0/16, no wider than /8"
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise UsageError("allow_networks", text, problem=str(error), valid=valid) from error
    if network.prefixlen < 8:
        raise UsageError("allow_networks", text, problem="too wide", valid=valid)
    return network


def _domain(text: str) -> str:
    name = text.strip().lower().removeprefix("*.").strip(".")
    try:
        if any(character in name for character in ":/?#@[]"):
            raise ValueError("more than a domain")
        url = parse_url(f"http://{name}/")
    except ValueError as error:
        valid = "a domain such as example.com"
        raise UsageError("blocked_domains", text, problem="no domain", valid=valid) from error
    return str(url.raw_host)
