"""Open-set matching against brute force; refusals; restarts."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mambapro.cli import InputError
from mambapro.spec import ModelSpec
from runtime.config import GalleryConfig
from runtime.gallery import open_gallery

SPEC = ModelSpec("person", (64, 32), 24, 4, "space-one", "0" * 64)
KEPT = GalleryConfig(keep=True, templates=5)


def unit(seed):
    vector = np.random.default_rng(seed).normal(size=24).astype(np.float32)
    return vector / np.linalg.norm(vector)


@pytest.fixture
def gallery(tmp_path):
    opened = open_gallery(tmp_path / "g", SPEC, KEPT)
    yield opened
    opened.close()


def test_an_empty_gallery_knows_nobody(gallery):
    assert len(gallery) == 0
    assert gallery.candidates(unit(0), top=1) == []
    assert gallery.new_identity() == "P1"


@pytest.mark.parametrize("top", [1, 2])
def test_scores_are_those_of_numpy(gallery, top):
    templates = {f"P{i}": [unit(10 * i + j) for j in range(3)] for i in range(1, 6)}
    for name, vectors in templates.items():
        for vector in vectors:
            gallery.put(name, vector, {"rig": "gate", "time_s": 0.0})
    query = unit(99)
    expected = {
        name: np.mean(sorted((float(v @ query) for v in vectors), reverse=True)[:top])
        for name, vectors in templates.items()
    }
    found = gallery.candidates(query, top)
    assert {c.identity: c.score for c in found} == pytest.approx(expected, abs=1e-5)
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)
    best = found[0].identity
    assert best not in {c.identity for c in gallery.candidates(query, top, excluded={best})}


def test_payload_says_where_an_embedding_comes_from(gallery):
    gallery.put("P1", unit(1), {"rig": "gate", "time_s": 2.5, "mask": [1, 0, 1]})
    payload = gallery.candidates(unit(1), 1)[0].template.payload
    assert payload == {
        "identity": "P1", "rig": "gate", "time_s": 2.5, "mask": [1, 0, 1],
        "precision": "fp32", "embedding_space": "space-one",
    }  # fmt: skip


def test_a_template_can_be_replaced(gallery):
    point = gallery.put("P1", unit(1), {"time_s": 0.0})
    assert gallery.put("P1", unit(2), {"time_s": 1.0}, point) == point
    assert gallery.candidates(unit(2), 1)[0].score == pytest.approx(1.0, abs=1e-5)
    assert gallery.candidates(unit(1), 1)[0].score < 0.9


def test_the_oldest_template_goes_first(gallery):
    for i in range(7):
        gallery.put("P1", unit(i), {"time_s": float(i)})
    assert gallery.candidates(unit(0), 1)[0].score < 0.9
    assert gallery.candidates(unit(6), 1)[0].score == pytest.approx(1.0, abs=1e-5)


def test_a_restart_keeps_everything(tmp_path):
    first = open_gallery(tmp_path / "g", SPEC, KEPT)
    first.put("P1", unit(1), {"time_s": 0.0})
    first.put("P7", unit(7), {"time_s": 1.0})
    first.close()
    again = open_gallery(tmp_path / "g", SPEC, KEPT)
    assert len(again) == 2
    assert again.new_identity() == "P8"
    assert again.candidates(unit(7), 1)[0].identity == "P7"
    again.close()


def test_a_killed_process_loses_nothing(tmp_path):
    code = f"""
import os, sys
sys.path[0] = {str(Path(__file__).parents[1])!r}
from tests.test_runtime_gallery import *
gallery = open_gallery(Path({str(tmp_path / "g")!r}), SPEC, KEPT)
gallery.put("P3", unit(3), {{"time_s": 0.0}})
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    again = open_gallery(tmp_path / "g", SPEC, KEPT)
    assert again.candidates(unit(3), 1)[0].identity == "P3"
    again.close()


def test_without_keep_it_starts_empty(tmp_path):
    first = open_gallery(tmp_path / "g", SPEC, KEPT)
    first.put("P1", unit(1), {"time_s": 0.0})
    first.close()
    fresh = open_gallery(tmp_path / "g", SPEC, GalleryConfig(keep=False))
    assert len(fresh) == 0
    fresh.close()


def test_a_folder_that_is_no_gallery_is_never_removed(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds no gallery"):
        open_gallery(tmp_path, SPEC, GalleryConfig(keep=False))
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"embedding_space": "space-two"}, "space-one.*space-two.*gallery.folder"),
        ({"subject": "vehicle"}, "person.*vehicle.*gallery.folder"),
        ({"precision": "int8"}, "fp32 model.*int8.*mix_precisions"),
    ],
)
def test_embeddings_of_another_model_are_refused(tmp_path, change, says):
    open_gallery(tmp_path / "g", SPEC, KEPT).close()
    with pytest.raises(InputError, match=says) as error:
        open_gallery(tmp_path / "g", SPEC.replace(**change), KEPT)
    assert "\n" not in str(error.value)


def test_precisions_mix_when_that_is_asked_for(tmp_path):
    open_gallery(tmp_path / "g", SPEC, KEPT).close()
    mixed = GalleryConfig(keep=True, mix_precisions=True)
    gallery = open_gallery(tmp_path / "g", SPEC.replace(precision="int8"), mixed)
    gallery.put("P1", unit(1), {"time_s": 0.0})
    assert [record.payload["precision"] for record in gallery.templates_of("P1")] == ["int8"]
    gallery.close()
