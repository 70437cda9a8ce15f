from pinxit.launcher import CPU_MALLOC, GUARD, OFF, tuned


def test_starts_over_once_on_linux_with_glibc():
    environ = tuned({"A": "b"}, platform="linux", libc="glibc")
    assert environ == {"A": "b", GUARD: "1", **CPU_MALLOC}
    assert tuned(environ, platform="linux", libc="glibc") is None


def test_stays_where_it_cannot_help_or_is_not_wanted():
    assert tuned({}, platform="darwin", libc="") is None
    assert tuned({}, platform="linux", libc="musl") is None
    assert tuned({OFF: "1"}, platform="linux", libc="glibc") is None
    assert tuned({"GLIBC_TUNABLES": "mine"}, platform="linux", libc="glibc") is None
    assert tuned({OFF: "0"}, platform="linux", libc="glibc") is not None
