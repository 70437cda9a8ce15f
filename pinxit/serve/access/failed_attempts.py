"""Limits how often a client may show a wrong token.

Each network address has a budget of wrong tokens that refills slowly. An address without budget is
refused before its token is compared, so that it learns nothing. The owner is not locked out: an
address that has shown the right token, this computer itself, and a browser with a valid cookie are
always compared. Only they could guess quickly, and a token of 16 characters withstands that.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

BURST = 10
"""Wrong tokens that an address may show in a row."""
REFILL_SECONDS = 6.0
"""Seconds after which an address may show one more wrong token."""
REMEMBERED = 4096
"""The number of addresses that are remembered, the most recent ones."""


@dataclass
class _Budget:
    """The wrong tokens that an address may still show."""

    left: float
    updated: float


class FailedAttempts:
    """Counts wrong tokens by address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._budgets: OrderedDict[str, _Budget] = OrderedDict()
        self._proven: OrderedDict[str, None] = OrderedDict()

    def wait_seconds(self, address: str) -> float:
        """Returns how many seconds the address must wait before its token is compared."""
        network = _network(address)
        if network in self._proven or _is_local(address):
            return 0.0
        return self._missing_seconds(network)

    def failed(self, address: str) -> float:
        """Records a wrong token, and returns the seconds to wait before the next one."""
        network = _network(address)
        budget = self._current(network)
        budget.left = max(0.0, budget.left - 1)
        self._budgets[network] = budget
        self._budgets.move_to_end(network)
        while len(self._budgets) > REMEMBERED:
            self._budgets.popitem(last=False)
        return self._missing_seconds(network)

    def succeeded(self, address: str) -> None:
        """Records that the address has shown the right token."""
        network = _network(address)
        self._proven[network] = None
        self._proven.move_to_end(network)
        while len(self._proven) > REMEMBERED:
            self._proven.popitem(last=False)

    def _current(self, network: str) -> _Budget:
        now = self._clock()
        known = self._budgets.get(network, _Budget(BURST, now))
        refilled = known.left + (now - known.updated) / REFILL_SECONDS
        return _Budget(min(BURST, refilled), now)

    def _missing_seconds(self, network: str) -> float:
        return max(0.0, 1 - self._current(network).left) * REFILL_SECONDS


def _network(address: str) -> str:
    """Returns the address, or the network of 64 bits that an IPv6 client owns as a rule."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def _is_local(address: str) -> bool:
    """Returns whether the client is on this computer (an empty address: a Unix socket)."""
    try:
        parsed = ipaddress.ip_address(_network(address).partition("/")[0])
    except ValueError:
        return address == ""
    return parsed.is_loopback or address == "::1"
