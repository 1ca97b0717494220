"""Fields judged from Python: an honest layer passes, a wrong one is named, and what is given wrongly is refused in a sentence."""

import os
import tempfile
import unittest
from pathlib import Path

import numpy as np

import assay
from assay import judging, program_runs
from assay_golden import schema
from numpy_layer import forward


class Judging(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.addClassCleanup(setattr, judging, "keep_in", judging.keep_in)
        judging.keep_in = temporary.name
        cls.problem = assay.problem("odd")
        cls.fields = forward(cls.problem)

    def judge(self, **changes):
        return assay.judge(self.problem, self.fields | changes)

    def test_an_honest_layer_passes_on_every_kind_of_problem(self):
        for name in ("odd", "tiny", "ties", "empty_experts", "one_token", "no_renormalisation"):
            result = assay.assert_layer(forward, assay.problem(name))
            self.assertEqual((result.passed, result.verdict, result.exit_code), (True, "Passed", 0), name)
            self.assertEqual(sum(field.verdict == "Passed" for field in result.fields.values()), 10)

    def test_on_a_golden_and_on_own_tensors_it_is_the_same(self):
        weights = {name: getattr(self.problem, name) for name in ("gate", "gate_up_proj", "down_proj")}
        own = assay.problem(weights, input=self.problem.input_hidden_states, top_k=3)
        for problem in ("odd.grouped_mm", own):
            self.assertTrue(assay.assert_layer(forward, problem).passed)

    def test_the_first_wrong_stage_is_named_with_assays_own_text(self):
        wrong = self.fields["second_gemm"].copy()
        wrong[5] *= 2
        with self.assertRaises(assay.LayerFailure) as raised:
            assay.assert_layer(lambda problem: self.fields | {"second_gemm": wrong}, self.problem, contract="hf")
        result = raised.exception.result
        self.assertIn("second_gemm is the first stage with an error of its own", result.headline)
        self.assertIn(result.headline[:60], " ".join(str(raised.exception).split()))
        self.assertEqual((result.fields["second_gemm"].verdict, result.fields["first_gemm"].verdict, result.exit_code), ("Failed", "Passed", 1))
        self.assertGreater(result.fields["second_gemm"].isolated, 1)
        self.assertEqual(result.fields["second_gemm"].rejected, 72)
        self.assertTrue(os.path.isfile(result.dump))  # the replay line works
        self.assertIn(f"dump:{result.dump}", result.text)

    def test_an_output_alone_is_enough(self):
        self.assertTrue(assay.judge(self.problem, {"hidden_states": self.fields["hidden_states"]}).passed)
        self.assertFalse(assay.judge(self.problem, {"hidden_states": self.fields["hidden_states"] + 1.0}).passed)

    def test_the_contract_that_the_data_follow_is_found(self):
        eager = assay.problem("odd.eager")
        stored = {name: tensor.data for (group, name), tensor in eager.file.tensors.items() if group == "forward"}
        self.assertEqual(assay.judge(eager, stored).contract, "hf_eager")

    def test_weight_gradients_may_be_float32_and_added_to_those_of_before(self):
        names = ("d_gate", "d_gate_up_proj", "d_down_proj")
        problem = assay.problem("accumulated")
        self.assertEqual(set(problem.previous), set(names))
        for contract in ("hf", "hf_in_place_grads", "hf_main_grads", "hf_added_main_grads"):
            path = Path(judging.keep_in, "predicted.h5")
            program_runs.run(["verify", "--fixture", "accumulated", "--pipeline", "predicted", "--backward", "--contract", contract, "--dump", path, "-q"])
            stored = {name: tensor.data for (group, name), tensor in schema.read(path).tensors.items() if group in ("forward", "backward")}
            wide = contract.endswith("main_grads")
            self.assertEqual({stored[name].dtype for name in names}, {np.dtype(np.float32 if wide else np.uint16)})
            self.assertTrue(assay.judge(problem, stored, contract).passed, contract)
            alone = assay.judge(problem, stored | {"d_gate": stored["d_gate"] * 0}, contract)
            self.assertEqual((alone.passed, alone.fields["d_gate"].verdict, alone.fields["d_down_proj"].verdict), (False, "Failed", "Passed"))
        with self.assertRaisesRegex(assay.UsageError, "d_gate: expected float32, which the contract keeps, found uint16"):
            assay.judge(problem, {"d_gate": np.zeros((7, 72), np.uint16)}, "hf_main_grads")

    def test_gradients_of_before_are_given_with_ones_own_tensors(self):
        weights = {name: getattr(self.problem, name) for name in ("gate", "gate_up_proj", "down_proj")}
        before = np.full((7, 72), 1 + 2.0**-20, np.float32)
        own = assay.problem(weights, input=self.problem.input_hidden_states, d_hidden_states=self.problem.d_hidden_states, top_k=3, previous={"d_gate": before})
        np.testing.assert_array_equal(own.previous["d_gate"], before)
        self.assertEqual(own.given().tensors["previous", "d_gate"].dtype, "float32")
        with self.assertRaisesRegex(assay.UsageError, "'gate' is no gradient of a weight; valid: d_gate, d_gate_up_proj, d_down_proj"):
            assay.problem(weights, input=self.problem.input_hidden_states, top_k=3, previous={"gate": before})
        with self.assertRaisesRegex(assay.UsageError, "previous= does not belong to this kind of problem"):
            assay.problem("odd", previous={"d_gate": before})

    def test_nan_is_a_verdict(self):
        output = self.fields["hidden_states"].copy()
        output[3, 4] = np.nan
        result = self.judge(hidden_states=output)
        self.assertEqual((result.passed, result.fields["hidden_states"].verdict), (False, "NonFinite"))

    def test_more_precise_fields_are_rounded_once_with_a_remark(self):
        bits = self.fields["hidden_states"]
        self.assertEqual(self.judge(hidden_states=bits.astype(np.float32)).remarks, self.judge(hidden_states=bits).remarks)
        nearly = self.judge(hidden_states=bits * (1 + 2.0**-20))
        self.assertTrue(nearly.passed)
        self.assertIn("hidden_states was given as float64 and 936 of 936 elements are no bf16: rounded once", nearly.remarks[0])
        self.assertIn(nearly.remarks[0], nearly.text)

    def test_leading_tokens_may_be_batch_and_sequence(self):
        tiny = assay.problem("tiny")
        fields = forward(tiny)
        batched = {name: fields[name].reshape(2, 6, -1) for name in ("router_logits", "topk_weights", "hidden_states", "selected_experts")}
        self.assertTrue(assay.judge(tiny, fields | batched).passed)

    def test_predicted_gradients_pass_and_a_doubled_one_is_named(self):
        predicted = self.problem.predicted
        self.assertEqual(sum(name.startswith("d_") for name in predicted), 11)
        self.assertTrue(assay.judge(self.problem, predicted, contract="hf").passed)
        wrong = assay.judge(self.problem, predicted | {"d_down_proj": predicted["d_down_proj"] * 2}, contract="hf")
        self.assertEqual((wrong.passed, wrong.fields["d_down_proj"].verdict), (False, "Failed"))
        self.assertIn("d_down_proj is the first stage with an error of its own: results are 2 times", wrong.headline)

    def test_reports_and_dumps_are_written_where_they_are_asked_for(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            result = assay.judge(self.problem, self.fields, dump=folder / "mine.h5")
            result.html(folder / "page.html")
            result.json(folder / "report.json")
            self.assertEqual(result.dump, str(folder / "mine.h5"))
            self.assertTrue((folder / "mine.h5").is_file())
            self.assertIn("<!doctype html>", (folder / "page.html").read_text()[:200].lower())
            self.assertEqual(assay.program_runs.read_report(folder / "report.json")["verdict"], "Passed")

    def test_what_is_given_wrongly_is_refused_in_one_sentence(self):
        output = self.fields["hidden_states"]
        for fields, message in (
            ({"hidden_state": output}, "unknown field 'hidden_state'; did you mean hidden_states"),
            ({"gate": output}, "gate is given by the problem"),
            ({"hidden_states": output[:12]}, r"hidden_states: expected shape \[13, 72\] \(T: tokens, H: hidden_size\), found \[12, 72\]"),
            ({"hidden_states": output.T}, "it is transposed"),
            ({"second_gemm": self.fields["first_gemm"]}, "that is the shape of first_gemm"),
            ({"hidden_states": output.astype(int)}, "expected bf16 .* found int64"),
            ({"gather_indices": np.zeros(39)}, "gather_indices: expected integers, found float64"),
            ({"hidden_states": None}, "hidden_states is None: leave out"),
            ({}, "expected a dict of what the kernel computed"),
            (output, "expected a dict of what the kernel computed"),
        ):
            with self.assertRaisesRegex(assay.UsageError, message):
                assay.judge(self.problem, fields)
        for options, message in (({"contract": "exact"}, "unknown contract 'exact'; valid: hf"), ({"stage": "Attention"}, "unknown stage 'Attention'")):
            with self.assertRaisesRegex(assay.UsageError, message):
                assay.judge(self.problem, self.fields, **options)
        with self.assertRaisesRegex(assay.UsageError, "the layer returned nothing"):
            assay.assert_layer(lambda problem: None, self.problem)


if __name__ == "__main__":
    unittest.main()
