import tempfile
import unittest
from pathlib import Path

import numpy as np

try:
    import torch
except ImportError:
    torch = None

from assay_golden import Candidate, UsageError, schema
from assay_golden.fields import FIELDS
from tests.problems import odd_fixture


class OnAGolden(unittest.TestCase):
    """A golden that names its problem and holds no field: all that a candidate takes from it."""

    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.temporary.cleanup)
        cls.golden, cls.path = (Path(cls.temporary.name, name) for name in ("golden.h5", "mine.h5"))
        fixture = odd_fixture(store=False)
        given = {(FIELDS[name].group, name): schema.Regenerated(generator, []) for name, generator in fixture.generators.items()}
        schema.write(cls.golden, schema.File(fixture.config, fixture.batch, fixture.sequence, given, fixture="odd", seed=fixture.seed))

    def candidate(self, **changes):
        return Candidate.like(self.golden, "my kernel", **changes)


@unittest.skipIf(torch is None, "needs torch")
class TorchTensors(OnAGolden):
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
            ("gather_indices", bf16, "gather_indices: expected integers"),
        ):
            with self.assertRaisesRegex(UsageError, message):
                self.candidate().add(name, tensor)


class Arrays(OnAGolden):
    def test_bits_are_written_as_they_are(self):
        output = np.arange(13 * 72, dtype=np.uint16).reshape(13, 72)
        self.candidate(contract="auto").add("hidden_states", output).write(self.path)
        mine = schema.read(self.path)
        self.assertEqual((mine.kind, mine.contract, mine.fixture), ("candidate", "auto", "odd"))
        np.testing.assert_array_equal(mine.tensors["forward", "hidden_states"].data.reshape(13, 72), output)

    def test_wrong_arrays_are_refused_in_one_sentence(self):
        bits = np.zeros((13, 72), np.uint16)
        for name, array, message in (
            ("hidden_state", bits, "unknown field 'hidden_state'; valid: input_hidden_states"),
            ("gate", bits, "gate is given by the golden"),
            ("second_gemm", bits, r"second_gemm: expected shape \[39, 72\], found \[13, 72\]"),
            ("hidden_states", np.zeros((13, 72), np.float32), "expected bfloat16 bits as numpy uint16"),
            ("gather_indices", np.zeros(39), "gather_indices: expected integers"),
            ("gather_indices", np.full(39, 1 << 40), "values that fit int32"),
        ):
            with self.assertRaisesRegex(UsageError, message):
                self.candidate().add(name, array)

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


class WeightGradients(OnAGolden):
    """Float32, and added to those of before."""

    def setUp(self):
        self.gradient = np.random.default_rng(3).standard_normal((7, 72)).astype(np.float32)
        self.bits = np.full((7, 72), 0x3F80, np.uint16)

    def test_main_gradients_are_written_as_they_are(self):
        for contract in ("hf_main_grads", "hf_added_main_grads", "auto"):
            self.candidate(contract=contract).add("d_gate", self.gradient).write(self.path)
            stored = schema.read(self.path).tensors["backward", "d_gate"]
            self.assertEqual((stored.dtype, stored.data.dtype), ("float32", np.float32))
            np.testing.assert_array_equal(stored.data, self.gradient)

    def test_gradients_of_before_are_part_of_the_problem(self):
        self.candidate().add_previous("d_gate", self.bits).add("d_gate", self.bits).write(self.path)
        self.assertEqual(schema.read(self.path).tensors["previous", "d_gate"].dtype, "bfloat16")
        self.candidate(contract="hf_main_grads").add_previous("d_gate", self.gradient).add("d_gate", self.gradient).write(self.path)
        before = schema.read(self.path).tensors["previous", "d_gate"]
        np.testing.assert_array_equal(before.data, self.gradient)
        again = Candidate.like(self.path, "my kernel").add("d_gate", self.bits)
        again.write(self.path)
        self.assertEqual(schema.read(self.path).tensors["previous", "d_gate"].dtype, "float32")

    def test_the_version_rises_with_what_the_file_holds(self):
        import h5py

        for version, candidate in (
            ("1.1", self.candidate().add("d_gate", self.bits)),
            ("1.2", self.candidate().add("d_gate", self.bits).add_previous("d_gate", self.bits)),
            ("1.2", self.candidate(contract="hf_main_grads").add("d_gate", self.gradient)),
        ):
            candidate.write(self.path)
            with h5py.File(self.path) as file:
                self.assertEqual(file.attrs["schema_version"], version)

    def test_each_contract_has_its_type(self):
        for contract, name, array, message in (
            ("hf", "d_gate", self.gradient, "d_gate: expected bfloat16 bits"),
            ("hf_main_grads", "d_gate", self.bits, "d_gate: expected float32, which the contract hf_main_grads keeps, found uint16"),
            ("hf_main_grads", "d_router_logits", np.zeros((13, 7), np.float32), "d_router_logits: expected bfloat16 bits"),
        ):
            with self.assertRaisesRegex(UsageError, message):
                self.candidate(contract=contract).add(name, array)
        with self.assertRaisesRegex(UsageError, "first_gemm is no gradient of a weight; valid: d_gate"):
            self.candidate().add_previous("first_gemm", self.bits)

    @unittest.skipIf(torch is None, "needs torch")
    def test_torch_tensors_keep_their_type(self):
        tensor = torch.randn(7, 72)
        self.candidate(contract="hf_main_grads").add_previous("d_gate", tensor.bfloat16()).add("d_gate", tensor).write(self.path)
        file = schema.read(self.path)
        np.testing.assert_array_equal(file.tensors["backward", "d_gate"].data, tensor.numpy())
        self.assertEqual(file.tensors["previous", "d_gate"].dtype, "bfloat16")
        with self.assertRaisesRegex(UsageError, "expected torch.float32"):
            self.candidate(contract="hf_main_grads").add("d_gate", tensor.bfloat16())


if __name__ == "__main__":
    unittest.main()
