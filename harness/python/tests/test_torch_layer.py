"""torch tensors, autograd and HuggingFace's module, judged from Python. Skipped by name where torch or transformers is missing."""

import unittest
from unittest import mock

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    torch = None
try:
    import transformers
except ImportError:
    transformers = None
import numpy as np

import assay
from kept_files import KeptFiles


def layer(problem):
    """The layer with torch's autograd, as HuggingFace's eager experts sum: K bf16 additions in ascending order of the expert."""
    x = problem.input_hidden_states
    logits = F.linear(x, problem.gate)
    top, chosen = torch.topk(F.softmax(logits, dim=-1, dtype=torch.float), problem.config.top_k, dim=-1)
    if problem.config.norm_topk_prob:
        top = top / top.sum(dim=-1, keepdim=True)
    top = top.to(x.dtype)
    out = torch.zeros_like(x)
    for expert in range(problem.config.num_experts):
        token, slot = torch.where(chosen == expert)
        gate, up = F.linear(x[token], problem.gate_up_proj[expert]).chunk(2, dim=-1)
        rows = F.linear(F.silu(gate) * up, problem.down_proj[expert]) * top[token, slot, None]
        out = out.index_add(0, token, rows.to(out.dtype))
    return {"router_logits": logits, "selected_experts": chosen, "topk_weights": top, "hidden_states": out}


@unittest.skipIf(torch is None, "needs torch")
class Torch(KeptFiles, unittest.TestCase):
    def test_tensors_have_the_bits_of_the_arrays(self):
        numpy, tensors = assay.problem("odd"), assay.problem("odd", device="cpu")
        for name in ("input_hidden_states", "gate", "gate_up_proj", "down_proj", "d_hidden_states", "topk_weights"):
            tensor = getattr(tensors, name)
            self.assertEqual((tensor.dtype, tensor.device.type), (torch.bfloat16, "cpu"))
            np.testing.assert_array_equal(tensor.float().numpy(), getattr(numpy, name), name)
        self.assertEqual(tensors.selected_experts.dtype, torch.int32)

    def test_a_large_weight_is_filled_expert_by_expert(self):
        problem = assay.problem("qwen3_30b_a3b", device="cpu")
        with mock.patch.object(problem, "bits", side_effect=AssertionError("the whole tensor was made at once")):
            weight = problem.down_proj
        self.assertEqual(weight.shape, (128, 2048, 768))
        np.testing.assert_array_equal(weight[127].view(torch.int16).numpy().view("<u2"), problem.expert_bits("down_proj", 127))

    def test_a_layer_and_its_gradients_pass(self):
        problem = assay.problem("odd", device="cpu", requires_grad=True)
        result = assay.assert_layer(layer, problem)
        judged = {name for name, field in result.fields.items() if field.verdict == "Passed"}
        self.assertLessEqual({"router_logits", "hidden_states", "d_input_hidden_states", "d_gate", "d_gate_up_proj", "d_down_proj"}, judged)

    def test_a_gradient_that_is_wrong_is_named(self):
        problem = assay.problem("odd", device="cpu", requires_grad=True)
        fields = layer(problem)
        gradients = problem.gradients(fields["hidden_states"])
        self.assertEqual(set(gradients), {"d_input_hidden_states", "d_gate", "d_gate_up_proj", "d_down_proj"})
        result = assay.judge(problem, fields | gradients | {"d_down_proj": 2 * gradients["d_down_proj"]}, contract="hf_eager")
        self.assertEqual((result.passed, result.fields["d_down_proj"].verdict), (False, "Failed"))

    def test_what_cannot_be_differentiated_is_said(self):
        plain, leaves = assay.problem("odd", device="cpu"), assay.problem("odd", device="cpu", requires_grad=True)
        with self.assertRaisesRegex(assay.UsageError, "gradients need leaves"):
            plain.gradients(plain.input_hidden_states)
        with torch.no_grad(), self.assertRaisesRegex(assay.UsageError, "the output needs a graph"):
            leaves.gradients(layer(leaves)["hidden_states"])

    def test_wrong_devices_are_named_with_the_fix(self):
        if not torch.cuda.is_available():
            with self.assertRaisesRegex(assay.InputError, "device='cuda': torch finds no CUDA device"):
                assay.problem("odd", device="cuda")
        with self.assertRaisesRegex(assay.UsageError, "unknown device 'gpu'"):
            assay.problem("odd", device="gpu")
        problem = assay.problem("odd", device="cpu")
        with self.assertRaisesRegex(assay.UsageError, "hidden_states is a meta tensor"):
            assay.judge(problem, {"hidden_states": problem.input_hidden_states.to("meta")})

        def mixed(problem):
            raise RuntimeError("Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!")

        with self.assertRaisesRegex(assay.InputError, "the layer mixes devices: the problem's tensors are on cpu; assay.problem"):
            assay.assert_layer(mixed, problem)
        weights = {name: getattr(problem, name) for name in ("gate", "gate_up_proj", "down_proj")}
        with self.assertRaisesRegex(assay.UsageError, "the tensors lie on several devices .input_hidden_states: cpu, gate: meta"):
            assay.problem(weights | {"gate": weights["gate"].to("meta")}, input=problem.input_hidden_states, top_k=3)


@unittest.skipIf(torch is None or transformers is None, "needs torch and transformers")
class Module(unittest.TestCase):
    def block(self):
        from assay_golden.block import fill, new_block

        fixture = assay.program_runs.fixtures()["tiny"]
        block = new_block(fixture.config, "cpu")
        fill(block, fixture)
        return block

    def test_huggingfaces_module_is_a_problem_and_passes_on_it_forward_and_backward(self):
        block, tiny = self.block(), assay.problem("tiny", device="cpu")
        block.requires_grad_(True)
        x = tiny.input_hidden_states.reshape(2, 6, -1)
        problem = assay.problem(block, input=x, d_hidden_states=tiny.d_hidden_states, device="cpu", requires_grad=True)
        np.testing.assert_array_equal(problem.bits("gate_up_proj"), tiny.bits("gate_up_proj"))
        result = assay.assert_layer(block, problem)
        judged = {name for name, field in result.fields.items() if field.verdict == "Passed"}
        self.assertLessEqual({"hidden_states", "d_input_hidden_states", "d_gate", "d_gate_up_proj", "d_down_proj"}, judged)

    def test_a_module_of_other_weights_fails(self):
        block, tiny = self.block(), assay.problem("tiny", device="cpu")
        with torch.no_grad():
            next(block.experts.parameters()).mul_(1.25)
        with self.assertRaises(assay.LayerFailure):
            assay.assert_layer(block, tiny)

    def test_a_module_in_float32_is_refused(self):
        with self.assertRaisesRegex(assay.UsageError, "is torch.float32: the layer is judged in bf16"):
            assay.problem(self.block().float(), input=np.zeros((4, 64), np.float32))


if __name__ == "__main__":
    unittest.main()
