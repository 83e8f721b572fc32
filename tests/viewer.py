"""Reads a live source that plays a numbered clip, and remembers what came when."""

import time
from dataclasses import dataclass, field
from itertools import pairwise

from runtime.sources import End, Failure, Frame
from tests.numbered_clips import FPS, number_of

CLIP_FRAMES = 250
LONGEST_S = 15.0  # of any wait; no test comes near it


@dataclass
class Viewer:
    """Reads a source as a rig does, and remembers what it saw and when."""

    source: object
    frames: list = field(default_factory=list)
    numbers: list = field(default_factory=list)
    states: list = field(default_factory=list)

    def until(self, condition, longest_s=LONGEST_S):
        """Read until ``condition(self)`` holds; return when that was, s."""
        end_s = time.monotonic() + longest_s
        while True:
            reading = self.source.read(0.02)
            assert not isinstance(reading, (Failure, End))
            now_s = time.monotonic()
            if isinstance(reading, Frame):
                self.frames.append(reading)
                self.numbers.append(number_of(reading.picture))
            state = self.source.status().state
            if not self.states or self.states[-1] != state:
                self.states.append(state)
            if condition(self):
                return now_s
            assert now_s < end_s, (self.source.status(), len(self.frames), self.states)

    def watch(self, seconds):
        end_s = time.monotonic() + seconds
        return self.until(lambda _: time.monotonic() >= end_s)

    def until_state(self, *states):
        return self.until(lambda v: v.states and v.states[-1] in states)

    def until_more(self, count=1):
        wanted = len(self.frames) + count
        return self.until(lambda v: len(v.frames) >= wanted)

    def lost(self, since):
        """Return how many frames did not come since frame ``since``, by the clock."""
        seconds = self.frames[-1].arrival_s - self.frames[since].arrival_s
        return max(0, round(seconds * FPS) + 1 - len(self.frames[since:]))

    def missing(self, since=0):
        """Return how many of the numbers that were sent since frame ``since`` did not come."""
        numbers = self.numbers[since:]
        steps = [(b - a) % CLIP_FRAMES for a, b in pairwise(numbers)]
        return sum(steps) - len(steps)
