"""The tables of a comparison: ranking, missing modalities, cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from export.measure import Measured

Rows = list[tuple[str, ...]]
"""Cells, header first."""

UNKNOWN = "-"
_MEGABYTE = 1e6


def ranking_table(models: Sequence[Measured]) -> Rows:
    """Return ranking quality and distance to the first model; differences to it in brackets."""
    header = (
        "model", "precision", "target", "mAP %", "R-1 %", "R-5 %", "R-10 %", "cosine min", "mean",
        "overlap@10",
    )  # fmt: skip
    return [header, *(_ranking_row(model, models[0]) for model in models)]


def subset_table(models: Sequence[Measured]) -> Rows:
    """Return mAP in percent with each subset of the modalities."""
    reference = models[0].subset_maps
    return [
        ("mAP % with only", *reference),
        *(
            (model.name, *(_share(model.subset_maps[name], reference[name], model is models[0])
                           for name in reference))
            for model in models
        ),
    ]  # fmt: skip


def cost_table(models: Sequence[Measured]) -> Rows:
    """Return latency, memory and size."""
    header = ("model", "scan", "p50 ms", "p90 ms", "p99 ms", "speed-up", "memory MB", "file MB")
    return [header, *(_cost_row(model, models[0]) for model in models)]


def percentages(model: Measured) -> tuple[float, ...]:
    """Return mAP, R-1, R-5 and R-10 in percent."""
    assert model.quality is not None
    ranking = model.quality.ranking
    return tuple(100 * value for value in (ranking.map, *map(ranking.rank, (1, 5, 10))))


def as_text(rows: Rows) -> str:
    """Return the table for a terminal: names to the left, the rest to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([f"{row[0]:<{widths[0]}}", *_right(row[1:], widths[1:])]).rstrip() for row in rows
    )


def as_markdown(rows: Rows) -> str:
    """Return the table for a page."""
    header, *rest = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([header, "|---|" + "---:|" * (len(rows[0]) - 1), *rest])


def _right(cells: Iterable[str], widths: Iterable[int]) -> list[str]:
    return [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)]


def _ranking_row(model: Measured, reference: Measured) -> tuple[str, ...]:
    names = model.name, model.spec.precision, model.target
    if model.quality is None:
        return (*names, *[UNKNOWN] * 7)
    parity = model.quality.parity
    own = percentages(model)
    theirs: Sequence[float | None] = [None] * len(own)
    if model is not reference and reference.quality is not None:
        theirs = percentages(reference)
    return (
        *names,
        *(_percent(value, other) for value, other in zip(own, theirs, strict=True)),
        f"{parity.cosine_min:.6f}",
        f"{parity.cosine_mean:.6f}",
        f"{parity.overlap_at_10:.3f}",
    )


def _cost_row(model: Measured, reference: Measured) -> tuple[str, ...]:
    memory = model.peak_memory_bytes
    return (
        model.name,
        model.scan or UNKNOWN,
        *(f"{model.percentile_ms(percent):.1f}" for percent in (50, 90, 99)),
        f"{reference.percentile_ms(50) / model.percentile_ms(50):.1f} x",
        UNKNOWN if memory is None else f"{memory / _MEGABYTE:.0f}",
        f"{model.size_bytes / _MEGABYTE:.1f}",
    )


def _share(value: float | None, reference: float | None, alone: bool) -> str:
    if value is None:
        return UNKNOWN
    return _percent(100 * value, None if alone or reference is None else 100 * reference)


def _percent(value: float, reference: float | None) -> str:
    if reference is None:
        return f"{value:.1f}"
    return f"{value:.1f} ({signed(value - reference)})"


def signed(points: float) -> str:
    """Return a difference with its sign, to a tenth; what rounds to zero is +0.0."""
    return f"{round(points, 1) + 0.0:+.1f}"
