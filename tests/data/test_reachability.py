"""Telling a machine without a network from hosts that are gone."""

from __future__ import annotations

from pinxit.data.reachability import OFFLINE_HOSTS, Reachability


def test_many_hosts_and_no_answer_mean_that_there_is_no_network():
    reachability = Reachability("dns", "connect")
    for number in range(OFFLINE_HOSTS):
        assert not reachability.is_offline()
        reachability.note(f"http://host{number}.test/image.jpg", "dns")
    assert reachability.is_offline() and not reachability.ever
    assert not reachability.is_offline(attempts=OFFLINE_HOSTS + 1)
    reachability.note("http://host.test/", "http_404")  # an answer is an answer
    assert not reachability.is_offline() and reachability.ever and reachability.attempts == 0


def test_many_rows_of_few_hosts_prove_nothing():
    reachability = Reachability("connect")
    for number in range(10 * OFFLINE_HOSTS):
        reachability.note(f"http://host.test/{number}", "connect")
    assert not reachability.is_offline() and reachability.attempts == 10 * OFFLINE_HOSTS


def test_a_refusal_without_a_packet_proves_nothing():
    reachability = Reachability("connect")
    for status in ("connect", "scheme", "blocked", "tls"):
        reachability.note("http://host.test/", status)
    assert reachability.attempts == 1 and not reachability.ever


def test_hosts_that_answered_are_remembered():
    reachability = Reachability("connect")
    for number in (0, 1, 2, 1):
        reachability.answered(f"http://host{number}.test/a")
    assert reachability.latest(2) == ["http://host1.test/a", "http://host2.test/a"]
    for number in (2, 3, 2):
        reachability.failed(f"http://host{number}.test/b")
    assert (reachability.attempts, reachability.lost) == (3, 2)
    reachability.restart()
    assert (reachability.attempts, reachability.lost) == (0, 0) and len(reachability.latest(9)) == 3
