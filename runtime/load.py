"""How hard the box is pressed, and what it gives up first.

Order of shedding, the mildest first:

1. crops of a track are taken less often (:data:`THRIFT`), so fewer are embedded;
2. the mosaic is not drawn;
3. triplets older than ``live.max_age_s`` are dropped, the oldest first, and counted; so are the
   oldest frames of a source whose queue nobody empties.

All queues are bounded whatever the load is, so memory is too.
"""

from __future__ import annotations

from typing import Final

THRIFT: Final = (1.0, 2.0, 4.0, 8.0)
"""By load: crops are taken this many times as far apart as configured."""
NO_PICTURES: Final = 2
"""From this load on no mosaic is drawn."""
RISE_S: Final = 0.5
FALL_S: Final = 4.0
"""The load changes by one step, and at most once in this time; up sooner than down."""


def left_out(level: int) -> str:
    """Return in words what is left out at a load."""
    if level == 0:
        return "nothing is left out"
    rarer = f"crops are taken {THRIFT[level]:g} times less often"
    return rarer + (", no mosaic is written" if level >= NO_PICTURES else "")


class LoadControl:
    """Raises the load while work comes late, lowers it when it has been in time for a while."""

    def __init__(self, budget_s: float) -> None:
        """Call work late when it begins more than ``budget_s`` after its frames arrived."""
        self._budget_s = budget_s
        self._changed_s = -FALL_S
        self._late_s = -FALL_S
        self.level = 0
        """0, all is done, to ``len(THRIFT) - 1``."""

    def see(self, lag_s: float, now_s: float) -> int:
        """Take the age of the frames that work begins on now; return the load."""
        late = lag_s > self._budget_s
        if late:
            self._late_s = now_s
        since_s = now_s - self._changed_s
        if late and since_s >= RISE_S and self.level < len(THRIFT) - 1:
            self._change(self.level + 1, now_s)
        elif self.level and min(since_s, now_s - self._late_s) >= FALL_S:
            self._change(self.level - 1, now_s)
        return self.level

    def _change(self, level: int, now_s: float) -> None:
        self.level, self._changed_s = level, now_s
