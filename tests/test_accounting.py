"""train/accounting.py against arithmetic by hand, DESIGN's totals and PyTorch's own counter."""

import dataclasses
import json

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mambapro import config as configs
from mambapro.cli import run
from mambapro.config import ExperimentConfig, ModelConfig
from mambapro.contract import EXIT_BAD_INPUT, EXIT_DONE
from mambapro.files import in_checkout
from mambapro.model.network import MambaPro, parameter_groups
from train import accounting
from train.accounting import Part, account, inputs, multiply_adds, part_of, saved_bytes

FULL = configs.load(ExperimentConfig, in_checkout("configs/rgbnt201.yaml")).model


def by_hand(c: ModelConfig) -> dict[str, int]:
    """Multiply-adds of a triplet, from the sizes in the paper."""
    (rows, columns), M, W, C, S = c.grid, 3, c.width, c.output_dim, c.scan_dim
    P, N, R = rows * columns, c.state_size, c.dt_rank
    T = 1 + P + (M * c.prompts if c.srp else 0)  # tokens a stream
    units = 2 * c.aggregation_blocks
    directions = 2 if c.bidirectional else 1
    bottleneck = 2 * W * c.prompt_dim
    carried = (c.depth - 1) * M * c.prompts * bottleneck  # the residual of the fused prompts
    constant = c.depth * M * c.prompts * bottleneck  # the transfers, whatever the batch
    return {
        "CLIP: attention": c.depth * M * (T * W * 3 * W + T * W * W + 2 * T * T * W),
        "CLIP: MLP": c.depth * M * T * 2 * W * 4 * W,
        "PFA": c.depth * M * T * 2 * W * c.adapter_dim,
        "SRP": carried + constant,
        "MA: projections": units * M * P * (C * 2 * S + S * C),
        "MA: convolutions": units * M * P * 9 * S,
        "MA: scan and its parameters": units * directions * M * P * S
        * ((R + 2 * N) + R + 4 * N + 2),
        "MA: the rest": M * 2 * C * C,
        accounting.REST: M * P * 3 * c.patch_size**2 * W + M * (1 + P) * W * C,
    }  # fmt: skip


def counted(config: ModelConfig) -> dict[str, int]:
    with torch.device("meta"):
        found = multiply_adds(MambaPro(config))
    parts: dict[str, int] = {}
    for name, count in found.items():
        parts[part_of(name)] = parts.get(part_of(name), 0) + count
    return parts


@pytest.mark.parametrize("changes", [{}, {"bidirectional": True}, {"image_size": (128, 256)}])
def test_multiply_adds_of_the_full_network(changes):
    config = dataclasses.replace(FULL, **changes)
    assert counted(config) == by_hand(config)


def test_multiply_adds_of_a_small_one(tiny):
    assert counted(tiny) == by_hand(tiny)


def test_the_full_network_takes_52_billion():
    assert sum(counted(FULL).values()) == pytest.approx(52e9, rel=0.01)


def test_the_scan_is_all_that_pytorch_does_not_count(tiny):
    """On numbers, on the CPU, with attention as plain products: its fused one is not counted."""
    network = MambaPro(tiny)
    plain = sdpa_kernel(SDPBackend.MATH)
    with plain, FlopCounterMode(display=False) as counter:
        network.eval()(*inputs(tiny, 1, "cpu"))
    P, units = 8, 4
    scan = units * 3 * P * tiny.scan_dim * (4 * tiny.state_size + 2)
    assert sum(multiply_adds(network.to("meta")).values()) - scan == counter.get_total_flops() // 2


def test_parameters_of_the_full_network():
    """DESIGN: PFA 28.34 M, SRP 28.48 M, MA 17.36 M, and the rest is frozen."""
    with torch.device("meta"):
        network = MambaPro(FULL)
    parts: dict[str, int] = {}
    for name, parameter in network.named_parameters():
        parts[part_of(name)] = parts.get(part_of(name), 0) + parameter.numel()
    aggregated = sum(count for part, count in parts.items() if part.startswith("MA"))
    found = [round(count / 1e6, 2) for count in (parts["PFA"], parts["SRP"], aggregated)]
    assert found == [28.34, 28.48, 17.36]
    groups = parameter_groups(network)
    assert [parts["PFA"], parts["SRP"], aggregated] == [groups[k] for k in ("PFA", "SRP", "MA")]
    assert sum(parts.values()) == sum(groups.values())


class Chain(torch.nn.Module):
    """What its backward pass needs can be told by heart."""

    def __init__(self):
        super().__init__()
        self.config = ModelConfig(image_size=(16, 16))
        self.mlp = torch.nn.Linear(16, 32)
        self.adapter = torch.nn.Linear(32, 8)

    def forward(self, pixels, camera):
        return self.adapter(torch.relu(self.mlp(pixels))).sum()


def test_what_the_backward_pass_needs():
    """Linear keeps its input, relu its result, which is the next one's input: kept once."""
    rows = 3 * accounting.TRIPLETS * 3 * 16
    found = saved_bytes(Chain())
    assert found == {"Chain.mlp": 4 * rows * 16, "Chain": 4 * rows * 32}


def test_state_is_four_copies_of_what_learns():
    assert Part(parameters=10, trained=4).state_bytes == 4 * (6 + 4 * 4)


def test_the_command(tiny, tmp_path, capsys):
    config = tmp_path / "tiny.yaml"
    values = configs.to_dict(ExperimentConfig(model=tiny))
    config.write_text(json.dumps(values))
    assert run(accounting.main, ["--config", str(config), "--json"]) == EXIT_DONE
    *lines, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    network = MambaPro(tiny)
    assert result["all"]["parameters"] == sum(p.numel() for p in network.parameters())
    assert result["all"]["multiply_adds"] == sum(by_hand(tiny).values())
    assert all(part["activations_bytes"] > 0 for part in result.values())
    assert len(lines) == 1 + len(result)
    assert lines[-1].startswith("all")
    assert account(dataclasses.replace(tiny, srp=False)).keys() == result.keys() - {"SRP", "all"}


def test_bad_input(capsys):
    assert run(accounting.main, ["--set", "model.widht=3"]) == EXIT_BAD_INPUT
    assert "model.width" in capsys.readouterr().err
