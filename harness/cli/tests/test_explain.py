"""explain: one element derived; verify's explain line; what is missing or ambiguous is said."""

import json
import re
import unittest

from program import COULD_NOT_JUDGE, FAILED, NOTHING_COMPARED, PASSED, ROOT, SUSPECT, USAGE, ProgramTest, golden

ODD = ("explain", "--golden", golden("odd.grouped_mm"))


class Explain(ProgramTest):
    def derivation(self, *words, code=PASSED):
        return json.loads(self.expect(code, *words, "--json", "-").stdout)

    def test_every_field_explains_itself(self):
        places = {
            "router_logits": "token=3,expert=2", "selected_experts": "token=3,slot=1", "topk_weights": "token=3,slot=1",
            "token_counts_by_expert": "expert=2", "gather_indices": "row=4", "first_gemm": "row=7,col=79", "intermediate": "row=7,col=39",
            "second_gemm": "token=2,slot=0,col=71", "hidden_states_unpermute": "token=2,slot=0,col=71", "hidden_states": "token=12,col=0",
            "d_second_gemm": "token=2,slot=0,col=71", "d_topk_weights": "token=3,slot=1", "d_intermediate": "row=7,col=39", "d_down_proj": "expert=2,row=7,col=39",
            "d_first_gemm": "row=7,col=79", "d_permuted_hidden_states": "row=7,col=3", "d_gate_up_proj": "expert=6,row=79,col=71",
            "d_router_logits": "token=3,expert=2", "d_gate": "expert=2,col=71", "d_input_hidden_states": "token=12,col=0",
        }  # fmt: skip
        for field, at in places.items():
            for mode in ("isolated", "chained"):
                with self.subTest(field=field, mode=mode):
                    self.expect(PASSED, *ODD, "--field", field, "--at", at, "--mode", mode, says=[field, "accepted", mode])
                    found = self.derivation(*ODD, "--field", field, "--at", at, "--mode", mode)
                    self.assertEqual((found["schema"], found["field"], found["verdict"]), ("assay-derivation", field, "Passed"))

    def test_a_product_is_shown_term_by_term_and_step_by_step(self):
        at = ("--field", "first_gemm", "--at", "token=0,slot=1,col=59")
        text = self.expect(PASSED, *ODD, *at, says=["terms: 8 largest of 72", "partial sums, accumulator hopper", "C(n) sum |a||b|, any order", "sum: the a-priori bound",
                                                  "running bound: hopper, in its own order: each of 5 steps of 16 products", ", the running bound"]).stdout
        self.assertEqual(len(re.findall(r"^ +\d+ .* %$", text, re.M)), 8)
        some, every = self.derivation(*ODD, *at, "--terms", "3"), self.derivation(*ODD, *at, "--all")
        self.assertEqual((len(some["largest"]), len(every["largest"])), (3, 72))
        self.assertEqual([block["end"] for block in every["sums"]], [16, 32, 48, 64, 72])
        total = sum(term["a"] * term["b"] for term in every["largest"])
        self.assertAlmostEqual(total, every["value"]["ref"], delta=1e-12 * every["magnitude"])
        self.assertTrue(every["low"] <= every["out"] <= every["high"])
        in_force = every["value"]["high"] - every["value"]["ref"]
        a_priori, running = (sum(part["value"] for part in every[bound]) for bound in ("bound", "running"))
        self.assertAlmostEqual(running, in_force, delta=1e-4 * in_force)
        self.assertGreater(a_priori, running)
        self.assertAlmostEqual(a_priori, 72 * 2**-24 * every["magnitude"], delta=1e-4 * a_priori)

    def test_a_weight_s_gradient_names_its_rows_in_blocks_of_16(self):
        rows = ("explain", "--golden", golden("rows.grouped_mm"), "--field", "d_down_proj", "--at", "expert=0,row=7,col=3")
        found = self.derivation(*rows, "--all")
        self.assertEqual((found["terms"], [block["end"] for block in found["sums"]]), (33, [16, 32, 33]))
        self.assertTrue(all(term["token"] >= 0 and term["slot"] >= 0 for term in found["largest"]))
        self.assertAlmostEqual(sum(term["product"] for term in found["largest"]), found["value"]["ref"], delta=1e-12 * found["magnitude"])
        self.expect(PASSED, *rows, says=["terms: 8 largest of 33", "a: d_second_gemm, b: intermediate, summed over k: the 33 rows of expert 0", "accumulator hopper",
                                         "accepted, and the very bits predicted"])  # fmt: skip
        self.expect(PASSED, "explain", "--golden", golden("rows.grouped_mm"), "--field", "d_router_logits", "--at", "token=0,expert=0", says=["t - S p", "slots: "])

    def test_added_and_float32_gradients_show_how_they_are_added(self):
        accumulated = ("explain", "--fixture", "accumulated", "--field", "d_down_proj", "--at", "expert=2,row=3,col=2")
        self.expect(PASSED, *accumulated, says=["p, rounded to bf16", "before: d_down_proj of before", "p + before", "accepted, and the very bits predicted"])
        found = self.derivation(*accumulated, "--contract", "hf_main_grads")
        self.assertEqual((found["dtype"], [step["what"] for step in found["steps"]]), ("float32", ["p: this pass's gradient", "before: d_down_proj of before", "p + before"]))
        self.assertGreater(found["out_bits"], 0xFFFF)
        self.assertEqual(found["predicted"]["bits"], found["out_bits"])
        self.expect(PASSED, *accumulated, "--contract", "hf_main_grads", says=["float32 value", "0x3c"])

    def test_fields_formed_otherwise_are_derived_as_their_contract_forms_them(self):
        fused = ("explain", "--fixture", "odd", "--contract", "fused_fp32", "--field")
        for field, at, says in (("d_first_gemm", "row=7,col=79", "d = p w"), ("d_topk_weights", "token=3,slot=1", "the activation recomputed from first_gemm"),
                                ("d_down_proj", "expert=2,row=7,col=39", "w times the activation, rounded")):  # fmt: skip
            self.expect(PASSED, *fused, field, "--at", at, says=[says, "accepted, and the very bits predicted"])
        self.expect(NOTHING_COMPARED, *fused, "d_intermediate", "--at", "row=7,col=39", says="p w")

    def test_without_a_declared_accumulator_there_are_bounds_and_float64_sums_alone(self):
        found = self.derivation("explain", "--fixture", "odd", "--pipeline", "reference_cpu", "--field", "first_gemm", "--at", "row=0,col=0")
        self.assertIsNone(found["predicted"])
        self.assertEqual({block["running"] for block in found["sums"]}, {None})
        self.assertEqual((found["running"], found["running_words"]), ([], "none: no order of summation is declared"))

    def test_a_planted_fault_is_rejected_with_what_would_have_been_accepted(self):
        faulty = ("explain", "--fixture", "odd", "--fault", "gate_up_sums_in_bf16", "--field", "first_gemm", "--at", "row=14,col=59")
        self.expect(FAILED, *faulty, says=["FAILED", "rejected:", "lies outside", "accepted"])

    def test_the_explain_line_of_verify_leads_to_the_worst_element(self):
        command = ("verify", "--golden", golden("odd.eager"), "--contract", "hf", "--accumulator", "hopper")
        text = self.expect(FAILED, *command).stdout
        line = re.search(r"^  explain: assay (.*)$", text, re.M).group(1).replace("'", "").split()
        found = self.derivation(*line, code=FAILED)
        worst = self.report(*command, code=FAILED)["cases"][0]["fields"][9]["isolated"]["worst"]
        self.assertEqual((found["field"], found["verdict"]), ("hidden_states", "Failed"))
        self.assertEqual((found["out"], found["value"]["ref"], found["ratio"]), (worst["out"], worst["ref"], worst["ratio"]))
        self.assertNotIn("explain:", self.expect(PASSED, "verify", "--golden", golden("odd.eager")).stdout)

    def test_the_explain_line_of_verify_leads_to_a_wrong_gradient(self):
        self.expect(PASSED, "mutate", "down_dw_doubled", "--fixture", "odd", "--dump", "wrong.h5")
        text = self.expect(FAILED, "verify", "--golden", golden("odd.grouped_mm"), "--pipeline", "dump:wrong.h5", says="d_down_proj is the first stage with an error of its own").stdout
        line = re.search(r"^  explain: assay (.*)$", text, re.M).group(1).replace("'", "").split()
        self.expect(FAILED, *line, says=["d_down_proj", "rejected:", "rows of expert"])

    def test_bits_that_only_the_accumulator_explains_are_suspect(self):
        command = ("verify", "--fixture", "cancellation", "--pipeline", "predicted", "--accumulator", "fp32_sequential")
        line = re.search(r"^  explain: assay (.*)$", self.expect(SUSPECT, *command).stdout, re.M).group(1).replace("'", "").split()
        self.expect(SUSPECT, *line, says=["suspect: inside the accepted interval", "accumulator fp32_sequential"])

    def test_files_are_written_and_the_text_goes_on(self):
        self.expect(PASSED, *ODD, "--field", "hidden_states", "--at", "token=1,col=1", "--json", "one.json", says="slots: weight times row")
        self.assertEqual(json.loads((self.folder / "one.json").read_text())["field"], "hidden_states")

    def test_what_is_wrong_is_one_sentence(self):
        def refuse(*words, says):
            self.refuse(USAGE, *ODD, *words, says=says)

        refuse("--field", "nope", "--at", "token=0", says="unknown field 'nope'; valid: router_logits, selected_experts,")
        refuse("--field", "d_gate", "--at", "token=0", says="d_gate has no axis 'token'; valid: expert, col")
        refuse("--field", "gate", "--at", "token=0", says="explain takes what the layer computes, and not 'gate'; valid: router_logits,")
        refuse("--field", "hidden_states", "--at", "token=0", says="hidden_states needs a column as well: col=0 to col=71")
        refuse("--field", "hidden_states", "--at", "token=13,col=0", says="hidden_states has token 0 to 12, found token=13")
        refuse("--field", "first_gemm", "--at", "token=0,col=0", says="3 places of first_gemm fit:")
        refuse("--field", "first_gemm", "--at", "col", says="expected NAME=INDEX")
        refuse("--field", "first_gemm", "--at", "row=0,row=1,col=0", says="'row' is given twice")
        refuse("--field", "first_gemm", says="--at")
        self.refuse(USAGE, "explain", "--field", "gate", "--at", "row=0", says="explain takes what the layer computes, and not 'gate'")
        self.refuse(USAGE, "explain", "--field", "first_gemm", "--at", "row=0,col=0", says="expected either --golden FILE or --fixture NAME")
        self.refuse(USAGE, *ODD, "--fault", "nope", "--field", "first_gemm", "--at", "row=0,col=0", says="unknown fault 'nope'")
        self.refuse(USAGE, "explain", "--fixture", "odd", "--pipeline", "reference_cpu", "--fault", "gate_up_sums_in_bf16", "--field", "first_gemm", "--at", "row=0,col=0",
                    says="--fault is planted in the predicted pipeline")  # fmt: skip
        self.refuse(COULD_NOT_JUDGE, "explain", "--golden", "nope.h5", "--field", "first_gemm", "--at", "row=0,col=0", says="nope.h5")
        self.refuse(USAGE, "explain", "--fixture", "no_tokens", "--field", "first_gemm", "--at", "row=0,col=0", says="first_gemm has no elements in this problem")

    def test_a_field_that_is_missing_is_no_pass(self):
        liger = ("explain", "--golden", golden("qwen3_30b_a3b.grouped_mm"), "--pipeline", f"dump:{ROOT / 'golden/recorded/liger_30b.h5'}")
        self.expect(NOTHING_COMPARED, *liger, "--field", "first_gemm", "--at", "row=0,col=0", says="the candidate has no such field")


if __name__ == "__main__":
    unittest.main()
