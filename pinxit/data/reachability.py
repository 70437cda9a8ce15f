"""Whether hosts fail one by one, or the network of this machine is down."""

from __future__ import annotations

from pinxit.data.outcome import STATUSES
from pinxit.data.url_host import host_of

OFFLINE_HOSTS = 20
"""If at least this many hosts fail and none answers, the network is at fault, not the hosts."""


class Reachability:
    """Counts the attempts, one after another, that have not reached a host."""

    def __init__(self, *statuses: str) -> None:
        """Takes the statuses of attempts that have not reached their host."""
        assert all(status in STATUSES for status in statuses)
        self.statuses = frozenset(statuses)
        self.hosts: set[str] = set()
        """The hosts that were not reached since the last attempt that reached one."""
        self.attempts = 0
        """The attempts since then."""
        self.ever = False
        """Whether any attempt has reached its host."""

    def note(self, url: str | None, status: str) -> None:
        """Counts an attempt to get `url` that ended with `status`."""
        if status in self.statuses:
            self.hosts.add(host_of(url))
            self.attempts += 1
        else:
            self.hosts.clear()
            self.attempts, self.ever = 0, True

    def is_offline(self, *, attempts: int = 0) -> bool:
        """Returns whether enough hosts were not reached, in at least `attempts` attempts."""
        return len(self.hosts) >= OFFLINE_HOSTS and self.attempts >= attempts
