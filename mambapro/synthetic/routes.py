"""Who crosses which rig, when and along which line."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from mambapro.contract import Subject
from mambapro.synthetic.datasets import appearance_rng
from mambapro.synthetic.people import Person, sample_person
from mambapro.synthetic.rigs import SIZES
from mambapro.synthetic.vehicles import SHAPES, Vehicle, sample_vehicle

_WIDTH, _HEIGHT = SIZES["rgb"]
_BREAK_S = 1.5
"""Least time between two visits of one actor."""
_MOST_AT_ONCE = 3
_SHORT_S = 20.0
"""Clips shorter than this leave no time to walk from rig to rig: each actor gets one of them."""


@dataclass(frozen=True)
class Actor:
    """An individual of a scene."""

    identity: int
    """Label in the ground truth, from 1."""
    kind: Subject
    who: Person | Vehicle


@dataclass(frozen=True)
class Placement:
    """Where an actor is at one moment, in reference pixels."""

    foot: tuple[float, float]
    px_per_m: float
    yaw: float
    travelled_m: float


@dataclass(frozen=True)
class Visit:
    """One crossing of a rig's view along a straight line."""

    actor: Actor
    rig: int
    start_s: float
    duration_s: float
    start: tuple[float, float]
    end: tuple[float, float]
    warm: float
    """Engine state of a vehicle."""

    @property
    def end_s(self) -> float:
        """Time at which the actor has left."""
        return self.start_s + self.duration_s

    def at(self, time_s: float) -> Placement | None:
        """Return where the actor is, or None outside the visit."""
        share = (time_s - self.start_s) / self.duration_s
        if not 0 <= share <= 1:
            return None
        x = self.start[0] + share * (self.end[0] - self.start[0])
        y = self.start[1] + share * (self.end[1] - self.start[1])
        if self.actor.kind == "person":
            y += 3 * math.sin(share * 9 + self.actor.identity)
        scale = self._scale(y)
        dx, dy = self.end[0] - self.start[0], self.end[1] - self.start[1]
        # A row counts more than a column: the ground is seen at a slant.
        yaw = math.atan2(dx, dy * 4.0)
        return Placement((x, y), scale, yaw, share * math.hypot(dx, dy * 2) / scale)

    def _scale(self, row: float) -> float:
        near = (row - 0.55 * _HEIGHT) / (0.45 * _HEIGHT)
        if self.actor.kind == "person":
            return 64 + 40 * near
        assert isinstance(self.actor.who, Vehicle)
        length = SHAPES[self.actor.who.kind].length_m
        return (46 + 14 * near) * min(1.0, 4.8 / length)


def build_actors(seed: int, people: int, vehicles: int) -> list[Actor]:
    """Return the scene's individuals, none of which is in a dataset."""
    actors: list[Actor] = []
    for number in range(people):
        person = sample_person(appearance_rng("scene", "person", seed, number))
        actors.append(Actor(len(actors) + 1, "person", person))
    for number in range(vehicles):
        vehicle = sample_vehicle(appearance_rng("scene", "vehicle", seed, number))
        actors.append(Actor(len(actors) + 1, "vehicle", vehicle))
    return actors


def plan_visits(actors: list[Actor], seed: int, seconds: float) -> list[Visit]:
    """Return all crossings: most actors pass gate and yard, some return, some pass one rig only.

    Nobody is in two places at once, and at most three are at a rig; who finds no room before the
    clip ends does not come. In clips under 20 s each actor passes one rig.
    """
    rng = np.random.default_rng([seed, 0x70D0])
    order = [actors[i] for i in rng.permutation(len(actors))]
    gate = [actor for i, actor in enumerate(order) if i % 5 != 4]
    yard = [actor for i, actor in enumerate(order) if i % 5 != 3]
    returning = [actor for i, actor in enumerate(order) if i % 5 in (0, 2)]
    if seconds < _SHORT_S:
        gate, yard, returning = order[::2], order[1::2], []
    wishes = _spread(rng, gate + returning[::2], 0, seconds, 0.0)
    wishes += _spread(rng, yard + returning[1::2], 1, seconds, 7.0 if seconds >= _SHORT_S else 0.0)
    visits: list[Visit] = []
    for begin, rig, actor in sorted(wishes, key=lambda wish: wish[0]):
        visit = _fit(_visit(rng, actor, rig, begin), visits)
        if visit.start_s < seconds - min(1.5, 0.3 * seconds):
            visits.append(visit)
    return visits


def _spread(
    rng: np.random.Generator, queue: list[Actor], rig: int, seconds: float, delay_s: float
) -> list[tuple[float, int, Actor]]:
    """Return (start, rig, actor) of one visit for each actor of the queue, evenly over the clip."""
    lead = min(1.2, 0.3 * seconds)
    step = (seconds - delay_s - lead) / max(1, len(queue))
    return [
        (delay_s - lead + (i + float(rng.uniform(-0.1, 0.3))) * step, rig, actor)
        for i, actor in enumerate(queue)
    ]


def _fit(wish: Visit, visits: list[Visit]) -> Visit:
    """Return the visit, put off until its actor is free and the rig has room."""
    own = [visit.end_s + _BREAK_S for visit in visits if visit.actor == wish.actor]
    begin = max([wish.start_s, *own])
    there = sorted(visit.end_s for visit in visits if visit.rig == wish.rig and visit.end_s > begin)
    if len(there) >= _MOST_AT_ONCE:
        begin = max(begin, there[-_MOST_AT_ONCE])
    return replace(wish, start_s=begin)


def _visit(rng: np.random.Generator, actor: Actor, rig: int, begin_s: float) -> Visit:
    person = actor.kind == "person"
    forward = rng.random() < 0.5
    margin = 45 if person else 150
    low, high = (0.66, 0.96) if person else (0.78, 0.93)
    rows = rng.uniform(low, high, 2) * _HEIGHT
    if person:
        rows[1] = np.clip(rows[0] + rng.uniform(-45, 45), low * _HEIGHT, high * _HEIGHT)
        speed = float(rng.uniform(95, 130))
    else:
        rows[1] = np.clip(
            rows[0] + rng.choice([-1, 1]) * rng.uniform(10, 50), low * _HEIGHT, high * _HEIGHT
        )
        speed = float(rng.uniform(210, 300))
    columns = (-margin, _WIDTH + margin) if forward else (_WIDTH + margin, -margin)
    duration = (_WIDTH + 2 * margin) / speed
    start, end = (float(columns[0]), float(rows[0])), (float(columns[1]), float(rows[1]))
    return Visit(actor, rig, begin_s, duration, start, end, float(rng.uniform(0.4, 1.0)))
