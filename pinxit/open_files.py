"""The number of files that this process may open, which is raised as far as the system allows.

Systems set a low soft limit (often 1,024, or 256) and a much higher hard one. A large dataset has
more shards. Processes that are started later inherit the raised limit.
"""

from __future__ import annotations

import contextlib

MOST = 65_536
"""The limit is not raised above this number, since some programs touch each possible file."""


def raise_limit() -> int | None:
    """Raises the soft limit of open files to the hard one, up to `MOST`, and returns it, or None
    where there is none."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return soft
    with contextlib.suppress(ValueError, OSError):  # the system has another limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def limit_now() -> int | None:
    """Returns the soft limit of open files, at most `MOST`, or None where there is none."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST if soft == resource.RLIM_INFINITY else min(soft, MOST)
