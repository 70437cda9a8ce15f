"""Chooses an engine by its name on the command line."""

from __future__ import annotations

from pinxit.config import UsageError, choice
from pinxit.prepare.engines.base import Engine
from pinxit.prepare.engines.local import InlineEngine, LocalEngine
from pinxit.prepare.engines.ranks import RankEngine

ENGINES = ("local", "inline", "rank", "ray")


def in_this_process(engine: Engine) -> Engine:
    """Returns an engine that does the same share in this process; a Ray engine is unchanged.

    Work that uses all of the machine's devices must run in one process, and this one may hold them
    already.
    """
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
    """Returns an engine by name. `address` is for ``ray``, `rank` and `world` are for ``rank``."""
    choice("engine", name, ENGINES)
    if address is not None and name != "ray":
        problem, valid = f"not used by engine {name!r}", "--engine ray"
        raise UsageError("address", address, problem=problem, valid=valid)
    if name != "rank" and not (rank is None and world is None):
        problem, valid = f"not used by engine {name!r}", "--engine rank"
        raise UsageError("rank", rank if rank is not None else world, problem=problem, valid=valid)
    if name == "ray":
        from pinxit.prepare.engines.ray_cluster import RayEngine

        return RayEngine(address)
    if name == "rank":
        return RankEngine(rank, world)
    return InlineEngine() if name == "inline" else LocalEngine()
