"""The sockets that the studio listens on: resolved, checked and bound before anything is computed.

Every address but this computer's own needs a token. The check looks at the resolved addresses, so
that it holds for names, names of network interfaces, and unusual spellings of numbers as well.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

import psutil

from pinxit.config import UsageError
from pinxit.serve.access.access_token import ENVIRONMENT, NEW

UNIX = "unix:"
"""The beginning of a host that is a path of a Unix socket."""
BACKLOG = 256
"""Connections that the operating system holds until they are accepted."""


@dataclass(frozen=True)
class Address:
    """One address to listen on."""

    family: socket.AddressFamily
    """The family of the address."""
    host: str
    """The address as a number, or the path of a Unix socket."""

    @property
    def is_local(self) -> bool:
        """Whether only this computer can connect."""
        if self.family not in (socket.AF_INET, socket.AF_INET6):
            return True
        return _number(self.host).is_loopback

    @property
    def is_every(self) -> bool:
        """Whether this stands for all addresses of the computer."""
        internet = self.family in (socket.AF_INET, socket.AF_INET6)
        return internet and _number(self.host).is_unspecified


def _number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Returns a numeric address. One of IPv4 that is written as IPv6 counts as IPv4."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def addresses_of(host: str) -> list[Address]:
    """Returns the addresses that a host means. Raises `UsageError` if it means none."""
    if host.startswith(UNIX):
        if not hasattr(socket, "AF_UNIX"):
            raise UsageError("host", host, problem="not possible on this system", valid="a name")
        return [Address(socket.AF_UNIX, host[len(UNIX) :])]
    interfaces = psutil.net_if_addrs()
    names = [host.strip("[]")]
    if host in interfaces:
        internet = (socket.AF_INET, socket.AF_INET6)
        names = [one.address for one in interfaces[host] if one.family in internet]
    addresses = []
    for name in names:
        try:
            entries = socket.getaddrinfo(
                name or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except (OSError, UnicodeError) as error:
            valid = "127.0.0.1, the address or name of this computer, or of a network interface"
            raise UsageError("host", host, problem="not an address", valid=valid) from error
        addresses += [Address(socket.AddressFamily(one[0]), str(one[4][0])) for one in entries]
    return list(dict.fromkeys(addresses))


def check_reach(host: str, addresses: list[Address], *, has_token: bool) -> None:
    """Raises `UsageError` if other computers could connect and there is no token."""
    open_to_others = [address.host for address in addresses if not address.is_local]
    if open_to_others and not has_token:
        raise UsageError(
            f"host: {host!r} can be reached from other computers, so a token is needed: set the "
            f"environment variable {ENVIRONMENT}, or add --token {NEW} to make one"
        )


def own_names(host: str, addresses: list[Address]) -> frozenset[str]:
    """Returns the names and addresses by which browsers may call the server, in lower case."""
    names = {address.host.partition("%")[0] for address in addresses if not address.is_every}
    if not host.startswith(UNIX):
        names.add(host.strip("[]").rstrip("."))
    if any(not address.is_local for address in addresses):
        name = socket.gethostname()
        names |= {name, f"{name.partition('.')[0]}.local"}
    return frozenset(name.lower() for name in names if name)


def bind_sockets(host: str, port: int, addresses: list[Address]) -> list[socket.socket]:
    """Returns listening sockets, all on one port. Raises `UsageError` if it is in use."""
    sockets: list[socket.socket] = []
    try:
        for address in addresses:
            if address.family not in (socket.AF_INET, socket.AF_INET6):
                sockets.append(_bind_path(Path(address.host)))
                continue
            try:
                sockets.append(_bind_number(address, port))
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL and len(addresses) > 1:
                    continue  # a name may mean an address of a family that is switched off
                raise _binding_error(host, port, error) from error
            port = sockets[-1].getsockname()[1]
    except BaseException:
        for one in sockets:
            one.close()
        raise
    if not sockets:
        raise UsageError("host", host, problem="not an address of this computer", valid="127.0.0.1")
    return sockets


def _bind_number(address: Address, port: int) -> socket.socket:
    listener = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        if os.name != "nt":  # there it would allow a second server on the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address.host, port))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _bind_path(path: Path) -> socket.socket:
    """Returns a listening Unix socket that only this user can connect to."""
    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        raise UsageError("host", f"{UNIX}{path}", problem="a file", valid="a path without a file")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists():
            if listener.connect_ex(str(path)) == 0:
                raise UsageError("host", f"{UNIX}{path}", problem="in use", valid="another path")
            path.unlink()
            listener.close()
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _binding_error(host: str, port: int, error: OSError) -> UsageError:
    """Returns the error for a port or an address that cannot be bound."""
    if error.errno == errno.EADDRINUSE:
        problem = f"in use{_user_of(port)}"
        return UsageError(
            "port", port, problem=problem, valid="another --port, or 0 for a free one"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        problem = "not permitted to this user"
        return UsageError("port", port, problem=problem, valid="1024 to 65535, or 0 for a free one")
    reason = error.strerror or str(error)
    return UsageError("host", host, problem=f"not usable ({reason})", valid="127.0.0.1")


def _user_of(port: int) -> str:
    """Returns " by NAME (process N)" if the operating system tells who listens on a port."""
    try:
        for one in psutil.net_connections("tcp"):
            listens = one.status == psutil.CONN_LISTEN and getattr(one.laddr, "port", 0) == port
            if listens and one.pid:
                return f" by {psutil.Process(one.pid).name()} (process {one.pid})"
    except (psutil.Error, OSError):
        return ""
    return ""


def server_address(sockets: list[socket.socket], host: str) -> str:
    """Returns the address that a browser on this computer can open."""
    first = sockets[0]
    if first.family not in (socket.AF_INET, socket.AF_INET6):
        return f"{UNIX}{first.getsockname()}"
    number, port = first.getsockname()[:2]
    if _number(number).is_unspecified:
        number = "127.0.0.1" if first.family == socket.AF_INET else "::1"
    name = host if host == "localhost" else number.partition("%")[0]
    return f"http://{f'[{name}]' if ':' in name else name}:{port}/"
