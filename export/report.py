"""What a comparison found: verdict, JSON, text and page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from export import tables
from export.measure import Measured


@dataclass(frozen=True)
class Report:
    """A comparison; the first model is PyTorch, which the others are held against."""

    models: list[Measured]
    dataset: str
    """Layout, number of queries and of gallery entries."""
    max_map_drop_points: float
    environment: dict[str, Any]
    """Device, versions, threads, providers: what figures of speed depend on."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Files that were found but do not run here, and why."""

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

    def verdict(self) -> str:
        """Return the outcome in one sentence."""
        problems = self.problems()
        return "FAILED: " + "; ".join(problems) if problems else (
            f"passed: no mAP drop above {self.max_map_drop_points:g} points, embeddings are sound"
        )  # fmt: skip

    def worst_subset(self) -> str:
        """Say where a model loses most against PyTorch while modalities are missing."""
        drops = list(self._subset_drops())
        if not drops:
            return ""
        drop, model, subset = max(drops)
        return f"Largest drop with modalities missing: {drop:.1f} points, {model}, {subset}"

    def _subset_drops(self) -> Iterator[tuple[float, str, str]]:
        _, *missing = self.reference.subset_maps
        for model in self.models[1:]:
            for subset in missing:
                own, theirs = model.subset_maps[subset], self.reference.subset_maps[subset]
                if own is not None and theirs is not None:
                    yield max(0.0, 100 * (theirs - own)), model.name, subset

    def as_json(self) -> dict[str, Any]:
        """Return every figure; shares from 0 to 1, times in ms, drops in points."""
        return {
            "passed": not self.problems(),
            "problems": self.problems(),
            "models": [self._model_json(model) for model in self.models],
            "left_out": dict(self.left_out),
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
            "scan": model.scan,
            **figures,
            "map_drop_points": model.map_drop_points(self.reference),
            "subsets": model.subset_maps,
            **{f"p{percent}_ms": model.percentile_ms(percent) for percent in (50, 90, 99)},
            "peak_memory_bytes": model.peak_memory_bytes,
            "bytes": model.size_bytes,
        }

    def _tables(self) -> dict[str, tables.Rows]:
        found = {"Ranking": tables.ranking_table(self.models)}
        if len(self.reference.subset_maps) > 1:
            found["Missing modalities"] = tables.subset_table(self.models)
        return {**found, "Cost": tables.cost_table(self.models)}

    def _sections(self) -> Iterator[str]:
        for title, rows in self._tables().items():
            yield from (f"## {title}", "", tables.as_markdown(rows), "")

    def as_text(self) -> str:
        """Return tables and verdict for a terminal."""
        blocks = [tables.as_text(rows) for rows in self._tables().values()]
        notes = [f"left out: {name}: {reason}" for name, reason in self.left_out.items()]
        last = [self.worst_subset(), *notes, f"{self.dataset}; {self.verdict()}"]
        return "\n\n".join([*blocks, "\n".join(filter(None, last))])

    def as_markdown(self, picture: str) -> str:
        """Return the report as a page that shows the file ``picture``."""
        versions: dict[str, str] = self.environment["versions"]
        facts = {
            **{f"left out: {name}": reason for name, reason in self.left_out.items()},
            **self.environment,
            "versions": ", ".join(map(" ".join, versions.items())),
        }
        calls = len(self.reference.latency_ms)
        return "\n".join(
            [
                "# Model files against PyTorch",
                "",
                f"**{self.verdict()}**",
                "",
                f"Data: {self.dataset}. Differences to PyTorch in brackets.",
                self.worst_subset(),
                "",
                *self._sections(),
                f"Latency is that of one triplet, {calls} calls of each model, all in turn in the "
                "same run. Memory is what an engine adds to the peak of a process of its own while "
                "it opens and embeds one triplet, beyond Python and the runtime's libraries.",
                "",
                f"![accuracy against latency, quality, distance, similarity]({picture})",
                "",
                *(f"- {name}: {value}" for name, value in facts.items()),
                "",
            ]
        )
