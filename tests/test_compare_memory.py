"""Memory of an engine, measured in a process of its own."""

import logging

import numpy as np
import onnx
import pytest

from export.memory import added_memory
from export.opening import Opening
from tests.export_samples import exported

BALLAST = 64 * 2**20


def with_ballast(path):
    """The exported model, and a constant that nothing reads."""
    model = onnx.load(exported()[0].path)
    values = np.zeros(BALLAST // 4, np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(values, "ballast"))
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("checkpoint", [False, True])
def test_the_libraries_are_not_counted(checkpoint):
    path = exported()[0].path
    opening = Opening(path.with_name("best.pt") if checkpoint else path, checkpoint, threads=1)
    # Python with torch has about 300 MB, with ONNX Runtime about 80 MB; this network has 0.2 MB.
    assert path.stat().st_size < added_memory(opening) < (200e6 if checkpoint else 60e6)


def test_a_larger_file_adds_its_size(tmp_path):
    small = added_memory(Opening(exported()[0].path, threads=1))
    large = added_memory(Opening(with_ballast(tmp_path / "large.onnx"), threads=1))
    assert large - small > 0.9 * BALLAST


def test_what_cannot_be_measured_is_unknown_and_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="compare"):
        assert added_memory(Opening(tmp_path / "absent.onnx")) is None
    (line,) = caplog.messages
    assert "memory of absent.onnx is not measured" in line
    assert "there is no model file" in line
