"""Plugins backward: the example's gradients pass, and whatever a backward function may do wrong is told in one sentence."""

import json
import os
import pathlib
import unittest

from program import BACKWARD, COULD_NOT_JUDGE, FAILED, NOTHING_COMPARED, PASSED, SUSPECT, ProgramTest, golden

PLUGINS = pathlib.Path(os.environ["ASSAY_PLUGINS"])  # where the build leaves them
EXAMPLE, FAULTY = PLUGINS / "plugin_example.so", PLUGINS / "plugin_faulty.so"
OF_WEIGHTS = {"d_down_proj", "d_gate_up_proj", "d_gate"}
OF_INPUT = {"d_permuted_hidden_states", "d_experts_hidden_states", "d_input_hidden_states"}
GRADIENTS = set(BACKWARD)


class PluginBackward(ProgramTest):
    def judge(self, code, fault, says, *more):
        return self.expect(code, "verify", "--fixture", "tiny", "--pipeline", f"plugin:{FAULTY}", "--backward", *more, says=says,
                           environment={"ASSAY_PLUGIN_FAULT": fault})  # fmt: skip

    def cases(self, code, fault, *more, problem=("--fixture", "tiny"), plugin=FAULTY):
        return self.report("verify", *problem, "--pipeline", f"plugin:{plugin}", "--backward", *more, code=code, environment={"ASSAY_PLUGIN_FAULT": fault})["cases"]

    def verdicts(self, case):
        return {field["field"]: field["verdict"] for field in case["fields"]}

    def passing(self, case):
        return {name for name, verdict in self.verdicts(case).items() if verdict == "Passed"}

    def test_the_example_passes_every_kind_of_problem(self):
        for name in ("tiny", "odd", "rows", "one_choice", "ties", "all_tied", "zeros", "hot_expert", "empty_experts", "one_token", "saturated", "no_renormalisation"):
            with self.subTest(fixture=name):
                case = self.cases(PASSED, "", problem=("--fixture", name), plugin=EXAMPLE)[0]
                self.assertEqual(case["verdict"], "Passed")
                self.assertGreaterEqual(self.passing(case), GRADIENTS)
                told = " ".join(case["remarks"])
                self.assertIn("ran on the problem twice, backward twice behind the first forward: the same bytes, and nothing written beside the results", told)
                sums = "every field has" if name == "one_token" else "the 18 of 21 fields whose rows can be told and are no sums over tokens have"
                self.assertIn(f"on its tokens in reverse, put back into their order, {sums} the same bits", told)
        self.expect(PASSED, "verify", "--golden", golden("odd.grouped_mm"), golden("rows.eager"), "--pipeline", f"plugin:{EXAMPLE}", "--backward")

    def test_no_tokens_is_a_problem(self):
        self.assertGreaterEqual(self.passing(self.cases(PASSED, "", problem=("--fixture", "no_tokens"), plugin=EXAMPLE)[0]), OF_WEIGHTS)

    def test_without_backward_forward_alone_runs(self):
        case = self.report("verify", "--fixture", "tiny", "--pipeline", f"plugin:{FAULTY}", code=PASSED, environment={"ASSAY_PLUGIN_FAULT": "backward crash"})["cases"][0]
        self.assertFalse(GRADIENTS & self.passing(case))

    def test_gradients_may_be_left_out(self):
        case = self.cases(PASSED, "", "--dx-only")[0]
        self.assertEqual(self.passing(case) & GRADIENTS, GRADIENTS - OF_WEIGHTS)
        self.assertIn("--backward --dx-only", case["replay"])
        case = self.cases(PASSED, "", "--dw-only")[0]
        self.assertEqual(self.passing(case) & GRADIENTS, GRADIENTS - OF_INPUT)
        case = self.cases(PASSED, "no gradient of a weight")[0]
        self.assertEqual(self.passing(case) & GRADIENTS, GRADIENTS - OF_WEIGHTS)

    def test_a_plugin_without_backward_runs_forward_alone_and_the_report_says_so(self):
        for fault in ("interface 1", "forward only"):
            with self.subTest(fault=fault):
                case = self.cases(PASSED, fault)[0]
                self.assertEqual(len(self.passing(case)), 10)
                self.assertIn("--backward: it has no backward function, so that forward alone was run", " ".join(case["remarks"]))
        case = self.cases(PASSED, "one gradient", "--dw-only")[0]
        self.assertIn("--backward: it lists no gradient that --dw-only leaves, so that forward alone was run", " ".join(case["remarks"]))

    def test_what_forward_saves_for_backward_is_the_plugin_s_own(self):
        case = self.cases(PASSED, "own state")[0]
        self.assertGreaterEqual(self.passing(case), GRADIENTS)
        self.assertNotIn("first_gemm", self.passing(case))

    def test_gradients_kept_in_float32_are_what_the_report_finds(self):
        """Its contract has them in bf16."""
        case = self.cases(FAILED, "float32")[0]
        fields = {field["field"]: field for field in case["fields"]}
        for name in OF_WEIGHTS:
            self.assertEqual(fields[name]["verdict"], "WrongDtype")
            self.assertIn("expected bfloat16, found float32", " ".join(fields[name]["notes"]))
        self.assertGreaterEqual(self.passing(case), GRADIENTS - OF_WEIGHTS - OF_INPUT)

    def test_a_second_backward_that_differs_is_unstable_although_each_passes(self):
        case, again = self.cases(SUSPECT, "second backward")
        self.assertTrue(again["candidate"].endswith(", second backward"), again["candidate"])
        for one in (case, again):
            self.assertEqual(one["verdict"], "Unstable")
            self.assertIn("unstable: the second backward after the same forward differs from the first in 1 of", one["headline"])
            self.assertIn("elements of d_router_logits", one["headline"])
            fields = {field["field"]: field for field in one["fields"]}
            self.assertEqual([name for name, field in fields.items() if field["verdict"] == "Unstable"], ["d_router_logits"])
            self.assertIn("have other bits in the second backward after the same forward", " ".join(fields["d_router_logits"]["notes"]))
        self.assertIn("this is the second run", " ".join(case["remarks"]))
        self.judge(SUSPECT, "second backward", ["~ unstable", "2 unstable"], "--junit", "j.xml")
        self.assertIn('<failure type="Unstable" message="d_router_logits unstable', (self.folder / "j.xml").read_text())

    def test_a_saved_tensor_that_backward_overwrites_shows_in_its_second_call(self):
        case, again = self.cases(FAILED, "backward overwrites")
        self.assertEqual((case["verdict"], again["verdict"]), ("Unstable", "Failed"))
        for one in (case, again):
            self.assertIn("the second backward after the same forward differs from the first in", one["headline"])
            told = " ".join(one["remarks"])
            self.assertIn("a saved tensor that the first backward overwrote", told)
            self.assertIn("backward left other bits in results of forward: 32 of", told)
            self.assertIn("elements of second_gemm", told)
        self.assertEqual(self.verdicts(again)["d_topk_weights"], "Failed")
        self.assertEqual(self.verdicts(again)["second_gemm"], "Passed")  # as forward left it

    def test_results_that_backward_changes_are_told_and_judged_as_forward_left_them(self):
        case = self.cases(PASSED, "backward touches")[0]
        self.assertIn("backward left other bits in results of forward: 1 of 768 elements of hidden_states", " ".join(case["remarks"]))

    def test_a_later_backward_that_differs_is_unstable(self):
        for one in self.cases(SUSPECT, "later backward"):
            self.assertIn("unstable: two runs on the same input in the same process differ in 1 of 96 elements of d_router_logits", one["headline"])

    def test_wrong_values_are_named_by_stage(self):
        self.judge(FAILED, "backward half", "d_first_gemm is the first stage with an error of its own")
        case = self.cases(FAILED, "backward not written")[0]
        self.assertEqual([name for name, verdict in self.verdicts(case).items() if verdict == "NonFinite"], ["d_input_hidden_states"])
        first, again = self.cases(FAILED, "backward not written again")
        self.assertEqual((first["verdict"], again["verdict"], self.verdicts(again)["d_down_proj"]), ("Unstable", "NonFinite", "NonFinite"))

    def test_what_no_implementation_may_do_is_a_failure(self):
        behind = "expected the memory behind d_input_hidden_states to be left alone, found"
        for fault, says in {
            "backward behind": f"{behind} byte 0 behind it overwritten, 2 bytes in all, in backward, in its first run on tiny",
            "backward before": "expected the memory before d_first_gemm to be left alone, found byte 1 before it overwritten",
            "backward behind a result": "expected the memory behind hidden_states to be left alone",
            "backward far behind": f"{behind} that it wrote to byte 8,192 behind it, beyond the guard band, in backward, in its first run on tiny",
            "backward input": "to leave its inputs alone, found that it wrote to down_proj (byte 10) in backward, in its first run on tiny",
            "backward output's gradient": "to leave its inputs alone, found that it wrote to d_hidden_states (byte 10) in backward, in its first run on tiny",
            "backward failed": "failed in backward, in its first run on tiny: needs 3 experts",
        }.items():
            with self.subTest(fault=fault):
                self.assertEqual(self.cases(FAILED, fault)[0]["verdict"], "Failed")
                self.judge(FAILED, fault, says)
        self.judge(NOTHING_COMPARED, "backward unsupported", "does not support this problem's backward pass: needs 3 experts")

    def test_a_crash_or_a_hang_is_that_case_s_verdict(self):
        for fault, says in {
            "backward crash": "crashed in backward, in its first run on tiny (signal 11)",
            "backward crash the second time": "crashed in the second backward, in its first run on tiny (signal 6)",
            "backward exit": "ended its process in backward, in its first run on tiny (exit code 0)",
            "backward not listed": "it used a null pointer (fields that it does not list are null)",
        }.items():
            with self.subTest(fault=fault):
                case = self.cases(FAILED, fault)[0]
                self.assertEqual(case["verdict"], "Crashed")
                self.assertIn(says, case["headline"])
        for fault, where in {"backward hang": "in backward", "backward hang the second time": "in the second backward"}.items():
            with self.subTest(fault=fault):
                case = self.cases(FAILED, fault, "--time-limit", "1")[0]
                self.assertEqual(case["verdict"], "TimedOut")
                self.assertIn(f"did not return within 1 s {where}, in its first run on tiny (--time-limit), and was ended", case["headline"])

    def test_rows_that_contradict_themselves_are_refused(self):
        for fault, says in {
            "no backward": "to have a backward function and gradients, or neither, found backward null",
            "no gradients": "to have a backward function and gradients, or neither, found gradients null",
            "gradients": "to list backward fields (assay list fields), found 'd_gates'",
            "gradients of forward": "to list backward fields (assay list fields), found 'first_gemm'",
            "unknown type": "to list backward fields (assay list fields), found 'd_gate:float16'",
            "gradients twice": "to list d_gate once, found it twice",
        }.items():
            with self.subTest(fault=fault):
                self.judge(COULD_NOT_JUDGE, fault, says)

    def test_a_dump_of_both_passes_is_judged_as_the_plugin_is(self):
        self.expect(PASSED, "verify", "--fixture", "odd", "--pipeline", f"plugin:{EXAMPLE}", "--backward", "--dump", "mine.h5")
        case = json.loads(self.expect(PASSED, "verify", "--golden", "mine.h5", "--json", "-").stdout)["cases"][0]
        self.assertGreaterEqual(self.passing(case), GRADIENTS)


if __name__ == "__main__":
    unittest.main()
