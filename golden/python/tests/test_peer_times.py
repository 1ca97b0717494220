"""Peers' times: every layer is called with what HuggingFace's block gets, and one that cannot be imported, hangs or crashes says so by name."""

import json
import subprocess
import sys
import tempfile
import types
import unittest
from pathlib import Path

import torch

from assay_golden import peer_calls
from assay_golden.peer_times import NAMES, run_peer
from assay_golden.peer_layers import PEERS, Problem

CONFIG = types.SimpleNamespace(hidden_size=48, moe_intermediate_size=32, num_experts=8, top_k=3, norm_topk_prob=True)
PACKAGE = Path(__file__).resolve().parents[1]


def layer(hidden, gate_up, down, selected, weights):
    """The layer in float32, of experts as HuggingFace keeps them."""
    output = torch.zeros_like(hidden, dtype=torch.float)
    for slot in range(selected.shape[1]):
        first = torch.einsum("tnh,th->tn", gate_up[selected[:, slot]].float(), hidden.float())
        gate, up = first.chunk(2, dim=1)
        row = torch.einsum("thi,ti->th", down[selected[:, slot]].float(), torch.nn.functional.silu(gate) * up)
        output = output + weights[:, slot, None].float() * row
    return output.to(hidden.dtype)


class StandInGlu(torch.nn.Module):
    """ScatterMoE's module: its first half is up."""

    def __init__(self, *_, **__):
        super().__init__()
        self.experts, self.output_experts = torch.nn.Module(), torch.nn.Module()

    def forward(self, hidden, weights, selected):
        up, gate = self.experts.weight.chunk(2, dim=1)
        return layer(hidden, torch.cat([gate, up], dim=1), self.output_experts.weight, selected, weights)


def stand_in_sonic(hidden, scores, token, selected, first, _, down, __, experts, ___, ____):
    """SonicMoE's function: rows of gate and up in turn, the experts last."""
    first, down = first.permute(2, 0, 1), down.permute(2, 0, 1)
    assert first.shape[0] == experts and token.tolist() == sorted(token.tolist())
    top_k = len(token) // len(hidden)
    apart = torch.cat([first[:, 0::2], first[:, 1::2]], dim=1)
    return (layer(hidden, apart, down, selected.reshape(-1, top_k).long(), scores.reshape(-1, top_k)), None)


class StandInBlock(torch.nn.Module):
    """Unsloth's block, which has a router of its own."""

    def __init__(self, settings, gate, gate_up, down, **_):
        super().__init__()
        self.gate, self.gate_up, self.down = (torch.nn.Parameter(tensor) for tensor in (gate, gate_up, down))

    def forward(self, hidden):
        rows = hidden.reshape(-1, hidden.shape[-1])
        weights, selected = peer_calls.route(rows, self.gate, CONFIG)
        return layer(rows, self.gate_up, self.down, selected, weights).reshape(hidden.shape), None


LAYERS = {
    "huggingface": None, "unsloth": types.SimpleNamespace(Qwen3MoeFusedGroupedGEMMBlock=StandInBlock),
    "liger": types.SimpleNamespace(LigerFusedMoEFunction=types.SimpleNamespace(apply=layer)), "scattermoe": types.SimpleNamespace(GLUMLP=StandInGlu),
    "sonicmoe": types.SimpleNamespace(moe_general_routing_inputs=stand_in_sonic, ActivationType=types.SimpleNamespace(SWIGLU=0)),
}  # fmt: skip


class Calls(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        c = CONFIG
        shapes = ((1, 5, c.hidden_size), (c.num_experts, c.hidden_size), (c.num_experts, 2 * c.moe_intermediate_size, c.hidden_size),
                  (c.num_experts, c.hidden_size, c.moe_intermediate_size))  # fmt: skip
        self.tensors = [(torch.randn(shape) * 0.3).bfloat16() for shape in shapes]
        # The stream is the GPU's.
        current = torch.cuda.current_stream
        torch.cuda.current_stream = lambda: types.SimpleNamespace(cuda_stream=0)
        self.addCleanup(setattr, torch.cuda, "current_stream", current)

    def test_every_peer_has_a_call(self):
        self.assertEqual(set(NAMES), set(peer_calls.CALLS))
        self.assertLessEqual(set(NAMES) - {"huggingface"}, set(PEERS))

    def test_every_call_gives_the_layer_of_huggingface_and_its_gradients(self):
        """A wrong half, an order of experts or a router that is not HuggingFace's would be another layer, whose time says nothing."""
        found = {}
        for name, make in peer_calls.CALLS.items():
            leaves = [tensor.clone().requires_grad_(True) for tensor in self.tensors]
            problem = Problem(CONFIG, *leaves, None, None, torch.ones_like(leaves[0]))
            call, wanted = make(LAYERS[name], problem)
            for tensor in wanted:
                tensor.requires_grad_(True)
            output = call().reshape(-1, CONFIG.hidden_size)
            output.sum().backward()
            self.assertEqual([name for tensor in wanted if tensor.grad is None], [], name)
            found[name] = (output.detach().float(), leaves[0].grad.float().reshape(-1, CONFIG.hidden_size))
        for name, values in found.items():
            for one, expected in zip(values, found["huggingface"], strict=True):
                self.assertLess((one - expected).abs().max(), 0.05 * expected.abs().max(), name)


class Processes(unittest.TestCase):
    def test_what_hangs_crashes_or_cannot_run_says_so_and_keeps_what_it_measured(self):
        row = "print('{\"tokens\": 1, \"median_us\": 2.0}', flush=True); "
        kept = {"peer": "x", "tokens": 1, "median_us": 2.0}
        for code, why in {
            row + "import time; time.sleep(60)": "it took longer than 3 s",
            row + "import os; os.abort()": "it was ended by signal 6",
            row + "import sys; sys.exit('no such kernel')": "no such kernel",
            row + "import sys; sys.exit(5)": "it ended with exit code 5",
        }.items():
            with self.subTest(why=why):
                self.assertEqual(run_peer("x", "", 3, [sys.executable, "-c", code]), [kept, {"peer": "x", "why": why}])
        self.assertEqual(run_peer("x", "", 3, [sys.executable, "-c", row]), [kept])

    @unittest.skipIf(torch.cuda.is_available(), "without a GPU")
    def test_every_peer_is_named_with_the_reason_why_it_does_not_run(self):
        peers = ["huggingface", "sonicmoe"]
        with tempfile.TemporaryDirectory() as folder:
            spec, out = Path(folder, "spec.json"), Path(folder, "times.json")
            spec.write_text(json.dumps({"seconds": 60, "peers": peers}))
            subprocess.run([sys.executable, "-m", "assay_golden.peer_times", "--spec", spec, "--out", out], cwd=PACKAGE, check=True, capture_output=True)
            rows = json.loads(out.read_text())
        self.assertEqual([row["peer"] for row in rows], peers)
        self.assertEqual({row["why"] for row in rows}, {"torch finds no GPU"})


if __name__ == "__main__":
    unittest.main()
