"""The rules that requests are checked against."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from pinxit.config import UsageError
from pinxit.serve.access.body_sizes import BodySizes

LOOPBACK_NAMES = frozenset({"localhost"})
"""Names of this computer that are always accepted as the host."""
ORIGIN = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?")
"""An origin as browsers send it."""
PORTS = {"http": 80, "https": 443}
"""The ports that an address need not name."""


@dataclass(frozen=True)
class AccessRules:
    """Names and origins that are accepted, and the limits of a request."""

    token: str | None = None
    """The token that requests need, or None if everybody who can connect may ask."""
    hosts: frozenset[str] = frozenset()
    """Names and addresses of this server, besides the loopback ones."""
    any_address: bool = False
    """Whether every numeric address is accepted as the host, for a server that listens on all of
    its computer's addresses. Only a name can be rebound by its owner, an address cannot."""
    origins: frozenset[str] = frozenset()
    """Origins of other web pages that may use the API."""
    root_path: str = ""
    """The path below which a proxy serves the studio, without a slash at its end."""
    sizes: BodySizes = field(default_factory=BodySizes)
    """The limits of bodies."""
    cookie: str = "pinxit"
    """The name of the cookie. Cookies are shared by all ports of a host, so it names the port."""

    def accepts_host(self, host: str) -> bool:
        """Returns whether a request may name this host (without the port, in lower case)."""
        if host in LOOPBACK_NAMES or host in self.hosts:
            return True
        try:
            address = ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            return False
        return address.is_loopback or (self.any_address and not address.is_unspecified)


def checked_origins(origins: Sequence[str]) -> frozenset[str]:
    """Returns the origins in the form that browsers send. Raises `UsageError` for any other."""
    for origin in origins:
        if ORIGIN.fullmatch(origin.lower()) is None:
            valid = "the scheme, the name and the port of a page, such as https://example.org"
            raise UsageError("allow_origin", origin, problem="not an origin", valid=valid)
    return frozenset(plain_origin(origin.lower()) for origin in origins)


def checked_hosts(hosts: Sequence[str]) -> frozenset[str]:
    """Returns the names in lower case. Raises `UsageError` for what is no host name."""
    for host in hosts:
        if re.fullmatch(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+\]?", host) is None:
            valid = "a name without scheme, port and wildcard, such as studio.example.org"
            raise UsageError("allow_host", host, problem="not a host name", valid=valid)
    return frozenset(host.lower().rstrip(".").strip("[]") for host in hosts)


def checked_root(path: str) -> str:
    """Returns a proxy's path with a slash at its beginning only. Raises `UsageError` if it is no
    plain path."""
    if re.fullmatch(r"[A-Za-z0-9._~/-]*", path) is None or ".." in path or "//" in path:
        raise UsageError("root_path", path, problem="not a path", valid="a path such as /pinxit")
    inner = path.strip("/")
    return f"/{inner}" if inner else ""


def plain_origin(origin: str) -> str:
    """Returns an origin without the port if it is the one that its scheme implies."""
    match = ORIGIN.fullmatch(origin)
    if match is None:
        return origin
    scheme, host, port = match.groups()
    return f"{scheme}://{host}" + ("" if port in (None, str(PORTS[scheme])) else f":{port}")
