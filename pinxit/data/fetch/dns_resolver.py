"""Resolves host names to public addresses, with a bounded cache.

A dataset of URLs contains far more names than a resolver's cache was made for, and a dead name
takes seconds to fail. So lookups run in threads, concurrent requests for one name share one lookup,
and results and failures are cached in a bounded table. The guard has checked all addresses that are
returned, and checks them again when a connection is made.

A caching resolver on the machine (unbound, knot-resolver, systemd-resolved) helps a great deal.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult

from pinxit.data.fetch.address_guard import Guard, Refused
from pinxit.data.fetch.machine_fault import is_machine_fault

Lookup = Callable[[str], Sequence[str]]
"""Returns a host name's addresses. It may block, and raises `socket.gaierror` if there are none."""

CACHED = 300.0
"""Seconds for which addresses are cached."""
FAILURE_CACHED = 60.0
"""Seconds for which a failed lookup is cached."""
TEMPORARY = socket.EAI_AGAIN
"""The error of a lookup that may succeed in a moment; it is not cached."""


def system_lookup(host: str) -> list[str]:
    """Returns the IPv4 and IPv6 addresses from the operating system's resolver."""
    infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


class Resolver(AbstractResolver):
    """Resolves names for aiohttp to addresses that the guard allows."""

    def __init__(
        self, guard: Guard, lookup: Lookup, *, threads: int, timeout: float, size: int = 20_000
    ) -> None:
        """Bounds one lookup to `timeout` seconds and the cache to `size` names."""
        self._guard, self._lookup, self._timeout, self._size = guard, lookup, timeout, size
        self._known: OrderedDict[str, tuple[float, Sequence[str] | socket.gaierror]] = OrderedDict()
        self._asked: dict[str, asyncio.Task[Sequence[str] | socket.gaierror]] = {}
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="pinxit-dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Returns the allowed addresses; raises `gaierror`, or `Refused` if none is allowed."""
        addresses = self._remembered(host)
        if addresses is None:
            task = self._asked.get(host)
            if task is None:
                task = self._asked[host] = asyncio.create_task(self._ask(host))
            # Shielded, so that a caller that gives up does not cancel the lookup for the others.
            addresses = await asyncio.shield(task)
        if isinstance(addresses, socket.gaierror):
            raise socket.gaierror(
                *addresses.args
            )  # a new exception, since the traceback grows each time
        reasons = {address: self._guard.refusal(address, port) for address in addresses}
        allowed = [address for address, reason in reasons.items() if reason is None]
        if not allowed:
            raise Refused(next(reason for reason in reasons.values() if reason is not None))
        return [_result(host, address, port) for address in allowed]

    async def close(self) -> None:
        """Cancels all lookups; threads that wait for an answer end by themselves."""
        for task in list(self._asked.values()):
            task.cancel()
        await asyncio.gather(*self._asked.values(), return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def forget_failures(self) -> None:
        """Forgets the lookups that failed."""
        failed = [host for host, (_, known) in self._known.items() if isinstance(known, OSError)]
        for host in failed:
            del self._known[host]

    def _remembered(self, host: str) -> Sequence[str] | socket.gaierror | None:
        expires, addresses = self._known.get(host, (0.0, None))
        if addresses is None or expires < asyncio.get_running_loop().time():
            return None
        self._known.move_to_end(host)
        return addresses

    async def _ask(self, host: str) -> Sequence[str] | socket.gaierror:
        """Looks a name up and caches the result; errors are returned, so all callers get them.

        Raises faults of this machine.
        """
        loop = asyncio.get_running_loop()
        result: Sequence[str] | socket.gaierror
        try:
            async with asyncio.timeout(self._timeout):
                result = await loop.run_in_executor(self._threads, self._lookup, host)
            if not result:
                result = socket.gaierror(socket.EAI_NONAME, "the name has no address")
        except TimeoutError:
            result = socket.gaierror(TEMPORARY, f"no answer within {self._timeout:g} s")
        except UnicodeError:
            result = socket.gaierror(socket.EAI_NONAME, "not a name")
        except socket.gaierror as error:
            result = socket.gaierror(*error.args)
        except OSError as error:
            if is_machine_fault(error):
                raise
            result = socket.gaierror(TEMPORARY, str(error))
        finally:
            del self._asked[host]
        failed = isinstance(result, socket.gaierror)
        if not isinstance(result, socket.gaierror) or result.errno != TEMPORARY:
            self._known[host] = (loop.time() + (FAILURE_CACHED if failed else CACHED), result)
            while len(self._known) > self._size:
                self._known.popitem(last=False)
        return result


def _result(host: str, address: str, port: int) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=address,
        port=port,
        family=socket.AF_INET6 if ":" in address else socket.AF_INET,
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )
