import dataclasses
import os
import types
import unittest
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F

from assay_golden import block as blocks
from assay_golden import capture, schema
from assay_golden.bits import widen
from assay_golden.block import to_tensor
from assay_golden.errors import InputError
from assay_golden.export import accumulators, grouped_backend
from tests.exporting import CPU, Folder, export, has_grouped
from tests.problems import make_fixture, odd_fixture


@unittest.skipUnless(has_grouped(), "grouped_mm needs transformers 5")
class Export(Folder):
    def test_fields_are_captured_or_derived_as_specified(self):
        """Eager walks an expert's rows slot by slot: brought into expert order, they are derived. torch.sort may do the same on a processor."""
        never_formed = {"token_counts_by_expert", "gather_indices", "hidden_states_unpermute"}
        rows = {"first_gemm", "intermediate", "second_gemm", "d_second_gemm", "d_intermediate", "d_first_gemm", "d_permuted_hidden_states"}
        for fixture in (make_fixture(), odd_fixture()):
            for file, contract in zip(export(fixture, self.folder), ("hf", "hf_eager")):
                computed = {name: tensor.origin for (group, name), tensor in file.tensors.items() if group in ("forward", "backward")}
                self.assertEqual(set(computed), {name for name, field in schema.FIELDS.items() if field.group in ("forward", "backward")})
                derived = {name for name, origin in computed.items() if origin == "derived"}
                self.assertLessEqual(never_formed, derived)
                self.assertIn(derived - never_formed, (rows,) if contract == "hf_eager" else (rows, set()))
                self.assertEqual({origin for name, origin in computed.items() if name not in derived}, {"captured"})
                self.assertEqual((file.contract, file.device, file.compute_capability), (contract, "cpu", ""))
                self.assertEqual(set(file.accumulators.values()), {"unknown"})

    def test_recomputing_every_stage_from_its_inputs_agrees(self):
        for fixture in (make_fixture(), odd_fixture(), make_fixture("empty", routing="empty_experts", sizes=(64, 32, 7, 3))):
            for file in export(fixture, self.folder):
                self.check_stages(file)

    def test_the_exact_problem_is_exact_in_the_real_module(self):
        """Every product is an integer below 2^24: HuggingFace's layer gives round(float64) bit for bit, whatever order it sums in."""
        fixture = make_fixture("exact", (72, 40, 7, 4), 1, 13, routing="equal_4", fill="units")
        for name, generator in fixture.generators.items():
            lifted = "units_lifted" if name in ("gate_up_proj", "down_proj") else "units"
            fixture.generators[name] = dataclasses.replace(generator, fill=lifted, scale=1.0)
        for file in export(fixture, self.folder):
            forward = {name: to_tensor(tensor.data) for (group, name), tensor in file.tensors.items() if group == "forward" and tensor.data.dtype != np.int32}
            given = {name: to_tensor(tensor.data).double() for (group, name), tensor in file.tensors.items() if group in ("inputs", "weights")}
            x, top_k = given["input_hidden_states"].reshape(-1, 72), 4
            self.assertTrue((forward["topk_weights"].double() * top_k == 1).all())
            self.same(forward["router_logits"], F.linear(x, given["gate"]))
            gather, counts = file.tensors["forward", "gather_indices"].data, file.tensors["forward", "token_counts_by_expert"].data
            expert_of_row = np.repeat(np.arange(7), counts)
            for row, expert in enumerate(expert_of_row):
                first = given["gate_up_proj"][expert] @ x[gather[row] // top_k]
                self.same(forward["first_gemm"][row], first)
                gate, up = first.bfloat16().double().chunk(2)
                self.assertTrue((gate > 32).all())
                self.same(forward["intermediate"][row], gate * up)
                self.same(forward["second_gemm"][row], given["down_proj"][expert] @ (gate * up).bfloat16().double())
            if file.contract == "hf":
                slots = forward["hidden_states_unpermute"].double().reshape(-1, top_k, 72)
                self.same(forward["hidden_states"].reshape(-1, 72), slots.sum(1) / top_k)

    def same(self, found, exact):
        self.assertTrue(torch.equal(found, exact.bfloat16()))

    def check_stages(self, file):
        def field(group, name):
            data = file.tensors[group, name].data
            return torch.from_numpy(data.astype(np.int64)) if data.dtype == np.int32 else to_tensor(data).double()

        config = file.config
        x = field("inputs", "input_hidden_states").reshape(-1, config.hidden_size)
        selected, weights = field("forward", "selected_experts"), field("forward", "topk_weights")
        gather, counts = field("forward", "gather_indices"), field("forward", "token_counts_by_expert")
        self.assertTrue(torch.equal(torch.bincount(selected.flatten(), minlength=config.num_experts), counts))
        self.assertTrue(torch.equal(torch.argsort(selected.flatten(), stable=True), gather))
        self.close(field("forward", "router_logits"), F.linear(x, field("weights", "gate")))
        probabilities = field("forward", "router_logits").softmax(-1).gather(-1, selected)
        self.close(weights, probabilities / probabilities.sum(-1, keepdim=True) if config.norm_topk_prob else probabilities)
        end = 0
        for expert, count in enumerate(counts.tolist()):
            rows = slice(end, end + count)
            end += count
            first = field("forward", "first_gemm")[rows]
            self.close(first, F.linear(x[gather[rows] // config.top_k], field("weights", "gate_up_proj")[expert]))
            gate, up = first.chunk(2, -1)
            self.close(field("forward", "intermediate")[rows], F.silu(gate) * up, 2)
            down = F.linear(field("forward", "intermediate")[rows], field("weights", "down_proj")[expert])
            self.close(field("forward", "second_gemm")[rows], down)
        unpermuted = field("forward", "hidden_states_unpermute")
        self.assertTrue(torch.equal(unpermuted[gather], field("forward", "second_gemm")))
        output = (unpermuted.reshape(*selected.shape, -1) * weights[..., None]).sum(1)
        self.close(field("forward", "hidden_states").reshape(output.shape), output, 2 * config.top_k)
        for (group, name), tensor in file.tensors.items():  # float64 is near, so no field is another one's
            if group == "oracle" and schema.FIELDS[name].group == "forward":
                stored = widen(file.tensors[schema.FIELDS[name].group, name].data).astype(np.float64)
                self.assertLess(np.abs(stored - tensor.data).max(initial=0), 0.05 * max(np.abs(tensor.data).max(initial=0), 1e-30), name)

    def close(self, found, exact, roundings=1):
        """Each rounding to bf16 moves a value by at most 2^-8 of the largest magnitude around."""
        bound = roundings * 2.0**-8 * exact.abs().max() if exact.numel() else 0
        self.assertLessEqual(float((found - exact).abs().max()) if exact.numel() else 0, float(bound))

    def test_eager_and_grouped_agree_in_every_row(self):
        grouped, eager = export(odd_fixture(), self.folder)
        for name in ("selected_experts", "topk_weights", "gather_indices"):
            np.testing.assert_array_equal(grouped.tensors["forward", name].data, eager.tensors["forward", name].data)
        for name in ("first_gemm", "second_gemm"):
            a, b = (widen(file.tensors["forward", name].data) for file in (grouped, eager))
            self.assertLess(np.abs(a - b).max(), 2.0**-7 * np.abs(a).max())

    def test_gradients_agree_with_float64_autograd(self):
        for file in export(odd_fixture(), self.folder):
            names = {name for group, name in file.tensors if group == "backward"}
            self.assertEqual(names, {name for name, field in schema.FIELDS.items() if field.group == "backward"})
            for name in names:
                found = widen(file.tensors["backward", name].data).astype(np.float64)
                exact = file.tensors["oracle", name].data
                self.assertLess(np.abs(found - exact).max(), 0.03 * np.abs(exact).max(), name)

    def test_generated_weights_are_named_with_a_hash_per_expert(self):
        small, large = export(make_fixture(), self.folder)[0], export(make_fixture("named", store=False), self.folder)[0]
        weight = large.tensors["weights", "gate_up_proj"]
        stored = small.tensors["weights", "gate_up_proj"].data
        self.assertEqual(weight.hashes, [schema.array_hash(matrix) for matrix in stored])
        self.assertEqual(weight.generator, make_fixture().generators["gate_up_proj"])
        np.testing.assert_array_equal(small.tensors["forward", "hidden_states"].data, large.tensors["forward", "hidden_states"].data)
        self.assertFalse([key for key in large.tensors if key[0] == "oracle"])

    def test_large_gradients_are_held_by_hashes_with_some_rows(self):
        """grouped_mm's file stores what has a row per slot or token, eager's nothing of backward; both hash what the small file stores."""
        small, large = export(make_fixture(), self.folder), export(make_fixture("named", store=False), self.folder)
        for stored, file in zip(small, large):
            held = {name for (group, name), tensor in file.tensors.items() if isinstance(tensor, schema.Held)}
            backward = {name for group, name in file.tensors if group == "backward"}
            self.assertEqual(held, backward if file.contract == "hf_eager" else {"d_gate", "d_gate_up_proj", "d_down_proj"})
            counts = stored.tensors["forward", "token_counts_by_expert"].data
            for name in backward:
                whole, tensor = stored.tensors["backward", name].data, file.tensors["backward", name]
                if name not in held:
                    np.testing.assert_array_equal(tensor.data, whole)
                    continue
                parts = whole if name in ("d_gate", "d_gate_up_proj", "d_down_proj") else [whole]
                self.assertEqual(tensor.hashes, [schema.array_hash(part) for part in parts], name)
                flat = whole.reshape(-1, whole.shape[-1])
                np.testing.assert_array_equal(tensor.rows, np.concatenate([flat[at : at + count] for at, count in tensor.first_rows]))
                if whole.ndim == 3:
                    self.assertIn(int(counts.argmax()), [first // whole.shape[1] for first, _ in tensor.first_rows])

    def test_an_expert_without_rows_is_held_with_zeros(self):
        file = export(make_fixture("empty", routing="empty_experts", sizes=(64, 32, 7, 3), store=False), self.folder)[0]
        for name in ("d_gate_up_proj", "d_down_proj"):
            tensor = file.tensors["backward", name]
            ((first, count),) = [pair for pair in tensor.first_rows if pair[0] // tensor.shape[1] == 1]
            at = sum(c for f, c in tensor.first_rows if f < first)
            self.assertFalse(tensor.rows[at : at + count].any())
            self.assertEqual(tensor.hashes[1], schema.array_hash(np.zeros(tensor.shape[1:], "<u2")))

    def test_the_experts_part_and_the_router_s_make_the_input_s_gradient(self):
        for file in export(odd_fixture(), self.folder):
            d_logits, gate, experts, whole = (
                to_tensor(file.tensors[group, name].data)
                for group, name in (("backward", "d_router_logits"), ("weights", "gate"), ("backward", "d_experts_hidden_states"), ("backward", "d_input_hidden_states"))
            )  # fmt: skip
            self.assertTrue(torch.equal(whole, experts + d_logits @ gate))

    def test_large_fields_are_held_where_a_limit_is_given(self):
        file = export(make_fixture("named", store=False), self.folder, implementation="grouped_mm", largest=2000)[0]
        held = {name for (group, name), tensor in file.tensors.items() if isinstance(tensor, schema.Held)}
        self.assertIn("second_gemm", held)  # 24 rows of 64
        self.assertNotIn("router_logits", held)  # 12 rows of 8
        self.assertNotIn("hidden_states", held)  # 12 rows of 64, 1,536 bytes: what is not larger is stored

    def test_no_tokens_one_token_and_one_expert_for_all(self):
        for fixture in (make_fixture("none", sequence=0), make_fixture("one", batch=1, sequence=1), make_fixture("hot", routing="hot_expert")):
            for file in export(fixture, self.folder):
                self.check_stages(file) if fixture.tokens else self.assertEqual(file.tensors["forward", "first_gemm"].data.shape, (0, 64))
                if fixture.name == "hot":
                    self.assertTrue((file.tensors["forward", "selected_experts"].data[:, 0] == 0).all())

    def test_two_runs_write_the_same_bytes(self):
        for name in ("a", "b"):
            (self.folder / name).mkdir()
            export(make_fixture(), self.folder / name)
        for file in ("tiny.grouped_mm.h5", "tiny.eager.h5"):
            self.assertEqual((self.folder / "a" / file).read_bytes(), (self.folder / "b" / file).read_bytes())

    def test_accumulators_are_declared_on_hopper_alone(self):
        with mock.patch("assay_golden.export.compute_capability", lambda device: "9.0"):
            found = accumulators("grouped_mm", CPU, "torch.nn.functional.grouped_mm", "cutlass")
            self.assertEqual(set(found), set(schema.PRODUCTS))
            for product, accumulator in found.items():
                self.assertEqual(accumulator, "hopper_any_split" if product.startswith("router") else "hopper", product)
            other = accumulators("grouped_mm", CPU, "torch.nn.functional.grouped_mm", "cublaslt")
            self.assertEqual((other["gate_up_dw"], other["router_dw"]), ("unknown", "hopper_any_split"))
            self.assertEqual(set(accumulators("eager", CPU, "", "").values()), {"hopper_any_split"})
            self.assertEqual(set(accumulators("grouped_mm", CPU, "fallback loop", "").values()), {"hopper_any_split"})
        with mock.patch("assay_golden.export.compute_capability", lambda device: "8.0"):
            self.assertEqual(set(accumulators("grouped_mm", CPU, "", "cutlass").values()), {"unknown"})

    def test_the_grouped_backend_is_named(self):
        matmul = types.SimpleNamespace()
        with mock.patch("torch.cuda.is_available", lambda: True), mock.patch.object(torch.backends.cuda, "matmul", matmul):
            for release, switch, backend in (("2.11.0", None, "cutlass"), ("2.14.0", False, "cutlass"), ("2.14.0", True, "cublaslt"), ("2.20.0", None, "")):
                if switch is not None:
                    matmul.prefer_cublaslt_grouped_gemm = switch
                elif hasattr(matmul, "prefer_cublaslt_grouped_gemm"):
                    del matmul.prefer_cublaslt_grouped_gemm
                with mock.patch.object(torch, "__version__", release):
                    self.assertEqual(grouped_backend("torch.nn.functional.grouped_mm"), backend)
            self.assertEqual(grouped_backend("fallback loop"), "")


class Refusals(Folder):
    def test_a_parameter_that_stays_unfilled(self):
        def all_but_one(block, name, expert, matrix):
            if (name, expert) != ("down_proj", 3):
                fill_expert(block, name, expert, matrix)

        fill_expert = blocks._fill_expert
        with mock.patch.object(blocks, "_fill_expert", all_but_one), self.assertRaisesRegex(InputError, r"down_proj.*was not filled"):
            export(make_fixture(), self.folder, implementation="eager")
        self.assertEqual(os.listdir(self.folder), [])

    def test_releases_that_return_probabilities_as_logits(self):
        probabilities = torch.randn(5, 8).softmax(-1)
        raw = torch.randn(5, 8).bfloat16()
        weights = torch.full((5, 2), 0.5)
        for logits, scores in ((probabilities, weights.bfloat16()), (probabilities.bfloat16(), weights.bfloat16()), (raw, weights)):
            with self.assertRaisesRegex(InputError, "returns probabilities as router_logits"):
                capture.refuse_probabilities(logits, scores)
        capture.refuse_probabilities(raw, weights.bfloat16())

    @unittest.skipUnless(has_grouped(), "the router is a module in transformers 5")
    def test_a_whole_run_with_such_a_router(self):
        from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeTopKRouter as Router

        original = Router.forward

        def double_softmax(self, hidden_states):
            logits, scores, indices = original(self, hidden_states)
            return logits.float().softmax(-1), scores.float(), indices

        with mock.patch.object(Router, "forward", double_softmax), self.assertRaisesRegex(InputError, "returns probabilities"):
            export(make_fixture(), self.folder, implementation="eager")

    @unittest.skipUnless(has_grouped(), "grouped_mm needs transformers 5")
    def test_sizes_that_torch_does_not_support(self):
        with self.assertRaisesRegex(InputError, "tiny: grouped_mm does not run on cpu: .*multiple of 16 bytes"):
            export(make_fixture(sizes=(60, 28, 8, 2)), self.folder)
        self.assertEqual(os.listdir(self.folder), [])

    def test_experts_out_of_range(self):
        with self.assertRaisesRegex(InputError, "selected_experts: expected 0..6, found 0..7"):
            capture.expert_order(torch.tensor([[0, 7]]), 7)


if __name__ == "__main__":
    unittest.main()
