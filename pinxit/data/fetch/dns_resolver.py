"""Host names to addresses: asked once, remembered for a while, and never a private one.

A dataset of URLs asks for far more names than a resolver's cache was made for, and a dead name
takes seconds to fail. So questions run in threads of their own, several askers of one name wait
for one answer, answers are kept in a bounded table, and so are failures. What comes back has passed
the guard; the guard judges once more where the connection is made.

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

Lookup = Callable[[str], Sequence[str]]
"""A host name's addresses. It may block; it raises `socket.gaierror` where there are none."""

KEPT = 300.0
"""Seconds for which an answer is used again."""
KEPT_FAILURE = 60.0
"""Seconds for which a name is taken not to exist."""
TEMPORARY = socket.EAI_AGAIN
"""The error of a lookup that may succeed in a moment; it is not remembered."""


def system_lookup(host: str) -> list[str]:
    """What the operating system's resolver says, IPv4 and IPv6."""
    infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


class Resolver(AbstractResolver):
    """aiohttp's resolver: names to addresses that the guard allows."""

    def __init__(
        self, guard: Guard, lookup: Lookup, *, threads: int, timeout: float, size: int = 20_000
    ) -> None:
        """`timeout` in seconds bounds one lookup; `size` is the number of names remembered."""
        self._guard, self._lookup, self._timeout, self._size = guard, lookup, timeout, size
        self._known: OrderedDict[str, tuple[float, Sequence[str] | socket.gaierror]] = OrderedDict()
        self._asked: dict[str, asyncio.Task[Sequence[str] | socket.gaierror]] = {}
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="pinxit-dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The allowed addresses. Raises `socket.gaierror`, or `Refused` where none is allowed."""
        addresses = self._remembered(host)
        if addresses is None:
            task = self._asked.get(host)
            if task is None:
                task = self._asked[host] = asyncio.create_task(self._ask(host))
            # Shielded: who gives up waiting does not take the answer from the others.
            addresses = await asyncio.shield(task)
        if isinstance(addresses, socket.gaierror):
            raise socket.gaierror(*addresses.args)  # its own: a traceback grows when raised again
        reasons = {address: self._guard.refusal(address, port) for address in addresses}
        allowed = [address for address, reason in reasons.items() if reason is None]
        if not allowed:
            raise Refused(next(reason for reason in reasons.values() if reason is not None))
        return [_result(host, address, port) for address in allowed]

    async def close(self) -> None:
        """Forgets all questions; threads that wait for an answer end by themselves."""
        for task in list(self._asked.values()):
            task.cancel()
        await asyncio.gather(*self._asked.values(), return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _remembered(self, host: str) -> Sequence[str] | socket.gaierror | None:
        expires, addresses = self._known.get(host, (0.0, None))
        if addresses is None or expires < asyncio.get_running_loop().time():
            return None
        self._known.move_to_end(host)
        return addresses

    async def _ask(self, host: str) -> Sequence[str] | socket.gaierror:
        """Asks and remembers. Errors are values here: every asker gets the same."""
        loop = asyncio.get_running_loop()
        found: Sequence[str] | socket.gaierror
        try:
            async with asyncio.timeout(self._timeout):
                found = await loop.run_in_executor(self._threads, self._lookup, host)
            if not found:
                found = socket.gaierror(socket.EAI_NONAME, "the name has no address")
        except TimeoutError:
            found = socket.gaierror(TEMPORARY, f"no answer within {self._timeout:g} s")
        except UnicodeError:
            found = socket.gaierror(socket.EAI_NONAME, "not a name")
        except socket.gaierror as error:
            found = socket.gaierror(*error.args)
        except OSError as error:
            found = socket.gaierror(TEMPORARY, str(error))
        finally:
            del self._asked[host]
        failed = isinstance(found, socket.gaierror)
        if not isinstance(found, socket.gaierror) or found.errno != TEMPORARY:
            self._known[host] = (loop.time() + (KEPT_FAILURE if failed else KEPT), found)
            while len(self._known) > self._size:
                self._known.popitem(last=False)
        return found


def _result(host: str, address: str, port: int) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=address,
        port=port,
        family=socket.AF_INET6 if ":" in address else socket.AF_INET,
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )
