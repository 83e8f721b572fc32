"""The page that shows all figures of a network."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any, Final

from mambapro.files import write_text

CAPTIONS: Final = {
    "relevance": "What speaks for a match, by patch, and how much of it each modality adds.",
    "ranks": "Rank lists. Wrong hits that resemble the query are honest mistakes; wrong hits that "
    "share its background or its camera are not.",
    "similarities": "Similarities of pairs of one identity and of two. The match threshold of the "
    "stream lies where they part.",
    "features": "Features of a few identities in the plane.",
}
PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 1400px; margin: 2em auto;
  padding: 0 1em; }}
figure {{ margin: 2.5em 0; }} figcaption {{ color: #52606d; }}
img {{ max-width: 100%; border: 1px solid #e4e7eb; }}
td, th {{ padding: 0 1.5em 0 0; text-align: left; }}
</style>
<h1>{title}</h1>
<p>{layout} test split: {queries} queries, gallery of {gallery} triplets.</p>
<table><tr><th>features<th>mAP<th>R-1</tr>
{rows}
</table>
{figures}
</html>
"""


def write_page(path: Path, result: dict[str, Any]) -> None:
    """Write the HTML page of what ``train/visualize.py`` found; pictures lie beside it."""
    rows = [
        f"<tr><td>{stage}<td>{found['map']:.1%}<td>{found['r1']:.1%}</tr>"
        for stage, found in result["rankings"].items()
    ]
    figures = [
        f'<figure><img src="{file}" alt="{name}"><figcaption>{CAPTIONS[name]}</figcaption></figure>'
        for name, file in result["figures"].items()
    ]
    text = PAGE.format(
        title=html.escape(f"Inside {result['checkpoint']}"),
        layout=result["layout"],
        queries=result["queries"],
        gallery=result["gallery"],
        rows="\n".join(rows),
        figures="\n".join(figures),
    )
    write_text(path, text)
