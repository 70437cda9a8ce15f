"""No address is let through that is not public, however it is written."""

import asyncio
import ipaddress
import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pinxit.config import UsageError
from pinxit.data.fetch.address_guard import Guard, Refused, embedded, follow, numeric, parse_url
from pinxit.data.fetch.dns_resolver import Resolver

PUBLIC = ("8.8.8.8", "93.184.216.34", "172.32.0.1", "11.0.0.1", "223.255.255.255", "2600::1")
REFUSED = {
    "loopback": ("127.0.0.1", "127.255.255.255", "::1"),
    "private": ("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd00::1"),
    "link-local": ("169.254.169.254", "fe80::1"),
    "shared": ("100.64.0.1", "100.127.255.255"),
    "unspecified": ("0.0.0.0", "0.1.2.3", "::"),
    "multicast": ("224.0.0.1", "239.255.255.255", "ff02::1"),
    "reserved": ("240.0.0.1", "255.255.255.255", "192.0.0.192"),
    "documentation": ("192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"),
    "mapped": ("::ffff:127.0.0.1", "::ffff:8.8.8.8"),
    "compatible": ("::127.0.0.1", "::8.8.8.8"),
    "NAT64": ("64:ff9b::127.0.0.1", "64:ff9b:1::10.0.0.1"),
    "6to4": ("2002:7f00:1::", "192.88.99.1"),
    "Teredo": ("2001:0:4136:e378:8000:63bf:3fff:fdd2",),
    "cloud": ("168.63.129.16",),
    "not global": ("4000::1", "100::1", "5f00::1"),
    "interface": ("fe80::1%eth0", "2600::1%1"),
    "not an address": ("127.1", "0x7f000001", "2130706433", "0177.0.0.1", "localhost", ""),
}


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address):
    assert Guard().refusal(address, 443) is None


@pytest.mark.parametrize(
    ("what", "address"), [(what, address) for what, many in REFUSED.items() for address in many]
)
def test_all_others_are_refused_with_the_reason(what, address):
    assert what in str(Guard().refusal(address, 80))
    with pytest.raises(Refused, match=what):
        Guard().socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)))


IPV4 = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)


@given(st.one_of(IPV4, st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)))
@example(ipaddress.IPv4Address("198.19.255.255"))
@example(ipaddress.IPv6Address("2001:1ff::1"))
def test_what_passes_is_global(address):
    if Guard().refusal(str(address), 80) is None:
        assert address.is_global and not address.is_multicast
        assert embedded(address) is None
    if address.is_private or address.is_loopback or address.is_link_local or address.is_reserved:
        assert Guard().refusal(str(address), 80) is not None


def carriers(inner: ipaddress.IPv4Address) -> list[ipaddress.IPv6Address]:
    """An IPv4 address inside every kind of IPv6 address."""
    low = int(inner)
    prefixes = ("::", "::ffff:0:0", "64:ff9b::", "64:ff9b:1::")
    found = [ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) + low) for prefix in prefixes]
    found.append(ipaddress.IPv6Address((0x2002 << 112) + (low << 80)))
    found.append(ipaddress.IPv6Address((0x20010000 << 96) + (low ^ 0xFFFFFFFF)))
    return found


@given(IPV4.filter(lambda address: int(address) > 1))
@example(ipaddress.IPv4Address("127.0.0.1"))
def test_an_allowed_carrier_does_not_smuggle(inner):
    open_guard = Guard(allow_networks=("64:ff9b::/32", "2002::/16", "2001::/16"))
    for outer in carriers(inner):
        assert embedded(outer) == inner
        assert Guard().refusal(str(outer), 80) is not None
        if Guard().refusal(str(inner), 80) is not None:
            assert open_guard.refusal(str(outer), 80) is not None
    assert (open_guard.refusal(str(carriers(inner)[2]), 80) is None) == (
        Guard().refusal(str(inner), 80) is None
    )


def test_allowed_networks_and_ports():
    guard = Guard(allow_networks=("127.0.0.1/32", "fd00::/8"))
    assert guard.refusal("127.0.0.1", 9000) is None
    assert guard.refusal("fd12::1", 9000) is None
    assert "loopback" in str(guard.refusal("127.0.0.2", 80))
    assert "mapped" in str(guard.refusal("::ffff:127.0.0.1", 80))
    assert "port 22" in str(guard.refusal("8.8.8.8", 22))
    assert Guard(ports=()).refusal("8.8.8.8", 22) is None
    with guard.socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 9))) as made:
        assert made.family == socket.AF_INET


@pytest.mark.parametrize("network", ["127.0.0.1/8", "0.0.0.0/0", "::/0", "all", "10.0.0.0/33", ""])
def test_wrong_networks_are_named(network):
    with pytest.raises(UsageError, match="allow_networks"):
        Guard(allow_networks=(network,))


def test_blocked_domains_include_those_below():
    guard = Guard(blocked_domains=("Example.com", "*.bad.org", "bücher.de"))
    blocked = ("example.com", "a.b.example.com", "example.com.", "x.bad.org", "xn--bcher-kva.de")
    for host in blocked:
        assert "is blocked" in str(guard.refuses_url(parse_url(f"http://{host}/a.jpg")))
    for host in ("notexample.com", "example.com.org", "com", "bad.organic"):
        assert guard.refuses_url(parse_url(f"http://{host}/a.jpg")) is None
    for wrong in ("", "a b", "http://example.com", "example.com/x", "example.com:80"):
        with pytest.raises(UsageError, match="blocked_domains"):
            Guard(blocked_domains=(wrong,))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7F.0.0.1".lower(), "0177.0.0.1",
     "017700000001", "127.0.0.1.", "1.2.3.4.5", "example.0x", "0x", "256.1.1.1", "a.b.12"],
)  # fmt: skip
def test_hosts_that_end_in_a_number_are_addresses(host):
    assert numeric(host)


def test_names_are_not_numeric():
    for host in ("example.com", "1.example", "0x7f.com", "4chan.org", "a1", "xn--80ak6aa92e.com"):
        assert not numeric(host)


BAD_URLS = (
    "", "  ", "/a.jpg", "//x.com/a", "a.jpg", "http://", "http:///a", "http:127.0.0.1/",
    "file:///etc/passwd", "ftp://x.com/a", "gopher://x.com", "data:image/png;base64,AA",
    "javascript:alert(1)", "dict://127.0.0.1:11211/", "HTTPX://x.com",
    "http://x.com:99999/", "http://x.com:0/", "http://x.com:-1/", "http://x.com:a/",
    "http://[::1", "http://[v1.x]/", "http://[fe80::1%25eth0]/", "http://ex ample.com/",
    "http://a..b/", "http://.a/", "http://127%2e0%2e0%2e1/", "http://%31%32%37.0.0.1/",
    "http://x.com\\@127.0.0.1/", "http://x\n.com/", "http://x\t.com/", "http://x\0.com/",
    "http://" + "a" * 64 + ".com/", "http://" + "a." * 130 + "com/", "http://x.com/" + "a" * 9000,
)  # fmt: skip


@pytest.mark.parametrize("url", BAD_URLS)
def test_what_is_no_url_of_ours(url):
    with pytest.raises(ValueError):
        parse_url(url)


@given(st.text())
def test_any_text_is_a_url_or_a_value_error(text):
    for url in (text, f"http://{text}", f"http://{text}/", f"https://a.com/{text}"):
        try:
            parsed = parse_url(url)
        except ValueError:
            continue
        assert parsed.scheme in ("http", "https") and parsed.raw_host
        Guard().refuses_url(parsed)


def test_hosts_in_other_writings_are_seen_as_what_they_are():
    for host in (
        "\uff11\uff12\uff17.0.0.1",
        "\u2460\u2461\u2466.0.0.1",
        "127\u30020\u30020\u30021",
    ):
        assert "loopback" in str(Guard().refuses_url(parse_url(f"http://{host}/")))
    for url in ("http://a@8.8.8.8/", "http://a:b@x.com/", "http://:b@x.com/"):
        assert "credentials" in str(Guard().refuses_url(parse_url(url)))
    assert parse_url(" HTTP://EXAMPLE.com/ä b.jpg?q=ü#f ").raw_host == "example.com"


def test_locations_are_relative_to_what_was_asked():
    url = parse_url("https://a.com/x/y.jpg")
    assert follow(url, " ../z.jpg") == "https://a.com/z.jpg"
    assert follow(url, "//b.com/") == "https://b.com/"
    with pytest.raises(ValueError):
        follow(url, "http://[::1/")


# --- names ------------------------------------------------------------------------------------


class Names:
    """A lookup from a table, which counts; a name may change from question to question."""

    def __init__(self, **table: list[str] | list[list[str]] | Exception) -> None:
        self.table, self.asked = table, []

    def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        found = self.table.get(host, socket.gaierror(socket.EAI_NONAME, "unknown"))
        if isinstance(found, Exception):
            raise found
        return found.pop(0) if found and isinstance(found[0], list) else found


def resolve(names: Names, hosts: list[str], **settings) -> list:
    async def main():
        resolver = Resolver(Guard(), names, threads=4, timeout=30.0, **settings)
        results = []
        for host in hosts:
            try:
                results.append([found["host"] for found in await resolver.resolve(host, 80)])
            except OSError as error:
                results.append(type(error))
        await resolver.close()
        return results

    return asyncio.run(main())


def test_private_answers_are_left_out():
    names = Names(a=["8.8.8.8"], b=["10.0.0.1", "8.8.4.4", "::1"], c=["127.0.0.1"], d=[])
    found = resolve(names, ["a", "b", "c", "d"])
    assert found == [["8.8.8.8"], ["8.8.4.4"], Refused, socket.gaierror]


def test_answers_and_failures_are_remembered_within_bounds():
    names = Names(a=[["8.8.8.8"], ["127.0.0.1"]])
    assert resolve(names, ["a", "a", "no", "no"])[:2] == [["8.8.8.8"]] * 2
    assert names.asked == ["a", "no"]
    names = Names(a=["8.8.8.8"], b=["8.8.8.8"], c=["8.8.8.8"])
    resolve(names, ["a", "b", "c", "a", "c"], size=2)
    assert names.asked == ["a", "b", "c", "a"]


def test_a_temporary_failure_is_not_remembered():
    names = Names(a=socket.gaierror(socket.EAI_AGAIN, "busy"), b=UnicodeError("label too long"))
    assert resolve(names, ["a", "a", "b"]) == [socket.gaierror] * 3
    assert names.asked == ["a", "a", "b"]


def test_a_slow_lookup_ends_and_askers_share_it():
    async def main():
        import threading

        release = threading.Event()
        asked = []

        def lookup(host):
            asked.append(host)
            if host == "slow":
                release.wait()
            return ["8.8.8.8"]

        resolver = Resolver(Guard(), lookup, threads=2, timeout=1.5)
        slow = [asyncio.create_task(resolver.resolve("slow", 80)) for _ in range(5)]
        await asyncio.sleep(0.05)
        slow[0].cancel()  # giving up takes nothing from the others
        assert (await resolver.resolve("fast", 80))[0]["host"] == "8.8.8.8"
        results = await asyncio.gather(*slow, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert [type(result) for result in results[1:]] == [socket.gaierror] * 4
        assert asked.count("slow") == 1
        release.set()
        await resolver.close()

    asyncio.run(main())
