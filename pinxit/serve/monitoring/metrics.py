"""The figures of a studio for Prometheus, in a registry of its own.

Most of them are read from the engine when they are asked for, so they need no updates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import psutil
from prometheus_client.core import CollectorRegistry, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pinxit.serve.studio import Studio
from pinxit.version import __version__

STATES = ("queued", "drawing", "done", "failed", "cancelled")
"""The states of a job."""


class StudioFigures(Collector):
    """Reads the engine's state each time that figures are asked for."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._process = psutil.Process()

    def collect(self) -> Iterator[Metric]:
        """Yields the figures of this moment."""
        jobs = self._studio.engine.jobs()
        states = Counter(job.state for job in jobs)
        by_state = GaugeMetricFamily(
            "pinxit_jobs", "Jobs that the server remembers, by state", labels=["state"]
        )
        for state in STATES:
            by_state.add_metric([state], states[state])
        yield by_state
        waiting = sum(job.request.n for job in jobs if job.state == "queued")
        yield GaugeMetricFamily(
            "pinxit_queue_pictures", "Pictures of jobs that wait for their turn", value=waiting
        )
        models = GaugeMetricFamily(
            "pinxit_model_loaded", "Whether a model is in memory", labels=["model"]
        )
        loaded = 0
        for model in self._studio.engine.models():
            models.add_metric([model.id], float(model.loaded))
            loaded += model.loaded
        yield models
        yield GaugeMetricFamily("pinxit_models_loaded", "Models in memory", value=loaded)
        memory = self._process.memory_info().rss
        yield GaugeMetricFamily(
            "pinxit_memory_bytes", "Memory of the server's process", value=memory
        )
        version = GaugeMetricFamily("pinxit_info", "Version of Pinxit", labels=["version"])
        version.add_metric([__version__], 1)
        yield version


def studio_registry(studio: Studio) -> CollectorRegistry:
    """Returns a registry with the figures of a studio."""
    registry = CollectorRegistry()
    registry.register(StudioFigures(studio))
    return registry
