import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch

from assay_golden import Candidate, UsageError, schema
from assay_golden.export import Options, export_fixture
from tests.problems import odd_fixture


class Writer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.temporary.cleanup)
        folder = Path(cls.temporary.name)
        ((path, _),) = export_fixture(odd_fixture(store=False), Options(str(folder), torch.device("cpu"), "eager", threads=1))
        cls.golden, cls.path = path, folder / "mine.h5"

    def candidate(self, **changes):
        return Candidate.like(self.golden, "my kernel", **changes)

    def test_five_lines_make_a_candidate_of_the_golden_problem(self):
        output = torch.randn(13, 72).bfloat16()
        candidate = self.candidate(contract="fused_fp32", accumulators={"down": "hopper_split(32, 8)", "rest": "torch"})
        candidate.add("hidden_states", output).add("selected_experts", torch.arange(39).reshape(13, 3) % 7)
        candidate.add("topk_weights", np.full((13, 3), 0x3F80, np.uint16))
        candidate.write(self.path)
        golden, mine = schema.read(self.golden), schema.read(self.path)
        self.assertEqual((mine.kind, mine.contract, mine.producer, mine.fixture), ("candidate", "fused_fp32", "my kernel", "odd"))
        self.assertEqual(mine.accumulators, {"router": "unknown", "gate_up": "unknown", "down": "hopper_split(32, 8)", "rest": "torch"})
        for key in (("inputs", "input_hidden_states"), ("inputs", "d_hidden_states"), ("weights", "gate"), ("weights", "gate_up_proj"), ("weights", "down_proj")):
            self.assertEqual(mine.tensors[key], golden.tensors[key])
        stored = mine.tensors["forward", "hidden_states"]
        self.assertEqual((stored.data.shape, stored.origin), ((1, 13, 72), "computed"))
        np.testing.assert_array_equal(stored.data.reshape(13, 72), output.view(torch.int16).numpy().view("<u2"))
        self.assertEqual({name for group, name in mine.tensors if group == "forward"}, {"hidden_states", "selected_experts", "topk_weights"})

    def test_a_large_gradient_is_held_by_a_hash_of_every_expert(self):
        gradient = torch.randn(7, 80, 72).bfloat16()
        counts = np.array([3, 0, 20, 1, 5, 5, 5])
        self.candidate().hold("d_gate_up_proj", gradient, counts, rows=4).write(self.path)
        held = schema.read(self.path).tensors["backward", "d_gate_up_proj"]
        bits = gradient.view(torch.int16).numpy().view("<u2")
        self.assertEqual(held.hashes, [schema.array_hash(part) for part in bits])
        self.assertEqual(held.first_rows, [(80, 4), (160, 4)])
        np.testing.assert_array_equal(held.rows, np.concatenate([bits[1, :4], bits[2, :4]]))
        for name, tensor in (("d_gate_up_proj", gradient[:6]), ("first_gemm", gradient)):
            with self.assertRaisesRegex(UsageError, f"{name}: expected a gradient of shape"):
                self.candidate().hold(name, tensor, counts)

    def test_wrong_tensors_are_refused_in_one_sentence(self):
        bf16 = torch.zeros(13, 72, dtype=torch.bfloat16)
        for name, tensor, message in (
            ("hidden_state", bf16, "unknown field 'hidden_state'; valid: input_hidden_states"),
            ("gate", bf16, "gate is given by the golden"),
            ("hidden_states", bf16[:12], r"hidden_states: expected shape \[13, 72\] or \[1, 13, 72\], found \[12, 72\]"),
            ("second_gemm", bf16, r"second_gemm: expected shape \[39, 72\], found \[13, 72\]"),
            ("hidden_states", bf16.float(), "expected torch.bfloat16, found torch.float32"),
            ("hidden_states", np.zeros((13, 72), np.float32), "expected bfloat16 bits as numpy uint16"),
            ("gather_indices", bf16, "gather_indices: expected integers"),
            ("gather_indices", np.full(39, 1 << 40), "values that fit int32"),
        ):
            with self.assertRaisesRegex(UsageError, message):
                self.candidate().add(name, tensor)

    def test_wrong_declarations_are_refused(self):
        for changes, message in (
            ({"contract": "exact"}, "unknown contract 'exact'; valid: hf, hf_eager"),
            ({"accumulators": {"down": "volta"}}, "unknown accumulator 'volta' of 'down'"),
            ({"accumulators": {"up": "hopper"}}, "valid products: router, gate_up, down"),
            ({"accumulators": {"rest": "numpy"}}, "unknown accumulator 'numpy' of 'rest'"),
        ):
            with self.assertRaisesRegex(UsageError, message):
                self.candidate(**changes)
        with self.assertRaisesRegex(UsageError, "has no field"):
            self.candidate().write(self.path)


if __name__ == "__main__":
    unittest.main()
