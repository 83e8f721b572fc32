"""Three simulated cameras whose true capture instants are known: what clocks and networks do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mambapro.contract import MODALITIES, Modality
from runtime.config import SyncConfig
from runtime.sources import Frame
from runtime.sync.clocks import TrackedClocks
from runtime.sync.synchroniser import Synchroniser, Triplet

PICTURE: Final = np.zeros((1, 1, 3), np.uint8)
REFERENCE: Final[Modality] = "rgb"
HALF_FRAME_S: Final = 0.02
GOOD: Final = 10
"""Triplets in a row from which pairing is called good."""

Times = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Condition:
    """What is done to the cameras; all draws are uniform up to these limits."""

    name: str
    """Row of the table."""
    offset_s: float = 0.5
    """Largest offset of a clock, s, on top of a different epoch for each."""
    drift: float = 200e-6
    """Largest drift of a clock."""
    phase_s: float | None = 0.01
    """Cameras that take their pictures in step, to within this, s; none lets each run by its own
    clock, whose drift moves its pictures through all phases."""
    tolerance_s: float = SyncConfig().tolerance_s
    """Largest difference of corrected times within a triplet, s."""
    stamp_jitter_s: float = 0.001
    """Standard deviation of the time stamps, s."""
    latency_s: tuple[float, float] = (0.02, 0.06)
    """Least delay of a camera, s."""
    jitter_s: float = 0.01
    """Mean of the exponential delay on top, s."""
    spike_share: float = 0.002
    """Share of frames that hold up all behind them."""
    spike_s: float = 0.3
    """Longest such hold-up, s."""
    loss: float = 0.01
    """Share of frames lost."""
    burst: float = 1.0
    """Mean length of a loss, frames."""
    overtaken: float = 0.0
    """Share of frames that arrive one to three frames late, after others."""
    rates: tuple[float, float, float] = (25.0, 25.0, 25.0)
    """Frames a second of rgb, nir, tir."""
    gone: tuple[Modality, ...] = ()
    """Cameras away for 10 s, twice."""
    jumps_s: tuple[float, ...] = ()
    """Steps of one clock, one after the other."""
    jumping: Modality = "nir"
    """Whose clock."""
    residual_error_s: float = 0.002
    """Standard error of the residual offset, s: what content gives after a few looks."""
    seconds: float = 120.0
    """Length, s."""


@dataclass(frozen=True)
class Camera:
    """Frames of one camera in the order of arrival, and the truth."""

    frames: list[Frame]
    """Frames; ``index`` counts those that arrived."""
    true_s: Times
    """True capture time by index, s."""


@dataclass(frozen=True)
class Outcome:
    """What the synchroniser made of it."""

    given: list[tuple[float, Triplet]]
    """Time by the clock of the arrivals and triplet."""
    cameras: dict[Modality, Camera]
    """What it was given."""
    synchroniser: Synchroniser
    """Itself, for its statistics."""
    events_s: list[float]
    """When clocks jumped, s."""


def simulate(condition: Condition, seed: int) -> Outcome:
    """Run the synchroniser on simulated cameras, frame by frame."""
    sync = SyncConfig()
    rng = np.random.default_rng(seed)
    rates = dict(zip(MODALITIES, condition.rates, strict=True))
    latencies_s = {m: float(rng.uniform(*condition.latency_s)) for m in MODALITIES}
    cameras = {m: _camera(condition, rng, m, rates[m], latencies_s[m]) for m in MODALITIES}
    residuals_s = {
        m: latencies_s[m] - latencies_s[REFERENCE] + rng.normal(0, condition.residual_error_s)
        for m in MODALITIES
        if m != REFERENCE
    }
    synchroniser = Synchroniser(
        MODALITIES, REFERENCE, TrackedClocks(residuals_s), condition.tolerance_s,
        sync.buffer_frames, sync.max_wait_s, sync.reorder_s,
    )  # fmt: skip
    given = list(_run(synchroniser, cameras))
    return Outcome(given, cameras, synchroniser, [t for t, _ in _jumps(condition)])


def _run(
    synchroniser: Synchroniser, cameras: dict[Modality, Camera]
) -> Iterator[tuple[float, Triplet]]:
    """Push every frame when it arrives; ask for triplets then and every 10 ms."""
    arrivals = sorted(
        ((f.arrival_s, m, f) for m, c in cameras.items() for f in c.frames), key=lambda a: a[0]
    )
    now_s = arrivals[0][0]
    for arrival_s, modality, frame in arrivals:
        while now_s < arrival_s:
            yield from _popped(synchroniser, now_s)
            now_s = min(arrival_s, now_s + 0.01)
        synchroniser.push(modality, frame)
        yield from _popped(synchroniser, now_s)
    for step in range(100):
        yield from _popped(synchroniser, now_s + step * 0.01)


def _popped(synchroniser: Synchroniser, now_s: float) -> Iterator[tuple[float, Triplet]]:
    while (triplet := synchroniser.pop(now_s)) is not None:
        yield now_s, triplet


def _camera(
    condition: Condition,
    rng: np.random.Generator,
    modality: Modality,
    rate: float,
    latency_s: float,
) -> Camera:
    drift = rng.uniform(-condition.drift, condition.drift)
    count = int(condition.seconds * rate)
    if condition.phase_s is None:
        true_s = rng.uniform(0, 1 / rate) + np.arange(count) / (rate * (1 + drift))
    else:
        true_s = rng.uniform(-condition.phase_s, condition.phase_s) + np.arange(count) / rate
    offset_s = rng.uniform(-condition.offset_s, condition.offset_s) + rng.integers(0, 3) * 1e4
    stamps_s = true_s * (1 + drift) + offset_s + rng.normal(0, condition.stamp_jitter_s, count)
    if modality == condition.jumping:
        for at_s, jump_s in _jumps(condition):
            stamps_s[true_s >= at_s] += jump_s
    arrivals_s = _arrivals(condition, rng, true_s, latency_s)
    kept = ~_lost(condition, rng, count)
    if modality in condition.gone:
        for at_s in (condition.seconds / 4, condition.seconds / 1.7):
            kept &= (true_s < at_s) | (true_s > at_s + 10)
    order = np.flatnonzero(kept)[np.argsort(arrivals_s[kept], kind="stable")]
    frames = [
        Frame(PICTURE, float(stamps_s[i]), "pts", index, float(arrivals_s[i]))
        for index, i in enumerate(order)
    ]
    return Camera(frames, true_s[order])


def _arrivals(
    condition: Condition, rng: np.random.Generator, true_s: Times, latency_s: float
) -> Times:
    """Return when frames arrive: in order, but for those that are overtaken."""
    count = len(true_s)
    delays = latency_s + rng.exponential(condition.jitter_s, count)
    spikes = rng.random(count) < condition.spike_share
    delays[spikes] += rng.uniform(0.05, condition.spike_s, int(spikes.sum()))
    arrivals = np.maximum.accumulate(true_s + delays)
    overtaken = rng.random(count) < condition.overtaken
    arrivals[overtaken] += rng.uniform(0.04, 0.12, int(overtaken.sum()))
    return arrivals


def _lost(condition: Condition, rng: np.random.Generator, count: int) -> npt.NDArray[np.bool_]:
    """Return which frames are lost: bursts of geometric length that add up to the share."""
    lost = np.zeros(count, bool)
    begins = condition.loss / condition.burst / max(1e-9, 1 - condition.loss)
    index = 0
    while index < count:
        if rng.random() < begins:
            length = rng.geometric(1 / condition.burst)
            lost[index : index + length] = True
            index += length
        index += 1
    return lost


def _jumps(condition: Condition) -> list[tuple[float, float]]:
    """Return when the clock jumps, and by how much."""
    parts = len(condition.jumps_s) + 1
    return [(condition.seconds * (i + 1) / parts, j) for i, j in enumerate(condition.jumps_s)]


@dataclass(frozen=True)
class Figures:
    """How good the triplets of one outcome are."""

    errors_s: Times
    """True difference between a frame and the anchor it was paired with, of every pair, s."""
    spreads_s: Times
    """Largest true difference within a triplet of two frames or more, s."""
    best_s: Times
    """What ``errors_s`` would be if every clock were known exactly, s."""
    complete: int
    """Triplets of all three."""
    possible: int
    """How many there would be if every clock were known exactly and nothing came too late."""
    good_s: list[float]
    """Until pairing was good, after the start and after each jump, s."""
    waits_s: Times
    """From the arrival of a complete triplet's last frame to when it was given, s."""


def figures(outcome: Outcome) -> Figures:
    """Measure an outcome against the truth."""
    errors, spreads, waits, quality = [], [], [], []
    for now_s, triplet in outcome.given:
        true = {m: outcome.cameras[m].true_s[f.index] for m, f in triplet.frames.items()}
        anchor = REFERENCE if REFERENCE in true else next(iter(true))
        pairs = [abs(t - true[anchor]) for m, t in true.items() if m != anchor]
        errors += pairs
        if pairs:
            spreads.append(np.ptp(list(true.values())))
        if len(true) == len(MODALITIES):
            waits.append(now_s - max(f.arrival_s for f in triplet.frames.values()))
        quality.append((now_s, frozenset(true), max(pairs, default=0.0)))
    best, possible = _best(outcome.cameras)
    begin_s = min(camera.frames[0].arrival_s for camera in outcome.cameras.values())
    good_s = [_good_after(quality, at_s) for at_s in (begin_s, *outcome.events_s)]
    return Figures(
        np.array(errors), np.array(spreads), best, len(waits), possible, good_s, np.array(waits)
    )


def _good_after(quality: list[tuple[float, frozenset[Modality], float]], at_s: float) -> float:
    """Return when GOOD triplets in a row begin: none is wrong by a frame, no camera is missing."""
    later = [q for q in quality if q[0] >= at_s]
    for i in range(len(later) - GOOD + 1):
        row = later[i : i + GOOD]
        counts = [sum(m in modalities for _, modalities, _ in row) for m in MODALITIES]
        if min(counts) >= GOOD // 3 and max(error for *_, error in row) <= 1.25 * HALF_FRAME_S:
            return row[0][0] - at_s
    return float("inf")


def _best(cameras: dict[Modality, Camera]) -> tuple[Times, int]:
    """Return the errors of nearest frames by the truth, and how often all three have one."""
    anchors = np.sort(cameras[REFERENCE].true_s)
    gaps = []
    for modality, camera in cameras.items():
        if modality != REFERENCE:
            true = np.sort(camera.true_s)
            after = np.clip(np.searchsorted(true, anchors), 1, len(true) - 1)
            gaps.append(np.minimum(abs(true[after] - anchors), abs(true[after - 1] - anchors)))
    near = [gap <= 1.1 * HALF_FRAME_S for gap in gaps]
    best = np.concatenate([gap[gap <= 1.1 * HALF_FRAME_S] for gap in gaps])
    return best, int(np.logical_and.reduce(near).sum())
