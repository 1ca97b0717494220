"""minimize: a failing problem shrinks, still fails the same way, and is replayed from the file it wrote."""

import re
import shlex
import unittest

from program import COULD_NOT_JUDGE, FAILED, PASSED, SUSPECT, USAGE, ProgramTest, golden


class Minimize(ProgramTest):
    def minimize(self, *words, code=FAILED):
        """What was printed, as {word: rest of the line}, with `after` as numbers."""
        text = self.expect(code, "minimize", *words, "-o", "small.h5").stdout
        told = dict(re.findall(r"^(before|after|numbers|tried|stayed|written|replay|explain) +(.*)$", text, re.M))
        sizes = re.fullmatch(r"T (\d+), E (\d+), H (\d+), I (\d+)", told["after"])
        told["sizes"] = tuple(map(int, sizes.groups()))
        told["headline"] = text.splitlines()[0]
        return told

    def replay(self, told, field, code=FAILED):
        case = self.report(*shlex.split(told["replay"])[1:], code=code)["cases"][0]
        self.assertEqual(case["first_own_error"], field)
        self.assertEqual((case["tokens"], case["config"]["num_experts"], case["config"]["hidden_size"], case["config"]["moe_intermediate_size"]), told["sizes"])
        if "explain" in told:
            self.expect(code, *shlex.split(told["explain"])[1:], says=field)
        return case

    def test_a_planted_fault_shrinks_to_a_token_and_replays_red(self):
        told = self.minimize("--fixture", "odd", "--fault", "gate_up_sums_in_bf16")
        tokens, experts, hidden, inner = told["sizes"]
        self.assertEqual((tokens, experts), (1, 3))
        self.assertTrue(hidden <= 8 and inner <= 4, told["after"])
        self.assertEqual(told["before"], "T 13, E 7, H 72, I 40")
        self.assertRegex(told["numbers"], r"^(nothing|(expert|token|column of [HI]) 0, was [1-9]\d*)")
        self.replay(told, "first_gemm")

    def test_each_stage_s_fault_keeps_its_stage(self):
        for fault, field in (("down_drops_k", "second_gemm"), ("gate_and_up_swapped", "intermediate"), ("no_renormalisation", "topk_weights"),
                             ("weight_applied_twice", "hidden_states"), ("output_bit_flipped", "hidden_states")):  # fmt: skip
            with self.subTest(fault):
                told = self.minimize("--fixture", "odd", "--fault", fault)
                self.assertLessEqual(told["sizes"][0], 2)
                self.replay(told, field)

    def test_a_fault_that_needs_a_long_k_keeps_it(self):
        told = self.minimize("--fixture", "odd", "--fault", "gate_up_drops_k_block")  # elements 16 to 31 of K
        self.assertEqual(told["sizes"][2], 17)
        self.replay(told, "first_gemm")

    def test_a_fault_that_needs_many_tokens_keeps_them(self):
        told = self.minimize("--fixture", "odd", "--fault", "weights_of_first_tokens")  # token 8 reads the weights of token 0
        self.assertEqual(told["sizes"][0], 9)
        self.assertIn("tokens below 9", told["stayed"])
        self.replay(told, "hidden_states")

    def test_bits_that_only_the_accumulator_tells_apart_stay_suspect(self):
        told = self.minimize("--fixture", "cancellation", "--pipeline", "predicted", "--accumulator", "fp32_sequential", code=SUSPECT)
        # One step of the tensor core sums 16 products; sequential sums of two terms are the same bits.
        self.assertEqual(told["sizes"][0], 1)
        self.assertGreater(max(told["sizes"][2:]), 2)
        field = re.match(r"(\w+) is the first stage", told["headline"]).group(1)
        self.replay(told, field, code=SUSPECT)

    def test_of_a_dump_only_tokens_and_unrelated_experts_go(self):
        self.expect(PASSED, "mutate", "second_gemm_bit_flipped", "--fixture", "odd", "--dump", "mine.h5")
        told = self.minimize("--golden", golden("odd.grouped_mm"), "--pipeline", "dump:mine.h5")
        tokens, experts, hidden, inner = told["sizes"]
        self.assertEqual((tokens, hidden, inner), (1, 72, 40))
        self.assertLess(experts, 7)
        self.assertIn("the candidate is a file", told["stayed"])
        case = self.replay(told, "second_gemm")
        self.assertEqual(next(field for field in case["fields"] if field["field"] == "second_gemm")["isolated"]["rejected"], 1)
        self.expect(FAILED, "golden", "check", "small.h5")

    def test_faults_of_gradients_shrink_and_keep_their_stage(self):
        for fault, field in (("down_dw_doubled", "d_down_proj"), ("gate_up_dw_last_row_dropped", "d_gate_up_proj"), ("d_swiglu_up_ignored", "d_first_gemm"),
                             ("d_logits_slot_dropped", "d_router_logits")):  # fmt: skip
            with self.subTest(fault):
                told = self.minimize("--fixture", "odd", "--fault", fault)
                self.assertLess(told["sizes"][0], 13)
                self.assertIn(f"--field {field} --at", told["explain"])
                self.replay(told, field)

    def test_of_a_dump_the_matrix_of_the_wrong_expert_keeps_its_tokens(self):
        self.expect(PASSED, "mutate", "gate_up_dw_bit_flipped", "--fixture", "odd", "--dump", "mine.h5")
        told = self.minimize("--golden", golden("odd.grouped_mm"), "--pipeline", "dump:mine.h5")
        self.assertLess(told["sizes"][0], 13)
        self.assertNotIn("error of its own too", told["headline"])  # what cannot be cut is left out, not accused
        case = self.replay(told, "d_gate_up_proj")
        self.assertEqual(next(field for field in case["fields"] if field["field"] == "d_gate_up_proj")["isolated"]["rejected"], 1)

    def test_a_golden_judged_by_another_contract(self):
        told = self.minimize("--golden", golden("odd.eager"), "--contract", "hf")
        self.assertEqual(told["sizes"][0], 1)
        self.assertIn("--contract hf", told["replay"])
        self.replay(told, "hidden_states")

    def test_nothing_fails_nothing_is_written(self):
        self.expect(PASSED, "minimize", "--golden", golden("odd.grouped_mm"), "-o", "none.h5", says="nothing to minimise: all 21 fields pass")
        self.expect(PASSED, "minimize", "--fixture", "odd", "-o", "none.h5", says="nothing to minimise")
        self.assertEqual(self.listing(), {})

    def test_what_is_wrong_is_one_sentence(self):
        self.refuse(USAGE, "minimize", "--fixture", "odd", says="--out")
        self.refuse(USAGE, "minimize", "-o", "x.h5", says="expected either --golden FILE or --fixture NAME")
        self.refuse(USAGE, "minimize", "--golden", "a.h5", "--fixture", "odd", "-o", "x.h5", says="expected either --golden FILE or --fixture NAME")
        self.refuse(COULD_NOT_JUDGE, "minimize", "--golden", "nope.h5", "-o", "x.h5", says="nope.h5")
        self.refuse(COULD_NOT_JUDGE, "minimize", "--fixture", "odd", "--fault", "down_drops_k", "-o", "no/such/folder/x.h5", says="no/such/folder/x.h5")


if __name__ == "__main__":
    unittest.main()
