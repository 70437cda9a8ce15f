"""The choice of an engine, by the name given on the command line."""

from __future__ import annotations

from pinxit.config import UsageError, choice
from pinxit.prepare.engines.base import Engine
from pinxit.prepare.engines.local import InlineEngine, LocalEngine
from pinxit.prepare.engines.ranks import RankEngine

ENGINES = ("local", "inline", "rank", "ray")


def in_this_process(engine: Engine) -> Engine:
    """The same share, done here: what takes all of the machine's devices is to be in one process,
    and this one may hold them already. Not for Ray."""
    if isinstance(engine, RankEngine):
        return RankEngine(engine.rank, engine.world, inside=InlineEngine())
    return InlineEngine() if isinstance(engine, LocalEngine) else engine


def get_engine(
    name: str = "local",
    *,
    address: str | None = None,
    rank: int | None = None,
    world: int | None = None,
) -> Engine:
    """An engine by name; `address` is for ``ray``, `rank` and `world` are for ``rank``."""
    choice("engine", name, ENGINES)
    if address is not None and name != "ray":
        raise UsageError("address", address, problem=f"of no use to engine {name!r}", valid="ray")
    if name != "rank" and not (rank is None and world is None):
        problem = f"of no use to engine {name!r}"
        raise UsageError("rank", rank if rank is not None else world, problem=problem, valid="rank")
    if name == "ray":
        from pinxit.prepare.engines.ray_cluster import RayEngine

        return RayEngine(address)
    if name == "rank":
        return RankEngine(rank, world)
    return InlineEngine() if name == "inline" else LocalEngine()
