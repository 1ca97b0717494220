"""Problems as tensors: equal bits from every source, large ones by expert, and a sentence for what is wrong."""

import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np

import assay
from assay import program_runs
from assay_golden import schema
from assay_golden.bits import round_to_bf16, widen
from assay_golden.schema import array_hash


class Fixtures(unittest.TestCase):
    def test_the_program_makes_the_same_bits(self):
        printed = subprocess.run([program_runs.find_program(), "list", "hashes", "--fixture", "odd", "ties", "rows"], capture_output=True, text=True, check=True).stdout
        told = {tuple(line.split()[:2]): line.split()[2] for line in printed.splitlines()}
        self.assertGreater(len(told), 40)
        for name in ("odd", "ties", "rows"):
            problem = assay.problem(name)
            for field in ("input_hidden_states", "d_hidden_states", "gate"):
                self.assertEqual(array_hash(problem.bits(field)), told[name, field])
            for field in ("gate_up_proj", "down_proj"):
                whole = problem.bits(field)
                for expert, matrix in problem.experts(field):
                    self.assertEqual(array_hash(round_to_bf16(matrix)), told[name, f"{field}[{expert}]"])
                    np.testing.assert_array_equal(round_to_bf16(matrix), whole[expert])

    def test_one_expert_of_a_real_model_is_made_alone(self):
        problem = assay.problem("qwen3_30b_a3b")
        with mock.patch.object(problem, "bits", side_effect=AssertionError("the whole tensor was made")):
            expert, matrix = next(problem.experts("gate_up_proj"))
        self.assertEqual((expert, matrix.shape, matrix.dtype), (0, (1536, 2048), np.float32))

    def test_arrays_have_the_shapes_and_types_of_the_table(self):
        problem = assay.problem("odd")
        for field, shape in (("input_hidden_states", (13, 72)), ("gate", (7, 72)), ("gate_up_proj", (7, 80, 72)), ("down_proj", (7, 72, 40)), ("topk_weights", (13, 3))):
            self.assertEqual((getattr(problem, field).shape, getattr(problem, field).dtype), (shape, np.float32), field)
        self.assertEqual((problem.selected_experts.shape, problem.selected_experts.dtype), ((13, 3), np.int32))
        self.assertIs(problem.gate, problem.gate)

    def test_groups_name_their_fixtures(self):
        small, large = assay.problem_names("small"), assay.problem_names("large")
        self.assertIn("odd", small)
        self.assertLess({"qwen3_30b_a3b", "long"}, set(large))
        self.assertFalse(set(small) & set(large))
        printed = subprocess.run([program_runs.find_program(), "list", "hashes", "--fixture", "small"], capture_output=True, text=True, check=True).stdout
        self.assertEqual(set(small), {line.split()[0] for line in printed.splitlines()})  # the program's group of that name
        self.assertEqual(assay.problem_names("qwen3_*_t4096"), ["qwen3_30b_a3b_t4096"])
        self.assertIn("odd.grouped_mm", assay.problem_names("goldens"))

    def test_unknown_names_get_the_nearest(self):
        with self.assertRaisesRegex(assay.UsageError, "unknown problem 'od'; did you mean odd"):
            assay.problem("od")
        with self.assertRaisesRegex(assay.UsageError, "no fixture matches 'qwen4_30b_a3b'; did you mean qwen3_30b_a3b"):
            assay.problem_names("qwen4_30b_a3b")
        with self.assertRaisesRegex(AttributeError, "has no 'weights'; it has input_hidden_states"):
            assay.problem("odd").weights
        with self.assertRaisesRegex(assay.UsageError, "top_k= does not belong to this kind of problem"):
            assay.problem("odd", top_k=2)
        with self.assertRaisesRegex(assay.InputError, "there is no file nowhere.h5"):
            assay.problem("nowhere.h5")
        with self.assertRaisesRegex(assay.UsageError, "a problem is made of .* found int"):
            assay.problem(3)


class Goldens(unittest.TestCase):
    def test_a_golden_by_name_and_by_file_has_its_own_routing(self):
        by_name = assay.problem("odd.grouped_mm")
        path = program_runs.golden_folder() / "odd.grouped_mm.h5"
        stored = schema.read(path)
        for problem in (by_name, assay.problem(path)):
            np.testing.assert_array_equal(problem.selected_experts, stored.tensors["forward", "selected_experts"].data)
            np.testing.assert_array_equal(problem.bits("gate_up_proj"), assay.problem("odd").bits("gate_up_proj"))
        self.assertIsNone(by_name._predicted)  # nothing was computed for it

    def test_predictions_are_the_goldens_bits(self):
        """A fixture without a golden is routed as the program predicts; here both are known."""
        fixture, golden = assay.problem("odd"), schema.read(program_runs.golden_folder() / "odd.grouped_mm.h5")
        for name, value in fixture.predicted.items():
            group = assay.layer_problem.FIELDS[name].group
            expected = golden.tensors[group, name].data.reshape(value.shape)
            np.testing.assert_array_equal(value, widen(expected) if expected.dtype == np.uint16 else expected, name)


class OwnTensors(unittest.TestCase):
    def setUp(self):
        self.fixture = assay.problem("odd")
        self.weights = {name: getattr(self.fixture, name) for name in ("gate", "gate_up_proj", "down_proj")}

    def problem(self, **changes):
        return assay.problem(changes.pop("weights", self.weights), **{"input": self.fixture.input_hidden_states, "top_k": 3, "name": "own"} | changes)

    def test_they_are_predicted_like_the_fixture_they_are_of(self):
        own = self.problem(d_hidden_states=self.fixture.d_hidden_states)
        self.assertEqual((own.tokens, own.config), (13, self.fixture.config))
        for name, value in self.fixture.predicted.items():
            np.testing.assert_array_equal(own.predicted[name], value, name)

    def test_wrong_ones_are_refused_in_one_sentence(self):
        nan = self.weights["gate"].copy()
        nan[2, :3] = np.nan
        for changes, message in (
            ({"weights": self.weights | {"gate": nan}}, "gate: 3 of 504 values are NaN"),
            ({"weights": self.weights | {"gate": nan * 0 + 0.1}}, "gate: the layer's inputs and weights are bf16, and these are not"),
            ({"weights": self.weights | {"down_proj": self.weights["down_proj"].swapaxes(1, 2)}}, "gate_up_proj: expected shape"),
            ({"weights": {"gate": nan}}, "missing \\['gate_up_proj', 'down_proj'\\]"),
            ({"input": None}, "needs input=hidden_states"),
            ({"top_k": 8}, "top_k <= num_experts"),
            ({"input": np.zeros(3, np.float32)}, r"expected \[T, H\] or \[B, L, H\], found \[3\]"),
            ({"input": self.fixture.input_hidden_states[:, :64]}, r"gate: expected shape \[7, 64\] \(E: experts, H: hidden_size\), found \[7, 72\]"),
            ({"requires_grad": True}, "requires_grad=True needs torch tensors"),
        ):
            with self.assertRaisesRegex(assay.AssayError, message):
                self.problem(**changes)


class Checkpoints(unittest.TestCase):
    def folder(self, fused):
        """A checkpoint of the fixture odd's weights as layer 1: per-expert names (v4), or fused ones (v5)."""
        fixture, tensors = assay.problem("odd"), {}
        tensors["model.layers.1.mlp.gate.weight"] = fixture.bits("gate")
        for name in ("gate_up_proj", "down_proj"):
            whole = fixture.bits(name)
            if fused:
                tensors[f"model.layers.1.mlp.experts.{name}"] = whole
                continue
            for expert in range(7):
                halves = {"gate": whole[expert][:40], "up": whole[expert][40:]} if name == "gate_up_proj" else {"down": whole[expert]}
                tensors |= {f"model.layers.1.mlp.experts.{expert}.{half}_proj.weight": part for half, part in halves.items()}
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        header, data = {}, b""
        for name, bits in tensors.items():
            raw = np.ascontiguousarray(bits).tobytes()
            header[name] = {"dtype": "BF16", "shape": list(bits.shape), "data_offsets": [len(data), len(data) + len(raw)]}
            data += raw
        text = json.dumps(header).encode()
        Path(temporary.name, "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
        config = {"hidden_size": 72, "moe_intermediate_size": 40, "num_experts": 7, "num_experts_per_tok": 3, "norm_topk_prob": True, "num_hidden_layers": 2, "hidden_act": "silu"}
        Path(temporary.name, "config.json").write_text(json.dumps(config))
        return temporary.name

    def test_both_layouts_give_the_fixtures_bits_and_the_program_predicts_them_alike(self):
        fixture = assay.problem("odd")
        for fused in (False, True):
            problem = assay.problem(self.folder(fused), layer=1, input=fixture.input_hidden_states)
            for name in ("gate", "gate_up_proj", "down_proj"):
                np.testing.assert_array_equal(problem.bits(name), fixture.bits(name), name)
            np.testing.assert_array_equal(problem.predicted["hidden_states"], fixture.predicted["hidden_states"])
            self.assertTrue(assay.judge(problem, {"hidden_states": fixture.predicted["hidden_states"]}).passed)

    def test_what_is_missing_is_named(self):
        folder = self.folder(True)
        with self.assertRaisesRegex(assay.UsageError, "needs layer=N and input="):
            assay.problem(folder, layer=1)
        with self.assertRaisesRegex(assay.InputError, "layer 0 has no router"):
            assay.problem(folder, layer=0, input=assay.problem("odd").input_hidden_states)
        with tempfile.TemporaryDirectory() as empty, self.assertRaisesRegex(assay.InputError, "config.json"):
            assay.problem(empty, layer=0, input=assay.problem("odd").input_hidden_states)


class Program(unittest.TestCase):
    def test_where_it_is_not_the_fix_is_named(self):
        with mock.patch.dict(os.environ, {"ASSAY": "/nowhere/assay"}), self.assertRaisesRegex(assay.InputError, "ASSAY names /nowhere/assay, which is no program; unset it"):
            program_runs.find_program()
        with (
            mock.patch.dict(os.environ, {"PATH": ""}), mock.patch.object(program_runs, "PACKAGE", Path("/nowhere")),
            mock.patch.object(program_runs, "SOURCE_TREE", Path("/nowhere")),
        ):  # fmt: skip
            os.environ.pop("ASSAY", None)
            with self.assertRaisesRegex(assay.InputError, "the program assay was not found: .* pip install the wheel, or build"):
                program_runs.find_program()

    def test_a_device_without_torch_is_refused(self):
        with mock.patch.dict(sys.modules, {"torch": None}), self.assertRaisesRegex(assay.InputError, "device='cuda' needs torch, .* leave device out"):
            assay.problem("odd", device="cuda")


if __name__ == "__main__":
    unittest.main()
