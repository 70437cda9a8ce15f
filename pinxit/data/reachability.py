"""Detects when the network of this machine is down, as opposed to single hosts failing."""

from __future__ import annotations

import threading
from collections import OrderedDict

from pinxit.data.url_host import host_of

OFFLINE_HOSTS = 20
"""If at least this many hosts fail and none answers, the network counts as down."""
REMEMBERED = 20_000
"""Largest number of hosts that are remembered because they answered."""


class _Answered:
    """The hosts that answered, with a URL of each, the latest last. Threads may share it."""

    def __init__(self) -> None:
        self._urls: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()
        self.ever = False

    def add(self, url: str | None) -> None:
        host = host_of(url)
        with self._lock:
            self.ever = True
            self._urls.pop(host, None)
            self._urls[host] = url or ""
            if len(self._urls) > REMEMBERED:
                self._urls.popitem(last=False)

    def remove(self, url: str | None) -> None:
        with self._lock:
            self._urls.pop(host_of(url), None)

    def url(self, url: str | None) -> str | None:
        return self._urls.get(host_of(url))

    def latest(self, count: int) -> list[str]:
        with self._lock:
            return [
                url for url, _ in zip(reversed(self._urls.values()), range(count), strict=False)
            ]


class Reachability:
    """Counts consecutive attempts that did not reach their host."""

    def __init__(self, *, known: Reachability | None = None) -> None:
        """Starts with no attempts. The hosts that answer are remembered together with those of
        `known`, which may be in use by another thread."""
        self.hosts: set[str] = set()
        """The hosts that failed since the last attempt that reached its host."""
        self.attempts = 0
        """The number of attempts since then."""
        self.lost = 0
        """The number of these attempts whose host had answered before."""
        self._answered = _Answered() if known is None else known._answered

    @property
    def ever(self) -> bool:
        """Whether any attempt has reached its host."""
        return self._answered.ever

    @ever.setter
    def ever(self, ever: bool) -> None:
        self._answered.ever = ever

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
        self._answered.add(url)

    def has_answered(self, url: str | None) -> bool:
        """Returns whether the host of `url` has ever answered."""
        return self._answered.url(url) is not None

    def answered_url(self, url: str) -> str:
        """Returns the URL at which the host of `url` answered last, or `url` if it has not."""
        return self._answered.url(url) or url

    def forget(self, url: str | None) -> None:
        """Forgets that the host of `url` has answered, because it seems to be gone."""
        self._answered.remove(url)

    def restart(self) -> None:
        """Forgets the failed attempts, but not which hosts have answered."""
        self.hosts.clear()
        self.attempts = self.lost = 0

    def latest(self, count: int) -> list[str]:
        """Returns a URL of each of the last `count` hosts that answered, the latest first."""
        return self._answered.latest(count)

    def is_offline(self, *, attempts: int = 0) -> bool:
        """Returns whether `OFFLINE_HOSTS` hosts or more failed, in at least `attempts` attempts."""
        return len(self.hosts) >= OFFLINE_HOSTS and self.attempts >= attempts
