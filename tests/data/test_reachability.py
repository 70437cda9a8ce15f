"""Telling a machine without a network from hosts that are gone."""

from __future__ import annotations

from pinxit.data.reachability import OFFLINE_HOSTS, Reachability


def test_many_hosts_and_no_answer_mean_that_there_is_no_network():
    reachability = Reachability()
    for number in range(OFFLINE_HOSTS):
        assert not reachability.is_offline()
        reachability.failed(f"http://host{number}.test/image.jpg")
    assert reachability.is_offline() and not reachability.ever
    assert not reachability.is_offline(attempts=OFFLINE_HOSTS + 1)
    reachability.answered("http://host.test/")
    assert not reachability.is_offline() and reachability.ever and reachability.attempts == 0


def test_many_rows_of_few_hosts_prove_nothing():
    reachability = Reachability()
    for number in range(10 * OFFLINE_HOSTS):
        reachability.failed(f"http://host.test/{number}")
    assert not reachability.is_offline() and reachability.attempts == 10 * OFFLINE_HOSTS


def test_hosts_that_answered_are_remembered():
    reachability = Reachability()
    for number in (0, 1, 2, 1):
        reachability.answered(f"http://host{number}.test/a")
    assert reachability.latest(2) == ["http://host1.test/a", "http://host2.test/a"]
    for number in (2, 3, 2):
        reachability.failed(f"http://host{number}.test/b")
    assert (reachability.attempts, reachability.lost) == (3, 2)
    reachability.restart()
    assert (reachability.attempts, reachability.lost) == (0, 0) and len(reachability.latest(9)) == 3
    assert reachability.answered_url("http://host1.test/z") == "http://host1.test/a"
    reachability.forget("http://host1.test/z")
    assert not reachability.has_answered("http://host1.test/a") and reachability.ever
