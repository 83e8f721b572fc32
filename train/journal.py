"""What a run says while it trains: metrics.jsonl, TensorBoard, a progress bar, train.log."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

METRICS: Final = "metrics.jsonl"
"""One JSON object a line: every step and every evaluation."""
LOG: Final = "train.log"


class Journal:
    """Writes into the run's folder; of several processes only the first has one that does.

    A resumed run goes on where its checkpoint stood: lines of later steps are dropped.
    """

    def __init__(self, folder: Path, steps_done: int, steps_in_all: int, writes: bool):
        self.folder, self.done, self.writes = folder, steps_done, writes
        self.bar = tqdm(
            total=steps_in_all,  # an estimate: epochs differ by a batch or two
            initial=steps_done,
            desc=folder.name,
            unit="step",
            file=sys.stderr,
            mininterval=1,
            disable=not writes,
        )

    def __enter__(self) -> Journal:
        if self.writes:
            path = self.folder / METRICS
            kept = lines_until(path, self.done)
            path.write_text("".join(kept), encoding="utf-8")
            self._lines = open(path, "a", encoding="utf-8", buffering=1)
            self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.done)
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        if self.writes:
            self._lines.close()
            self._board.close()

    def step(self, step: int, epoch: int, figures: dict[str, float]) -> None:
        """Record one step."""
        self.bar.set_postfix(epoch=epoch, loss=f"{figures['loss']:.3f}", refresh=False)
        self.bar.update()
        self._record("train", step, epoch, figures)

    def evaluation(self, step: int, epoch: int, figures: dict[str, float]) -> None:
        """Record an evaluation's loss, map and r1, and show them above the bar."""
        if self.writes:
            shown = "epoch {}: loss {loss:.3f}, mAP {map:.1%}, R-1 {r1:.1%}"
            self.bar.write(shown.format(epoch, **figures), file=sys.stderr)
        self._record("test", step, epoch, figures)

    def _record(self, kind: str, step: int, epoch: int, figures: dict[str, float]) -> None:
        if not self.writes:
            return
        entry: dict[str, Any] = {"kind": kind, "step": step, "epoch": epoch, **figures}
        self._lines.write(json.dumps(entry) + "\n")
        for name, value in figures.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)


def lines_until(path: Path, step: int) -> list[str]:
    """Return the whole lines of a metrics file up to ``step``; none when there is no file."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]  # a crash may have cut the last
    return [line for line in whole if json.loads(line)["step"] <= step]


@contextlib.contextmanager
def logged(folder: Path, writes: bool) -> Iterator[None]:
    """Send what is logged to train.log in ``folder`` too."""
    if not writes:
        yield
        return
    handler = logging.FileHandler(folder / LOG, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
