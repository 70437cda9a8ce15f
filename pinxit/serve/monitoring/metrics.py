"""The figures of a studio for Prometheus, in a registry of its own.

Most of them are read from the engine when they are asked for, so they need no updates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import psutil
from prometheus_client.core import CollectorRegistry, CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pinxit.serve.engine.jobs import ENDED
from pinxit.serve.studio import Studio
from pinxit.version import __version__

STATES = ("queued", "drawing", *ENDED)
"""The states of a job, those of ended ones last."""
GAUGES = (
    ("pinxit_queue_pictures", "waiting", "Pictures that wait for their turn"),
    ("pinxit_drawing_pictures", "drawing", "Pictures that are being drawn"),
    ("pinxit_picture_seconds", "seconds_per_picture", "Seconds per picture, moving average"),
    ("pinxit_draining", "draining", "Whether the server ends and takes no further requests"),
)
"""Name, key in the engine's statistics, and meaning of each figure that may fall."""


class StudioFigures(Collector):
    """Reads the engine's state each time that figures are asked for."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._process = psutil.Process()

    def collect(self) -> Iterator[Metric]:
        """Yields the figures of this moment."""
        yield from self._work()
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

    def _work(self) -> Iterator[Metric]:
        """Yields the figures of jobs and pictures."""
        states = Counter(job.state for job in self._studio.engine.jobs())
        by_state = GaugeMetricFamily(
            "pinxit_jobs", "Jobs that the server remembers, by state", labels=["state"]
        )
        for state in STATES:
            by_state.add_metric([state], states[state])
        yield by_state
        figures = self._studio.engine.statistics()
        for name, key, text in GAUGES:
            yield GaugeMetricFamily(name, text, value=float(figures[key]))
        ended = figures["ended"]
        yield CounterMetricFamily(
            "pinxit_pictures", "Finished pictures", value=ended.get("pictures", 0)
        )
        jobs = CounterMetricFamily("pinxit_jobs_ended", "Ended jobs, by state", labels=["state"])
        for state in ENDED:
            jobs.add_metric([state], ended.get(state, 0))
        yield jobs


def studio_registry(studio: Studio) -> CollectorRegistry:
    """Returns a registry with the figures of a studio."""
    registry = CollectorRegistry()
    registry.register(StudioFigures(studio))
    return registry
