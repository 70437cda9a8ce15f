"""Nothing reaches an address that is not public: a canary listens, and hears nothing.

Every attempt to connect is also recorded where it is made, since most of the addresses below have
nobody who could listen. A control shows that the canary does hear what is allowed.
"""

import asyncio
import contextlib
import socket
import threading

import pytest
from hostile_server import HostileServer

from pinxit.data.fetch import address_guard as addresses
from pinxit.data.fetch import dns_resolver as resolver
from pinxit.data.fetch.fetcher import FetchConfig
from pinxit.data.fetch.shared_fetcher import fetch_all

PUBLIC = "93.184.215.14"


class Canary:
    """Listens on several loopback addresses at one port and counts connections."""

    def __enter__(self) -> "Canary":
        self.heard = 0
        first = socket.create_server(("127.0.0.1", 0))
        self.port = first.getsockname()[1]
        self.sockets = [first]
        with contextlib.suppress(OSError):  # elsewhere than on Linux there is only 127.0.0.1
            self.sockets.append(socket.create_server(("127.0.0.2", self.port)))
        with contextlib.suppress(OSError):
            self.sockets.append(socket.create_server(("::1", self.port), family=socket.AF_INET6))
        for listening in self.sockets:
            threading.Thread(target=self._listen, args=(listening,), daemon=True).start()
        return self

    def _listen(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                self.heard += 1
                connection.close()

    def __exit__(self, *exception: object) -> None:
        for listening in self.sockets:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list:
    """The addresses that were dialled; those beyond this machine go nowhere."""
    seen: list[tuple] = []
    loop_class = asyncio.selector_events.BaseSelectorEventLoop
    connect = loop_class.sock_connect

    async def sock_connect(self, sock, address):
        seen.append(address)
        if not address[0].startswith(("127.", "::1")):
            raise ConnectionRefusedError(111, "a test goes nowhere")
        return await connect(self, sock, address)

    monkeypatch.setattr(loop_class, "sock_connect", sock_connect)
    return seen


LITERALS = (
    "127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1",
    "172.31.255.255", "192.168.0.1", "100.64.0.1", "100.100.100.200", "169.254.169.254",
    "169.254.170.2", "192.0.0.192", "198.18.0.1", "168.63.129.16", "224.0.0.1", "240.0.0.1",
    "255.255.255.255",
    "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]", "[fc00::1]", "[fd00:ec2::254]", "[fe80::1]",
    "[fe80::1%25lo]", "[fec0::1]", "[ff02::1]",
    "2130706433", "0x7f000001", "0x7f.0.0.1", "017700000001", "0177.0.0.1", "127.1", "127.0.1",
    "0", "127.0.0.1.", "00000127.0.0.1",
    "\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021", "\u2460\u2461\u2466.0.0.1",
    "127%2e0%2e0%2e1", "%31%32%37.0.0.1", "user:password@127.0.0.1", "example.com@127.0.0.1",
)  # fmt: skip
NAMES = {
    "loopback.test": ["127.0.0.1"],
    "loopback6.test": ["::1"],
    "mapped.test": ["::ffff:127.0.0.1"],
    "private.test": ["10.0.0.1", "192.168.1.1"],
    "metadata.test": ["169.254.169.254"],
    "scoped.test": ["fe80::1%lo"],
    "decimal.test": ["2130706433"],
}
OTHERS = (
    "file:///etc/passwd", "ftp://127.0.0.1:{port}/a", "gopher://127.0.0.1:{port}/_GET",
    "dict://127.0.0.1:{port}/", "ldap://127.0.0.1:{port}/", "unix:///run/docker.sock",
    "data:image/png;base64,AAAA", "jar:http://127.0.0.1:{port}!/", "//127.0.0.1:{port}/",
    "http:127.0.0.1:{port}", "http://example.test\\@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@example.test/", "http://127.0.0.1\t:{port}/",
    "http://example.test#@127.0.0.1:{port}/\r\nHost: x", "http://127.0.0.1:{port}#@example.test/",
    "http://127.0.0.1 :{port}/", "http://[::1]@127.0.0.1:{port}/", "http://[127.0.0.1]:{port}/",
)  # fmt: skip
STATUSES = ("blocked", "scheme")


def vectors(port: int) -> list[str]:
    hosts = (*LITERALS, *NAMES)
    return [f"http://{host}:{port}/a.jpg" for host in hosts] + [
        other.format(port=port) for other in OTHERS
    ]


def look(host: str) -> list[str]:
    return NAMES.get(host, [PUBLIC])


def run(urls: list[str], config: FetchConfig, lookup=look) -> dict[str, str]:
    """URL to status."""
    results = fetch_all(((url, url) for url in urls), config, lookup=lookup)
    return {url: fetched.status for url, fetched in results}


def settings(*ports: int, **more) -> FetchConfig:
    """The ports of the canary and the server are as good as any, so that addresses decide."""
    return FetchConfig(ports=ports, **({"timeout": 20.0, "backoff": 0.01} | more))


def test_no_vector_reaches_anything(dialled, monkeypatch):
    with Canary() as canary:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{canary.port}")
        urls = vectors(canary.port)
        found = run(urls, settings(canary.port))
        assert len(urls) >= 60 and len(found) == len(urls)
        assert {url: status for url, status in found.items() if status not in STATUSES} == {}
        assert canary.heard == 0 and dialled == []


def test_a_canary_hears_what_is_allowed(dialled):
    with Canary() as canary:
        config = settings(canary.port, allow_networks=("127.0.0.1/32",), retries=0, timeout=2.0)
        found = run(vectors(canary.port), config)
        through = {url for url, status in found.items() if status not in STATUSES}
        assert through >= {f"http://{host}:{canary.port}/a.jpg" for host in
                           ("127.0.0.1", "loopback.test", "\uff11\uff12\uff17.0.0.1")}  # fmt: skip
        assert canary.heard >= 3 and set(dialled) == {("127.0.0.1", canary.port)}


def test_no_redirect_leads_inside(dialled, monkeypatch):
    with Canary() as canary, HostileServer() as server:
        judge = addresses.Guard.refusal

        def refusal(self, address: str, port: int) -> str | None:
            """The redirecting server counts as public; everything else is judged as always."""
            return None if port == server.port else judge(self, address, port)

        monkeypatch.setattr(addresses.Guard, "refusal", refusal)
        urls = [url for url in vectors(canary.port) + vectors(80) if "\n" not in url]
        server.state.targets = urls
        jumps = {server.url("to", i, host="jump.test"): url for i, url in enumerate(urls)}
        config = settings(canary.port, 80, max_redirects=3)
        found = run(list(jumps), config, lambda host: ["127.0.0.1"] * (host == "jump.test"))
        assert canary.heard == 0 and {address[1] for address in dialled} == {server.port}
        # Some targets cannot be parsed, and one is relative to the server that sent it.
        assert set(found.values()) <= {*STATUSES, "dns", "redirects", "http_404"}
        assert list(found.values()).count("blocked") > 100
        assert sum(server.state.hits.values()) >= len(urls)


def test_a_name_that_changes_its_mind(dialled):
    """Rebinding: every answer is judged, and the address judged is the one dialled."""
    with Canary() as canary:
        answers = iter([[PUBLIC], *[["127.0.0.1"]] * 100])
        urls = [f"http://rebinding.test:{canary.port}/{i}" for i in range(20)]
        found = run(urls, settings(canary.port), lambda host: next(answers))
        assert set(found.values()) <= {"blocked", "connect"}
        assert canary.heard == 0 and set(dialled) == {(PUBLIC, canary.port)}


def test_mixed_answers_lose_the_private_ones(dialled):
    with Canary() as canary:
        urls = [f"http://mixed.test:{canary.port}/"]
        run(urls, settings(canary.port), lambda host: ["127.0.0.1", PUBLIC, "::1", "10.0.0.1"])
        assert set(dialled) == {(PUBLIC, canary.port)} and canary.heard == 0


def test_the_socket_is_the_last_word(dialled, monkeypatch):
    """With the judgements of URLs and names gone, no socket is made all the same."""
    monkeypatch.setattr(addresses.Guard, "refuses_url", lambda self, url: None)

    async def trusting(self, host, port=0, family=socket.AF_UNSPEC):
        return [resolver._result(host, address, port) for address in NAMES[host]]

    monkeypatch.setattr(resolver.Resolver, "resolve", trusting)
    with Canary() as canary:
        hosts = ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1", *list(NAMES)[:5]]
        urls = [f"http://{host}:{canary.port}/" for host in hosts]
        found = run(urls, settings(canary.port))
        assert set(found.values()) <= {"blocked", "connect"}
        assert list(found.values()).count("blocked") >= len(urls) - 1
        assert canary.heard == 0 and dialled == []


def test_ports_of_other_services_are_not_asked(dialled):
    urls = [f"http://public.test:{port}/" for port in (22, 25, 6379, 8080, 11211)]
    found = run(urls, FetchConfig(timeout=20.0))
    assert set(found.values()) == {"blocked"} and dialled == []
