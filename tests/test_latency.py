"""The latency benchmark on a small network: its baseline computes the same; its figures."""

import json

import pytest
import torch

from benchmarks import latency
from benchmarks.products import Node
from benchmarks.separate_passes import SeparatePasses
from export.fused_products import PRODUCT
from export.token_functions import ATTENTION, PRODUCT_SILU, SILU
from mambapro import config as configs
from mambapro.config import ExperimentConfig
from mambapro.model.network import MambaPro
from tests.conftest import TINY

CONFIG = ExperimentConfig(model=TINY)


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(configs.to_yaml(CONFIG))
    return path


def test_the_papers_formulation_computes_our_embeddings():
    torch.manual_seed(0)
    network = latency.random_network(CONFIG)
    subject = latency.Subject(CONFIG, network, {})
    assert latency.check_same(subject) < 1e-5
    spoilt = MambaPro(TINY).eval()
    tensors = [torch.from_numpy(x) for x in subject.inputs(2)]
    with torch.inference_mode():
        other = (SeparatePasses(spoilt).embed(*tensors) - network.embed(*tensors)).abs().max()
    assert other > latency.SAME


def test_every_figure_is_printed(config_file, tmp_path, capsys):
    if latency.native.find_library("torch") is None:
        pytest.skip("no native library")
    arguments = ["--config", str(config_file), "--folder", str(tmp_path / "files"),
                 "--batches", "1", "2", "--threads", "1", "--rounds", "1", "--json"]  # fmt: skip
    assert latency.main(arguments) == 0
    *table, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert {"fp32_over_limit", "int8_over_limit", "int8_speedup", "speedup_over_paper"} <= set(
        result
    )
    assert all(value > 0 for value in result.values())
    assert sum(line.startswith("| 1 | ") for line in table) == 2
    parts = [line for line in table if line.startswith(("| FP32 |", "| INT8 |"))]
    assert any("matrix products" in line for line in parts)
    assert any(line.startswith("| INT8 | attention in one node") for line in parts)


def test_attention_in_one_node_counts_as_its_two_products():
    inputs = ((141, 3, 12, 64),) * 3
    node = Node(ATTENTION, 1.0, inputs, inputs[0])
    scores, mixed = node.products
    assert scores.operands == ((3, 12, 141, 64), (3, 12, 64, 141))
    assert mixed.operands == ((3, 12, 141, 141), (3, 12, 141, 64))
    assert scores.output == (3, 12, 141, 141)
    assert sum(product.multiplications for product in node.products) == 2 * 36 * 141 * 141 * 64
    assert not Node(SILU, 1.0, ((3, 4),), (3, 4)).products


def test_a_product_with_silu_counts_as_the_runtimes_own_product():
    inputs = ((423, 768), (768, 3072), (), (), (3072,), (3072,), (), ())
    (product,) = Node(PRODUCT_SILU, 1.0, inputs, (423, 3072)).products
    assert product.kind == PRODUCT
    assert product.operands == ((423, 768), (768, 3072))
