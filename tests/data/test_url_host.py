"""The host that a URL names."""

from pinxit.data.url_host import host_of


def test_host_of():
    assert host_of("https://User:pw@WWW.Example.COM.:443/a?b#c") == "www.example.com"
    assert host_of("http://[::1]/a") == "::1" and host_of("no url") == ""
    assert host_of("http://[broken") == "" and host_of(None) == ""
