"""Detects when the network of this machine is down, as opposed to single hosts failing."""

from __future__ import annotations

from collections import OrderedDict

from pinxit.data.url_host import host_of

OFFLINE_HOSTS = 20
"""If at least this many hosts fail and none answers, the network counts as down."""
REMEMBERED = 20_000
"""Largest number of hosts that are remembered because they answered."""


class Reachability:
    """Counts consecutive attempts that did not reach their host."""

    def __init__(self) -> None:
        self.hosts: set[str] = set()
        """The hosts that failed since the last attempt that reached its host."""
        self.attempts = 0
        """The number of attempts since then."""
        self.lost = 0
        """The number of these attempts whose host had answered before."""
        self.ever = False
        """Whether any attempt has reached its host."""
        self._answered: OrderedDict[str, str] = OrderedDict()
        """A URL of each host that answered, the latest last."""

    def failed(self, url: str | None) -> None:
        """Counts an attempt that did not reach its host."""
        self.hosts.add(host_of(url))
        self.attempts += 1
        self.lost += self.has_answered(url)

    def answered(self, url: str | None) -> None:
        """Records that the host of `url` answered, and that the network therefore works."""
        self.restart()
        self.remember(url)

    def remember(self, url: str | None) -> None:
        """Records that the host of `url` has answered, without counting the attempts again."""
        self.ever = True
        host = host_of(url)
        self._answered.pop(host, None)
        self._answered[host] = url or ""
        if len(self._answered) > REMEMBERED:
            self._answered.popitem(last=False)

    def has_answered(self, url: str | None) -> bool:
        """Returns whether the host of `url` has ever answered."""
        return host_of(url) in self._answered

    def answered_url(self, url: str | None) -> str:
        """Returns the URL at which the host of `url` answered last."""
        return self._answered[host_of(url)]

    def forget(self, url: str | None) -> None:
        """Forgets that the host of `url` has answered, because it seems to be gone."""
        self._answered.pop(host_of(url), None)

    def restart(self) -> None:
        """Forgets the failed attempts, but not which hosts have answered."""
        self.hosts.clear()
        self.attempts = self.lost = 0

    def latest(self, count: int) -> list[str]:
        """Returns a URL of each of the last `count` hosts that answered, the latest first."""
        newest = reversed(self._answered.values())
        return [url for url, _ in zip(newest, range(count), strict=False)]

    def is_offline(self, *, attempts: int = 0) -> bool:
        """Returns whether `OFFLINE_HOSTS` hosts or more failed, in at least `attempts` attempts."""
        return len(self.hosts) >= OFFLINE_HOSTS and self.attempts >= attempts
