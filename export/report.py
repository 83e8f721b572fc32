"""What a comparison found: verdict, table, JSON and Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from export.measure import Measured

_HEADER = (
    "model", "precision", "target", "mAP %", "R-1 %", "R-5 %", "R-10 %", "cosine min", "mean",
    "overlap@10", "p50 ms", "p90 ms", "MB",
)  # fmt: skip


@dataclass(frozen=True)
class Report:
    """A comparison; the first model is PyTorch, which the others are held against."""

    models: list[Measured]
    dataset: str
    """Layout, number of queries and of gallery entries."""
    max_map_drop_points: float
    environment: dict[str, Any]
    """Device, versions, threads, providers: what figures of speed depend on."""

    @property
    def reference(self) -> Measured:
        """The network in PyTorch."""
        return self.models[0]

    def problems(self) -> list[str]:
        """Return one line for each thing that must not be; empty when the comparison passed."""
        return [f"{model.name}: {text}" for model in self.models for text in self._wrong(model)]

    def _wrong(self, model: Measured) -> list[str]:
        drop = model.map_drop_points(self.reference)
        if drop is None or drop <= self.max_map_drop_points:
            return model.degenerate
        lost = f"mAP drops by {drop:.2f} points, allowed are {self.max_map_drop_points:g}"
        return [*model.degenerate, lost]

    def as_json(self) -> dict[str, Any]:
        """Return every figure; shares from 0 to 1, times in ms, drops in points."""
        return {
            "passed": not self.problems(),
            "problems": self.problems(),
            "models": [self._model_json(model) for model in self.models],
            "dataset": self.dataset,
            "max_map_drop_points": self.max_map_drop_points,
            "environment": self.environment,
        }

    def _model_json(self, model: Measured) -> dict[str, Any]:
        figures = dict.fromkeys(
            ("map", "r1", "r5", "r10", "minp", "cosine_min", "cosine_mean", "overlap_at_10")
        )
        if model.quality is not None:
            ranking, parity = model.quality.ranking, model.quality.parity
            numbers = (
                ranking.map, *map(ranking.rank, (1, 5, 10)), ranking.minp,
                parity.cosine_min, parity.cosine_mean, parity.overlap_at_10,
            )  # fmt: skip
            figures = dict(zip(figures, map(float, numbers), strict=True))
        return {
            "name": model.name,
            "precision": model.spec.precision,
            "target": model.target,
            **figures,
            "map_drop_points": model.map_drop_points(self.reference),
            "p50_ms": model.percentile_ms(50),
            "p90_ms": model.percentile_ms(90),
            "bytes": model.size_bytes,
        }

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table's cells, header first; differences to PyTorch in brackets."""
        return [_HEADER, *(self._row(model) for model in self.models)]

    def _row(self, model: Measured) -> tuple[str, ...]:
        return (
            model.name,
            model.spec.precision,
            model.target,
            *self._quality_cells(model),
            f"{model.percentile_ms(50):.1f}",
            f"{model.percentile_ms(90):.1f}",
            f"{model.size_bytes / 1e6:.1f}",
        )

    def _quality_cells(self, model: Measured) -> tuple[str, ...]:
        if model.quality is None:
            return ("-",) * 7
        own, parity = percentages(model), model.quality.parity
        cells = [f"{value:.1f}" for value in own]
        if model is not self.reference and self.reference.quality is not None:
            pairs = zip(own, percentages(self.reference), strict=True)
            cells = [f"{value:.1f} ({value - theirs + 0.0:+.1f})" for value, theirs in pairs]
        cosines = f"{parity.cosine_min:.6f}", f"{parity.cosine_mean:.6f}"
        return (*cells, *cosines, f"{parity.overlap_at_10:.3f}")

    def as_text(self) -> str:
        """Return the table and the verdict for a terminal."""
        rows = self.rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            f"{row[0]:<{widths[0]}}  "
            + "  ".join(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
            for row in rows
        ]
        return "\n".join([*lines, f"{self.dataset}; {self.verdict()}"])

    def verdict(self) -> str:
        """Return the outcome in one sentence."""
        problems = self.problems()
        return "FAILED: " + "; ".join(problems) if problems else (
            f"passed: no mAP drop above {self.max_map_drop_points:g} points, embeddings are sound"
        )  # fmt: skip

    def as_markdown(self, picture: str) -> str:
        """Return the report as a page that shows the file ``picture``."""
        header, *rows = (f"| {' | '.join(row)} |" for row in self.rows())
        rule = "|" + "---|" * len(_HEADER)
        versions: dict[str, str] = self.environment["versions"]
        facts = {**self.environment, "versions": ", ".join(map(" ".join, versions.items()))}
        return "\n".join(
            [
                "# Model files against PyTorch",
                "",
                f"**{self.verdict()}**",
                "",
                f"Data: {self.dataset}. Differences to PyTorch in brackets. Latency is that of one "
                "triplet, all models timed in turn in the same run.",
                "",
                *(header, rule, *rows),
                "",
                f"![quality, distance, latency and similarity]({picture})",
                "",
                *(f"- {name}: {value}" for name, value in facts.items()),
                "",
            ]
        )


def percentages(model: Measured) -> tuple[float, ...]:
    """Return mAP, R-1, R-5 and R-10 in percent."""
    assert model.quality is not None
    ranking = model.quality.ranking
    return tuple(100 * value for value in (ranking.map, *map(ranking.rank, (1, 5, 10))))
