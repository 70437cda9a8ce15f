"""Workers hang, crash and run out of memory; no other image notices."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from pictures import encoded, endless_jpeg, png, scene
from PIL import Image

from pinxit.data.images import decode_pool
from pinxit.data.images.decode import ImageConfig, decode
from pinxit.data.images.decode_pool import DecodePool

CONFIG = ImageConfig(size=32, crop="random", workers=2, timeout=30)
posix = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs POSIX signals")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def files(count: int) -> list[tuple[int, bytes]]:
    """Pictures and, one in three, no pictures."""
    kinds = ("PNG", "JPEG", "BMP")
    good = [encoded(scene(60, 40, i), kinds[i % 3]) for i in range(count)]
    return [(i, data if i % 3 else data[:60]) for i, data in enumerate(good)]


def assert_same(found: list, given: list, config: ImageConfig = CONFIG) -> None:
    """The pool's answers are `decode`'s, in the order given."""
    assert [key for key, _ in found] == [key for key, _ in given]
    for (key, data), (_, decoded) in zip(given, found, strict=True):
        expected = decode(data, config, key=str(key))
        for field in ("status", "detail", "original", "crop"):
            assert getattr(decoded, field) == getattr(expected, field), key
        assert (decoded.image is None) == (expected.image is None)
        if decoded.image is not None:
            np.testing.assert_array_equal(decoded.image, expected.image)


def until(condition, seconds: float = 20.0) -> bool:
    """Waits for a condition; whether it came."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def pids_of(pool: DecodePool) -> list[int]:
    """Returns the numbers of the processes there are now."""
    return [worker._process.pid for worker in pool._all if worker._process]


def kill_busy(pool: DecodePool, pids: list[int]) -> threading.Thread:
    """Kills these workers of a pool once each has been handed an image."""

    def work() -> None:
        assert until(lambda: all(worker._deadline < float("inf") for worker in pool._all), 60)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(CONFIG) as opened:
        yield opened


def test_answers_are_those_of_decode_in_order(pool: DecodePool):
    given = files(40)
    found = list(pool.map(given))
    assert {decoded.status for _, decoded in found} == {"ok", "decode_error"}
    assert_same(found, given)
    assert all(decoded.image.flags.writeable for _, decoded in found if decoded.image is not None)


def test_keys_of_any_kind_and_several_maps_at_once(pool: DecodePool):
    data = encoded(scene(100, 40))
    odd = [("a\nb", data), (("u", 3), data), ("\ud800é", data)]
    numbers = files(10)
    both = list(zip(pool.map(odd), pool.map(numbers), strict=False))
    assert_same([one for one, _ in both], odd)
    assert_same([two for _, two in both], numbers[:3])


def test_input_is_read_no_further_than_the_window(pool: DecodePool):
    taken = []

    def items():
        for i in range(1000):
            taken.append(i)
            yield i, b"no image"

    results = pool.map(items())
    for i in range(50):
        assert next(results)[0] == i
        assert len(taken) <= i + 1 + pool.window
    results.close()
    count = len(taken)
    assert [decoded.status for _, decoded in pool.map([(0, b"")])] == ["not_image"]
    assert len(taken) == count


@pytest.mark.parametrize(("size", "most"), [(2**20, 5), (2**23, 1), (10, 32)])
def test_input_is_read_no_further_than_its_bytes(pool: DecodePool, monkeypatch, size, most):
    monkeypatch.setattr(decode_pool, "AHEAD_BYTES", 2**21)  # twice this, for two workers
    decode_one = pool._decode

    def slowly(key: str, data: bytes):
        time.sleep(0.01)
        return decode_one(key, data)

    monkeypatch.setattr(pool, "_decode", slowly)
    taken = []

    def items():
        for i in range(60):
            taken.append(i)
            yield i, bytes(size)

    ahead = [len(taken) - number for number, _ in pool.map(items())]
    assert len(ahead) == 60 and max(ahead) <= most
    assert max(ahead) > most // 2


def test_an_error_of_the_input_is_raised_and_the_pool_goes_on(pool: DecodePool):
    def items():
        yield from files(3)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(pool.map(items()))
    assert_same(list(pool.map(files(3))), files(3))


@posix
def test_a_worker_that_dies_idle_is_replaced(pool: DecodePool):
    list(pool.map(files(4)))
    before = pids_of(pool)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    assert_same(list(pool.map(files(10))), files(10))
    assert not set(before) & set(pids_of(pool))


@posix
def test_an_image_whose_worker_is_killed_once_is_tried_again(pool: DecodePool):
    list(pool.map(files(4)))
    stopped = pids_of(pool)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    kill = kill_busy(pool, stopped)
    assert_same(list(pool.map(files(10))), files(10))
    kill.join()
    assert not set(stopped) & set(pids_of(pool))


@posix
def test_an_image_that_kills_twice_is_an_error(pool: DecodePool, monkeypatch: pytest.MonkeyPatch):
    list(pool.map(files(4)))
    monkeypatch.setattr(decode_pool, "TRIES", 1)
    stopped = pids_of(pool)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    kill = kill_busy(pool, stopped)
    found = [decoded for _, decoded in pool.map([(i, encoded(scene())) for i in range(6)])]
    kill.join()
    assert [decoded.status for decoded in found] == ["decode_error"] * 2 + ["ok"] * 4
    assert "SIGKILL" in found[0].detail


@posix
def test_an_image_that_hangs_the_decoder_is_given_up():
    config = ImageConfig(size=32, workers=1, timeout=2.0)
    given = [(0, encoded(scene())), (1, endless_jpeg()), (2, encoded(scene(seed=2)))]
    with DecodePool(config) as pool:
        list(pool.map(given[:1]))
        (first,) = pids_of(pool)
        found = list(pool.map(given))
        # being idle is not a hang; not moving at all is
        (pid,) = pids_of(pool)
        assert pid != first
        time.sleep(2.2)
        assert running(pid) and pids_of(pool) == [pid]
        os.kill(pid, signal.SIGSTOP)
        ((_, stopped),) = pool.map(given[:1])
        assert not running(pid)
    for decoded in (found[1][1], stopped):
        assert (decoded.status, decoded.detail) == ("decode_timeout", "over 2 s")
    assert_same([found[0], found[2]], [given[0], given[2]], config)


@linux
def test_memory_is_bounded_and_bombs_need_none():
    config = ImageConfig(size=32, workers=1, memory_mb=60)
    small, gif = encoded(scene()), encoded(scene(), "GIF")
    frame = gif[gif.index(b",\0\0\0\0") : -1]
    given = [
        ("large", encoded(Image.new("RGB", (5000, 4000)), compress_level=1)),  # decoded: 80 MB
        ("good", small),
        ("huge png", png(50_000, 50_000, rows=b"\0" * 1000)),
        ("long gif", gif[:-1] + frame * 10_000 + b";"),
        ("good too", small),
    ]
    with DecodePool(config) as pool:
        list(pool.map(given[1:2]))
        before = pids_of(pool)
        found = {key: decoded for key, decoded in pool.map(given)}
        assert pids_of(pool) == before
    assert found["large"].status == "decode_error" and "MemoryError" in found["large"].detail
    assert found["huge png"].status == "too_many_pixels"
    assert found["long gif"].status == found["good"].status == found["good too"].status == "ok"
    assert decode(given[0][1], config).status == "ok"


def test_what_a_library_prints_goes_nowhere(capfd: pytest.CaptureFixture[str]):
    loud = bytearray(encoded(scene(64, 48), "TIFF", compression="tiff_lzw"))
    loud[20:400] = bytes(380)
    config = ImageConfig(size=32, formats=("TIFF",), workers=1)
    expected = decode(bytes(loud), config)
    assert expected.status == "decode_error"
    assert "LZWDecode" in capfd.readouterr().err
    with DecodePool(config) as pool:
        ((_, found),) = pool.map([(0, bytes(loud))])
    assert (found.status, found.detail) == (expected.status, expected.detail)
    assert capfd.readouterr() == ("", "")


def test_closing_ends_what_hangs():
    before = set(threading.enumerate())
    pool = DecodePool(ImageConfig(size=32, workers=2))
    with pool:
        results = pool.map([(0, encoded(scene())), (1, endless_jpeg()), (2, endless_jpeg())])
        assert next(results)[1].status == "ok"
        pids = pids_of(pool)
        begun = time.monotonic()
    assert time.monotonic() - begun < 15  # not the pool's time limit, which is 20
    assert not any(running(pid) for pid in pids)
    pool.close()
    with pytest.raises(RuntimeError, match="not open"):
        list(pool.map([]))
    with pytest.raises(RuntimeError, match="once"):
        pool.__enter__()
    assert until(lambda: set(threading.enumerate()) <= before)


SCRIPT = """
import sys
import psutil
from pinxit.data.images import decode_pool
from pinxit.data.images.decode_pool import DecodePool
from pinxit.data.images.decode import ImageConfig
decode_pool.WATCH_SECONDS = 1000  # as if it were gone already
with DecodePool(ImageConfig(size=32, workers=2, timeout=4.0)) as pool:
    data = [open(name, "rb").read() for name in sys.argv[1:]]
    results = pool.map(enumerate(data))
    print(next(results)[1].status, *(p.pid for p in psutil.Process().children()), flush=True)
    list(results)
"""


@linux
def test_workers_neither_outlive_their_parent_nor_import_its_program(tmp_path):
    """Also: a script needs no ``if __name__ == "__main__"``."""
    script, good, hang = (tmp_path / name for name in ("script.py", "good.png", "hang.jpg"))
    script.write_text(SCRIPT)
    good.write_bytes(encoded(scene()))
    hang.write_bytes(endless_jpeg())
    command = [sys.executable, str(script), str(good), str(hang)]
    paths = os.pathsep.join(path for path in sys.path if path)
    env = {**os.environ, "PYTHONPATH": paths}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as parent:
        status, *pids = parent.stdout.readline().split()
        try:
            assert status == "ok" and len(pids) == 2
            for pid in pids:
                maps = Path(f"/proc/{pid}/maps")
                assert until(lambda maps=maps: "PIL" in maps.read_text())  # it may yet be starting
                assert "jaxlib" not in maps.read_text()
            busy = [psutil.Process(int(pid)) for pid in pids]
            assert until(lambda: max(sum(p.cpu_times()[:2]) for p in busy) > 1)
        finally:
            parent.kill()
    assert until(lambda: not any(running(int(pid)) for pid in pids), 25)


ANSWER = '{"status":"%s","detail":"","original":[1,1],"size":[9,99],"crop":[%s]}'
LIARS = {
    "no JSON": "b'nonsense\\n'",
    "no end": "b'x' * 2**20",
    "too large": f"b'{ANSWER % ('ok', '0,0,1,1')}\\n'",
    "no crop": f"b'{ANSWER % ('decode_error', '')}\\n'",
}


@pytest.mark.parametrize("name", LIARS)
def test_an_answer_that_makes_no_sense_is_not_believed(name: str, monkeypatch: pytest.MonkeyPatch):
    lie = (
        "import sys; out = sys.stdout.buffer; out.write(b'ready\\n'); out.flush(); "
        f"sys.stdin.readline(); out.write({LIARS[name]}); out.flush(); sys.stdin.read()"
    )
    monkeypatch.setattr(decode_pool, "START", lie)
    with DecodePool(ImageConfig(workers=1)) as pool:
        ((_, decoded),) = pool.map([(0, encoded(scene()))])
        assert pids_of(pool) == []  # the process that answered was ended
    assert decoded.status == "decode_error"


def test_a_worker_that_cannot_start_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decode_pool, "START", "raise SystemExit(3)")
    with DecodePool(CONFIG) as pool, pytest.raises(RuntimeError, match=r"start \(exit code 3\)"):
        list(pool.map(files(2)))


def test_workers_default_to_the_cores():
    assert DecodePool(ImageConfig()).workers == len(psutil.Process().cpu_affinity())
