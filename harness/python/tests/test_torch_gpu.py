"""A torch layer on a GPU through the Python package, at full width: the problem, both passes, a planted fault, invariance. Skipped by name without one.

Each line that is printed names a step and its seconds. ASSAY_TEST_DEVICE and ASSAY_TEST_PROBLEM take another device (cpu) and a smaller problem (odd).
"""

import os
import tempfile
import time
import unittest

try:
    import torch
except ImportError:
    torch = None

import assay
from assay import judging
from test_torch_layer import layer

DEVICE = os.environ.get("ASSAY_TEST_DEVICE", "cuda")
PROBLEM = os.environ.get("ASSAY_TEST_PROBLEM", "qwen3_30b_a3b")


def is_there(device):
    return torch is not None and (device == "cpu" or torch.cuda.is_available())


@unittest.skipUnless(is_there(DEVICE), f"needs torch and the device {DEVICE}")
class OnDevice(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.addClassCleanup(setattr, judging, "keep_in", judging.keep_in)
        judging.keep_in = cls.folder.name

    def step(self, name, work):
        begin = time.monotonic()
        result = work()
        if DEVICE != "cpu":
            torch.cuda.synchronize()
        said = getattr(result, "headline", "")
        print(f"{name}: {time.monotonic() - begin:.1f} s{'; ' if said else ''}{said}", flush=True)
        return result

    def test_both_passes_of_a_layer_on_a_whole_problem(self):
        def made():
            problem = assay.problem(PROBLEM, device=DEVICE, requires_grad=True)
            for name in ("input_hidden_states", "gate", "gate_up_proj", "down_proj", "d_hidden_states"):
                self.assertEqual((getattr(problem, name).device.type, getattr(problem, name).dtype), (DEVICE, torch.bfloat16))
            return problem

        problem = self.step(f"problem {PROBLEM} on {DEVICE}", made)
        fields = self.step("forward", lambda: layer(problem))
        self.assertEqual(fields["hidden_states"].device.type, DEVICE)
        forward = self.step("forward judged", lambda: assay.judge(problem, fields))
        self.assertTrue(forward.passed, forward.text)
        self.assertEqual(set(fields), {name for name, field in forward.fields.items() if field.verdict == "Passed"})
        gradients = self.step("backward", lambda: problem.gradients(fields["hidden_states"]))
        result = self.step("both passes judged", lambda: assay.judge(problem, fields | gradients, contract=forward.contract))
        self.assertIn(result.record["cases"][0]["verdict"], ("Passed", "Mistrusted"), result.text)
        # From the outputs and the gradients alone the intervals of these two hold zero at full width: right, and said to prove little.
        little = {"d_gate", "d_input_hidden_states"}
        accepted = {name for name, field in result.fields.items() if field.verdict == "Passed" or (name in little and field.verdict == "Mistrusted")}
        self.assertLessEqual(set(fields) | set(gradients), accepted, result.text)
        self.assertEqual(result.record["cases"][0]["device"] or "cpu", torch.cuda.get_device_name(0) if DEVICE != "cpu" else "cpu")
        expert = int(fields["selected_experts"][0, 0])
        gradients["d_down_proj"][expert] *= 2
        wrong = self.step("a fault planted", lambda: assay.judge(problem, fields | gradients, contract=forward.contract))
        self.assertEqual((wrong.passed, wrong.fields["d_down_proj"].verdict), (False, "Failed"), wrong.text)

    def test_assert_layer_names_the_fault(self):
        problem = assay.problem(PROBLEM, device=DEVICE)
        self.step("assert_layer", lambda: assay.assert_layer(layer, problem))

        def scaled(problem):
            fields = layer(problem)
            return fields | {"hidden_states": fields["hidden_states"] * 1.25}

        with self.assertRaises(assay.LayerFailure) as raised:
            self.step("assert_layer of a wrong one", lambda: assay.assert_layer(scaled, problem))
        self.assertIn("results are 1.25 times what they should be", raised.exception.result.headline)
        print(raised.exception.result.headline)

    def test_invariance_of_a_function(self):
        problem = assay.problem(PROBLEM, device=DEVICE)
        found = self.step("invariance", lambda: assay.invariance(layer, problem, batches=(1, 2, 64, 257), promise="run"))
        print(found.text)
        self.assertTrue(found.passed, found.text)
        self.assertEqual([change.name for change in found.changes if change.promise == "run"], ["run to run"] + (["another stream"] if DEVICE != "cpu" else []))
        self.assertGreater(found.changes[0].runs, 18)


if __name__ == "__main__":
    unittest.main()
