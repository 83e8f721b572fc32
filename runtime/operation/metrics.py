"""Every metric there is, and where its value comes from when somebody asks.

Nothing is updated along the way but :class:`runtime.figures.tally.Tally`: a scrape reads the state
that the parts keep anyway. docs/metrics.md has the same table; a test compares them.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal, get_args

import numpy as np
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from runtime.feeds.live_rig import LiveRig
from runtime.figures.tally import Durations
from runtime.operation.board import power_w, temperatures_c
from runtime.operation.health import LiveView
from runtime.sources import State
from runtime.sync.sync_statistics import BIN_S, SkewHistogram
from runtime.watching.quality import Flaw

SKEW_BOUNDS_S: Final = (
    0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15,
)  # fmt: skip


@dataclass(frozen=True)
class Declared:
    """A metric's name, kind, labels and meaning."""

    name: str
    """As it is exposed, with its unit; a counter's ends in _total."""
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str

    def counter(self) -> CounterMetricFamily:
        """Return a counter to fill."""
        assert self.kind == "counter"
        return CounterMetricFamily(self.name, self.meaning, labels=self.labels)

    def gauge(self) -> GaugeMetricFamily:
        """Return a gauge to fill."""
        assert self.kind == "gauge"
        return GaugeMetricFamily(self.name, self.meaning, labels=self.labels)

    def histogram(self) -> HistogramMetricFamily:
        """Return a histogram to fill."""
        assert self.kind == "histogram"
        return HistogramMetricFamily(self.name, self.meaning, labels=self.labels)


CAMERA: Final = ("rig", "modality")
FRAMES: Final = Declared(
    "mambapro_frames_total", "counter", CAMERA, "Frames decoded; its rate is the camera's fps"
)
DROPPED: Final = Declared(
    "mambapro_frames_dropped_total", "counter", (*CAMERA, "reason"),
    "Frames that came to nothing: source (damaged, or nobody took them in time), unpaired (in no "
    "triplet), old (in a triplet that was too old when its turn came)",
)  # fmt: skip
RECONNECTS: Final = Declared(
    "mambapro_source_reconnects_total", "counter", CAMERA,
    "Connections after the first that gave a picture",
)  # fmt: skip
STATE: Final = Declared(
    "mambapro_source_state", "gauge", (*CAMERA, "state"),
    "1 for the state that the camera is in, 0 for the others",
)  # fmt: skip
BEGUN: Final = Declared(
    "mambapro_rig_begun", "gauge", ("rig",), "1 when the rig gives triplets, 0 before"
)
TRIPLETS: Final = Declared("mambapro_triplets_total", "counter", ("rig",), "Triplets paired")
PRESENT: Final = Declared(
    "mambapro_triplets_with_modality_total", "counter", CAMERA,
    "Triplets that hold a frame of the modality; over all triplets, its availability",
)  # fmt: skip
SKEW: Final = Declared(
    "mambapro_skew_seconds", "histogram", ("rig",),
    "Difference of the earliest and latest frame of a triplet, clocks corrected",
)  # fmt: skip
STAGE: Final = Declared(
    "mambapro_stage_duration_seconds", "histogram", ("stage",),
    "Duration of step (detect, track and sample in a triplet), embed (a batch), decide (a search "
    "of the gallery)",
)  # fmt: skip
LATENCY: Final = Declared(
    "mambapro_event_latency_seconds", "histogram", (),
    "From the arrival of the last crop that a decision used to its sighting event",
)  # fmt: skip
DECISIONS: Final = Declared(
    "mambapro_decisions_total", "counter", ("subject", "outcome"),
    "Sightings decided, known or new; known over all is the match rate",
)  # fmt: skip
REFUSED_CROPS: Final = Declared(
    "mambapro_crops_refused_total", "counter", ("rig", "flaw"),
    "Instants in which a track gave no crop to embed, by what was wrong with it",
)  # fmt: skip
IDENTITIES: Final = Declared(
    "mambapro_gallery_identities", "gauge", ("subject",), "Identities in the gallery"
)
LOAD: Final = Declared(
    "mambapro_load_level", "gauge", (), "How much is left out to keep up: 0 nothing, 3 most"
)
IDLE: Final = Declared(
    "mambapro_deciding_idle_seconds", "gauge", (), "Time since the deciding thread advanced"
)
EVENTS: Final = Declared("mambapro_events_total", "counter", (), "Events taken since the start")
WAITING: Final = Declared(
    "mambapro_events_waiting", "gauge", (), "Events in memory that the disk refuses"
)
LOST: Final = Declared(
    "mambapro_events_lost_total", "counter", (), "Events dropped because too many waited"
)
JOURNAL: Final = Declared("mambapro_journal_bytes", "gauge", (), "Size of the journal on disk")
SINK_UP: Final = Declared(
    "mambapro_sink_up", "gauge", ("sink",), "1 when the last attempt reached the receiver"
)
BEHIND: Final = Declared(
    "mambapro_sink_events_behind", "gauge", ("sink",), "Events that the receiver does not have yet"
)
SENT: Final = Declared(
    "mambapro_sink_events_sent_total", "counter", ("sink",), "Events that the receiver acknowledged"
)
REFUSED: Final = Declared(
    "mambapro_sink_events_refused_total", "counter", ("sink",),
    "Events that the receiver will never take",
)  # fmt: skip
SKIPPED: Final = Declared(
    "mambapro_sink_events_skipped_total", "counter", ("sink",),
    "Events that left the full journal before they were sent",
)  # fmt: skip
CLIENTS: Final = Declared("mambapro_page_clients", "gauge", (), "Pages that are told what happens")
DROPPED_CLIENTS: Final = Declared(
    "mambapro_page_clients_dropped_total", "counter", (),
    "Clients of the page's streams that were let go because they did not keep up",
)  # fmt: skip
DRIFT: Final = Declared(
    "mambapro_drift_distance", "gauge", ("rig", "subject", "modality"),
    "How far embeddings are from those of calibration, 0 to 1 (Kolmogorov-Smirnov)",
)  # fmt: skip
DRIFTED: Final = Declared(
    "mambapro_drift_alert", "gauge", ("rig", "subject", "modality"), "1 while a drift alert is on"
)
TEMPERATURE: Final = Declared(
    "mambapro_board_temperature_celsius", "gauge", ("zone",),
    "Temperature of a thermal zone, where the kernel tells it",
)  # fmt: skip
POWER: Final = Declared(
    "mambapro_board_power_watts", "gauge", ("rail",), "Power of a rail, on Jetson boards"
)
THREADS: Final = Declared("mambapro_process_threads", "gauge", (), "Threads of the process")

DECLARED: Final = tuple(value for value in globals().values() if isinstance(value, Declared))


def registry_of(view: LiveView) -> CollectorRegistry:
    """Return a registry that reads ``view``, and this process, whenever it is asked."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(LiveCollector(view))
    ProcessCollector(registry=registry)
    return registry


class LiveCollector(Collector):
    """Reads a live run."""

    def __init__(self, view: LiveView) -> None:
        """Read ``view`` at each scrape."""
        self._view = view

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of DECLARED."""
        rigs = self._view.feed.rigs()
        yield from _sources(rigs)
        yield from _triplets(rigs)
        yield from self._pipeline()
        yield from self._events()
        yield from self._drift()
        yield from _board()
        yield _one(THREADS.gauge(), len(os.listdir("/proc/self/task")))

    def _pipeline(self) -> Iterator[Metric]:
        tally, feed = self._view.tally, self._view.feed
        stages = STAGE.histogram()
        for stage, durations in tally.stages.items():
            _fill(stages, [stage], durations)
        latency = LATENCY.histogram()
        _fill(latency, [], tally.latency)
        decisions, identities = DECISIONS.counter(), IDENTITIES.gauge()
        for subject, known in self._view.identities().items():
            identities.add_metric([subject], known)
            decisions.add_metric([subject, "known"], tally.decisions[subject, True])
            decisions.add_metric([subject, "new"], tally.decisions[subject, False])
        refused = REFUSED_CROPS.counter()
        for rig, flaw in itertools.product([r.rig.name for r in feed.rigs()], get_args(Flaw)):
            refused.add_metric([rig, flaw], tally.flaws[rig, flaw])
        yield from (stages, latency, decisions, identities, refused)
        yield _one(LOAD.gauge(), feed.load)
        yield _one(IDLE.gauge(), time.monotonic() - tally.advanced_s)
        yield _one(CLIENTS.gauge(), tally.clients)
        yield _one(DROPPED_CLIENTS.counter(), tally.clients_dropped)

    def _drift(self) -> Iterator[Metric]:
        distance, alert = DRIFT.gauge(), DRIFTED.gauge()
        for labels, drift in self._view.drift().items():
            distance.add_metric(labels, drift.distance)
            alert.add_metric(labels, drift.alert)
        yield from (distance, alert)

    def _events(self) -> Iterator[Metric]:
        status = self._view.events.status()
        yield _one(EVENTS.counter(), status.written)
        yield _one(WAITING.gauge(), status.waiting)
        yield _one(LOST.counter(), status.lost)
        yield _one(JOURNAL.gauge(), status.journal_bytes)
        up, behind = SINK_UP.gauge(), BEHIND.gauge()
        sent, refused, skipped = SENT.counter(), REFUSED.counter(), SKIPPED.counter()
        for sink in status.sinks:
            up.add_metric([sink.name], sink.connected)
            behind.add_metric([sink.name], sink.behind)
            sent.add_metric([sink.name], sink.sent)
            refused.add_metric([sink.name], sink.refused)
            skipped.add_metric([sink.name], sink.skipped)
        yield from (up, behind, sent, refused, skipped)


def _board() -> Iterator[Metric]:
    temperature, power = TEMPERATURE.gauge(), POWER.gauge()
    for zone, celsius in temperatures_c().items():
        temperature.add_metric([zone], celsius)
    for rail, watts in power_w().items():
        power.add_metric([rail], watts)
    yield from (temperature, power)


def _sources(rigs: Sequence[LiveRig]) -> Iterator[Metric]:
    frames, dropped = FRAMES.counter(), DROPPED.counter()
    reconnects, states = RECONNECTS.counter(), STATE.gauge()
    for rig in rigs:
        for modality, status in rig.status().items():
            camera = [rig.rig.name, str(modality)]
            frames.add_metric(camera, status.frames)
            dropped.add_metric([*camera, "source"], status.dropped)
            dropped.add_metric([*camera, "unpaired"], rig.statistics.unpaired[modality])
            dropped.add_metric([*camera, "old"], rig.statistics.skipped[modality])
            reconnects.add_metric(camera, status.reconnects)
            for state in get_args(State):
                states.add_metric([*camera, state], state == status.state)
    yield from (frames, dropped, reconnects, states)


def _triplets(rigs: Sequence[LiveRig]) -> Iterator[Metric]:
    begun, triplets = BEGUN.gauge(), TRIPLETS.counter()
    present, skew = PRESENT.counter(), SKEW.histogram()
    for rig in rigs:
        name, statistics = rig.rig.name, rig.statistics
        begun.add_metric([name], rig.begun)
        triplets.add_metric([name], statistics.triplets)
        for modality in rig.rig.cameras:
            count = statistics.triplets - statistics.missing[modality]
            present.add_metric([name, str(modality)], count)
        skew.add_metric([name], *_skews(statistics.skews))
    yield from (begun, triplets, present, skew)


def _skews(skews: SkewHistogram) -> tuple[list[tuple[str, float]], float]:
    """Return buckets and sum; each skew counts as the middle of its bin."""
    counts = skews.counts.copy()
    to = [int(counts[: round(bound / BIN_S) + 1].sum()) for bound in SKEW_BOUNDS_S]
    total_s = float(np.arange(len(counts)) @ counts * BIN_S)
    return _buckets(SKEW_BOUNDS_S, [*to, int(counts.sum())]), total_s


def _fill(family: HistogramMetricFamily, labels: list[str], durations: Durations) -> None:
    counts, sum_s = durations.read()
    family.add_metric(labels, _buckets(durations.bounds_s, accumulate(counts)), sum_s)


def _buckets(bounds_s: Sequence[float], up_to: Iterable[int]) -> list[tuple[str, float]]:
    names = map(floatToGoString, (*bounds_s, float("inf")))
    return [(name, float(count)) for name, count in zip(names, up_to, strict=True)]


def _one(family: CounterMetricFamily | GaugeMetricFamily, value: float) -> Metric:
    family.add_metric([], value)
    return family
