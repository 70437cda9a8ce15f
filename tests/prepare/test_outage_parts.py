"""The parts of waiting while preparing: limits, shares, known hosts, the second round, advice."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import prepare_work as work  # pyrefly: ignore
import pytest

from pinxit.data.row import Unit
from pinxit.prepare.engines.base import UnitResult
from pinxit.prepare.engines.local import InlineEngine
from pinxit.prepare.images import prepare_images
from pinxit.prepare.known_hosts import known_hosts
from pinxit.prepare.ledger import Ledger, UnitRecord, rows_by_status
from pinxit.prepare.network_wait import Doubtful, LongOutage, NetworkWait, Offline
from pinxit.prepare.retry_advice import retry_advice
from pinxit.prepare.second_round import in_two_rounds
from pinxit.prepare.stages import can_skip
from pinxit.prepare.unreachable_share import reason_to_doubt


@pytest.mark.parametrize(("seconds", "over", "raises"), [(60, 10, False), (5, 10, True)])
def test_a_wait_has_a_limit(seconds: float, over: float, raises: bool):
    now = [0.0]

    def sleep(pause: float) -> None:
        now[0] += pause

    lines: list[str] = []
    wait = NetworkWait(seconds, say=lines.append, sleep=sleep, clock=lambda: now[0])
    if raises:
        with pytest.raises(LongOutage, match=r"^no host answers, for 5s \(--outage_hours\)$"):
            wait("no host answers", lambda: now[0] >= over)
        assert now[0] == seconds
    else:
        wait("no host answers", lambda: now[0] >= over)
        assert over <= now[0] <= 2 * over
        assert lines[-1].startswith("the network can be reached again after 1")
    assert lines[0].startswith("no host answers. Preparing waits for the network since 2")


def test_a_long_wait_is_mentioned_again():
    now, lines = [0.0], list[str]()
    wait = NetworkWait(
        7200,
        say=lines.append,
        sleep=lambda pause: now.__setitem__(0, now[0] + pause),
        clock=lambda: now[0],
    )
    wait("no host answers", lambda: now[0] > 3600)
    still = [line for line in lines if line.startswith("still waiting for the network: ")]
    assert 5 <= len(still) <= 10


def test_without_a_wait_an_outage_is_an_error_at_once():
    with pytest.raises(Offline, match=r"^no host answers \(--outage_hours\)$"):
        NetworkWait(0.0)("no host answers", lambda: True)


def committed(root: Path, **units: dict[str, int]) -> Ledger:
    ledger = Ledger(root, "images")
    for unit, counts in units.items():
        ledger.commit(UnitRecord(unit, {}, counts))
    return ledger


SHARES = {
    "half of the web is dead": ({"ok": 500, "dns": 450}, {"ok": 500, "dns": 500}, False),
    "a little worse": ({"ok": 800, "dns": 200}, {"ok": 700, "timeout": 300}, False),
    "far worse": ({"ok": 800, "dns": 200}, {"ok": 500, "connect": 500}, True),
    "far worse, few rows": ({"ok": 800, "dns": 200}, {"ok": 4, "connect": 6}, False),
    "bad, and within the floor": ({"ok": 1000}, {"ok": 820, "dns": 180}, False),
    "bad, and beyond the floor": ({"ok": 1000}, {"ok": 700, "dns": 300}, True),
    "other failures": ({"ok": 1000}, {"ok": 100, "http_404": 900}, False),
    "filtered rows do not count": (
        {"filtered_words": 9000, "ok": 800, "dns": 200},
        {"filtered_words": 9000, "ok": 500, "dns": 500},
        True,
    ),
}


@pytest.mark.parametrize("case", SHARES)
def test_units_are_compared_with_the_others(tmp_path: Path, case: str):
    others, counts, doubted = SHARES[case]
    ledger = committed(tmp_path, a=others, b=others)
    spread = {f"h{i}": 1 for i in range(1000)}
    reason = reason_to_doubt(ledger, "c", counts, unreached=spread, reached=True)
    assert (reason is not None) == doubted, reason


def test_the_first_unit_is_doubted_if_one_host_or_every_host_is_away(tmp_path: Path):
    ledger = Ledger(tmp_path, "images")

    def doubt(reached: bool = True, **unreached: int) -> str | None:
        counts = {"ok": 60, "connect": 40}
        return reason_to_doubt(ledger, "a", counts, unreached=unreached, reached=reached)

    assert doubt(a=19, b=19, c=2) is None
    assert doubt(a=20, b=19) == "20 of its 100 rows did not reach the host a"
    assert doubt(a=1, reached=False) == "no host was reached by any of 100 rows"
    few = {"ok": 8, "connect": 7}
    assert reason_to_doubt(ledger, "a", few, unreached={"a": 7}, reached=True) is None
    assert reason_to_doubt(ledger, "a", {"ok": 8}, unreached={}, reached=False) is None


def test_a_doubted_unit_leaves_nothing_and_is_believed_without_doubt(tmp_path: Path):
    settings: dict[str, Any] = {
        "filters": work.FILTERS,
        "fetch": work.ToyWeb(offline=True),
        "decode": work.decode_here,
    }
    source = work.ToySource((12,))
    unit = source.units()[0]
    with pytest.raises(Doubtful, match=r"unit 00000-000: no host was reached by any of 8 rows; it"):
        prepare_images(unit, source, tmp_path, doubt=True, **settings)
    assert Ledger(tmp_path, "images").read(unit.id) is None
    assert prepare_images(unit, source, tmp_path, **settings).counts["dns"] == 8


def test_hosts_that_answered_are_found_in_the_finished_units(tmp_path: Path):
    ledger = Ledger(tmp_path, "images")
    assert not known_hosts(ledger).ever
    source = work.ToySource()
    for unit in source.units():
        prepare_images(
            unit,
            source,
            tmp_path,
            filters=work.FILTERS,
            fetch=work.ToyWeb(),
            decode=work.decode_here,
        )
    known = known_hosts(ledger)
    assert known.ever and len(known.latest(9)) == 9
    assert all("/good/" in url for url in known.latest(99))
    for path in (tmp_path / "outcomes").iterdir():
        path.write_bytes(b"damaged")
    assert not known_hosts(ledger).ever


def test_units_that_an_outage_hit_come_again_at_the_end_and_once():
    log: list[str] = []

    def first(unit: Unit) -> str:
        log.append(unit.id)
        if unit.id in "bd":
            raise (Offline if unit.id == "b" else Doubtful)("away")
        if unit.id == "c":
            raise ValueError("damaged")
        return unit.id

    def last(unit: Unit) -> str:
        log.append(f"{unit.id} again")
        if unit.id == "d":
            raise Offline("away")
        return unit.id

    units = [Unit(name, "path") for name in "abcde"]
    more: dict[str, Any] = {"workers": 1, "pause": 7, "sleep": lambda s: log.append(f"pause {s}")}
    results = list(in_two_rounds(InlineEngine(), first, last, units, **more))
    assert log == ["a", "b", "c", "d", "e", "pause 7", "b again", "d again"]
    final = [(result.unit.id, result.kind) for result, is_final in results if is_final]
    assert final == [("a", ""), ("c", "ValueError"), ("e", ""), ("b", ""), ("d", "Offline")]


@pytest.mark.parametrize("kind", ["Offline", "Doubtful"])
def test_an_outage_is_never_left_out(kind: str):
    assert not can_skip(UnitResult(Unit("a", "a.tar"), kind=kind))


@pytest.mark.parametrize(
    "argv",
    [
        ["coyo", "--out", "a set"],
        ["coyo", "--retry_failed", "1", "--out", "a set"],
        ["coyo", "--retry_failed=0", "--out", "a set", "--retry_failed", "true"],
    ],
)
def test_the_advice_is_the_same_command_with_one_more_setting(argv: list[str]):
    counts = {"ok": 9, "dns": 434, "timeout": 800, "http_404": 7, "http_503": 1}
    advice = retry_advice(counts, argv)
    assert advice == (
        "1,235 rows failed for reasons that may be temporary (timeout 800, dns 434, http_503 1); "
        "to retry them: pinxit prepare coyo --out 'a set' --retry_failed 1"
    )
    words = shlex.split(advice.partition("to retry them: ")[2])
    assert words == ["pinxit", "prepare", "coyo", "--out", "a set", "--retry_failed", "1"]


def test_rows_are_counted_over_the_units_that_are_done(tmp_path: Path):
    assert retry_advice({"ok": 9, "http_404": 7, "dns": 0}, []) is None
    one = retry_advice({"tls": 1}, ["coyo"])
    assert one is not None and one.startswith("1 row failed for")
    ledger = committed(tmp_path, a={"ok": 1, "dns": 2}, b={"dns": 3})
    assert rows_by_status(ledger.records()) == Counter(ok=1, dns=5)
