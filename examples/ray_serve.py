"""The studio on Ray Serve: several replicas of one server, added and removed with the load.

    pip install -e ".[studio,ray]"
    python examples/ray_serve.py runs/scenes --replicas 2
    python examples/ray_serve.py runs/scenes --min_replicas 1 --max_replicas 8 --gpus 1

Each replica is the application of `pinxit studio` with an engine, models and a queue of its own.
Every option of `pinxit studio` is an option here. /v1/images answers on any replica, with the same
bytes on each. A job of /v1/jobs and of the page is known to its replica alone: requests with the
same header X-Session-Id reach the same replica, as long as none is added or removed, so give each
client its own. Pictures, runs and datasets are in folders that all replicas must see.

On a cluster, `serve run --app-dir examples ray_serve:application checkpoints=runs/scenes` reads the
same options.
"""

import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from pinxit.cli.arguments import parse
from pinxit.cli.habits import STUDIO_HABITS
from pinxit.config import UsageError, positive
from pinxit.extras import check_studio_extra
from pinxit.serve.settings import StudioConfig


@dataclass(frozen=True)
class RayServeConfig(StudioConfig):
    """Settings of the replicas, and of the server that each of them is."""

    port: int = 8000
    """The port to listen on."""
    max_trainings: int = 0
    """Number of runs that the page may train at the same time on each replica."""
    replicas: int = 2
    """Number of replicas, unless max_replicas is given."""
    min_replicas: int = 1
    """Number of replicas that stay when nobody draws; 0 makes the first request wait for one."""
    max_replicas: int | None = None
    """The largest number of replicas. none keeps their number at replicas."""
    target_requests: float = 8.0
    """Number of running requests per replica above which replicas are added, and below which they
    are removed."""
    cpus: float = 1.0
    """Number of CPU cores that each replica reserves."""
    gpus: float = 0.0
    """Number of GPUs that each replica reserves."""

    def __post_init__(self) -> None:
        """Refuses wrong settings before Ray starts."""
        super().__post_init__()
        positive("replicas", self.replicas)
        positive("port", self.port)
        for name in ("min_replicas", "cpus", "gpus"):
            positive(name, getattr(self, name), minimum=0)
        if not self.target_requests > 0:
            raise UsageError("target_requests", self.target_requests, problem="too small")
        if self.max_replicas is not None:
            positive("max_replicas", self.max_replicas, minimum=max(1, self.min_replicas))


def read_options(words: Sequence[str]) -> RayServeConfig:
    """Returns the settings in a command, for replicas: with absolute paths, and one token."""
    config = parse(
        RayServeConfig,
        words,
        prog="ray_serve.py",
        description=__doc__,
        positional="checkpoints",
        habits=STUDIO_HABITS,
    )
    check_studio_extra("ray_serve.py")
    from pinxit.serve.access.studio_rules import rules_of

    absolute = {name: str(Path(getattr(config, name)).absolute()) for name in ("runs", "out")}
    return replace(
        config,
        token=rules_of(config).token,  # refuses a server for other computers without one
        data=tuple(str(Path(name).absolute()) for name in config.data),
        checkpoints=tuple(_absolute(name) for name in config.checkpoints),
        **absolute,
    )


def _absolute(name: str) -> str:
    """Returns the absolute path of a file or folder, and other names, such as the Hub's, as is."""
    return str(Path(name).absolute()) if Path(name).exists() else name


def application_of(config: RayServeConfig):
    """Returns the application for Ray Serve."""
    from ray import serve
    from ray.serve.config import AutoscalingConfig, RequestRouterConfig
    from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

    own = {field.name: getattr(config, field.name) for field in fields(StudioConfig)}

    def build():
        """Builds the application of one replica, on the machine where it runs."""
        from pinxit.serve.app import create_app

        return create_app(StudioConfig(**own))

    amount = {"num_replicas": config.replicas}
    if config.max_replicas is not None:
        scaling = AutoscalingConfig(
            min_replicas=config.min_replicas,
            max_replicas=config.max_replicas,
            target_ongoing_requests=config.target_requests,
        )
        amount = {"autoscaling_config": scaling}
    deployment = serve.deployment(
        serve.ingress(build)(),
        name="studio",
        ray_actor_options={"num_cpus": config.cpus, "num_gpus": config.gpus},
        # the studio's own queue refuses what is too much, with an answer that says so
        max_ongoing_requests=4 * config.max_waiting,
        graceful_shutdown_timeout_s=config.drain_seconds,
        request_router_config=RequestRouterConfig(request_router_class=ConsistentHashRouter),
        **amount,
    )
    return deployment.bind()


def application(options: Mapping[str, str]):
    """Returns the application for `serve run` and `serve deploy`, from options as text."""
    words = [word for name, value in options.items() for word in (f"--{name}", *value.split())]
    return application_of(read_options(words))


def main(words: Sequence[str]) -> int:
    """Serves until SIGINT or SIGTERM, then lets the replicas finish."""
    try:
        config = read_options(words)
    except UsageError as error:
        print(f"ray_serve.py: {error}", file=sys.stderr)
        return 2
    import ray
    from ray import serve

    ended = threading.Event()
    serve.start(http_options={"host": config.host, "port": config.port})
    for number in (signal.SIGINT, signal.SIGTERM):  # after Ray, which has handlers of its own
        signal.signal(number, lambda *_: ended.set())
    try:
        serve.run(application_of(config), route_prefix="/")
        print(f"ray_serve.py: http://{config.host}:{config.port}/", file=sys.stderr, flush=True)
        ended.wait()
    finally:
        serve.shutdown()
        ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
