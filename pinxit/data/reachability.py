"""Detects when the network of this machine is down, as opposed to single hosts failing."""

from __future__ import annotations

from pinxit.data.outcome import STATUSES
from pinxit.data.url_host import host_of

OFFLINE_HOSTS = 20
"""If at least this many hosts fail and none answers, the network counts as down."""


class Reachability:
    """Counts consecutive attempts that did not reach their host."""

    def __init__(self, *statuses: str) -> None:
        """Takes the statuses that mean that an attempt did not reach its host."""
        assert all(status in STATUSES for status in statuses)
        self.statuses = frozenset(statuses)
        self.hosts: set[str] = set()
        """The hosts that failed since the last attempt that reached its host."""
        self.attempts = 0
        """The number of attempts since then."""
        self.ever = False
        """Whether any attempt has reached its host."""

    def note(self, url: str | None, status: str) -> None:
        """Counts an attempt to fetch `url` that ended with `status`."""
        if status in self.statuses:
            self.hosts.add(host_of(url))
            self.attempts += 1
        else:
            self.hosts.clear()
            self.attempts, self.ever = 0, True

    def is_offline(self, *, attempts: int = 0) -> bool:
        """Returns whether `OFFLINE_HOSTS` hosts or more failed, in at least `attempts` attempts."""
        return len(self.hosts) >= OFFLINE_HOSTS and self.attempts >= attempts
