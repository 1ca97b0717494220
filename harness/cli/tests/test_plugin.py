"""Plugins: the example passes, and whatever a plugin may do wrong is told in one sentence."""

import json
import os
import pathlib
import shutil
import time
import unittest

from program import COULD_NOT_JUDGE, FAILED, NOTHING_COMPARED, PASSED, SANITIZED, SUSPECT, ProgramTest, golden

PLUGINS = pathlib.Path(os.environ["ASSAY_PLUGINS"])  # where the build leaves them
EXAMPLE, FAULTY = PLUGINS / "plugin_example.so", PLUGINS / "plugin_faulty.so"


class Plugin(ProgramTest):
    def judge(self, code, fault, says, problem=("--fixture", "tiny"), *more):
        return self.expect(code, "verify", *problem, "--pipeline", f"plugin:{FAULTY}", *more, says=says, environment={"ASSAY_PLUGIN_FAULT": fault})

    def test_the_example_passes_every_kind_of_problem(self):
        for name in ("tiny", "odd", "ties", "all_tied", "zeros", "hot_expert", "empty_experts", "one_token", "saturated", "no_renormalisation"):
            with self.subTest(fixture=name):
                done = self.expect(PASSED, "verify", "--fixture", name, "--pipeline", f"plugin:{EXAMPLE}", "--json", "r.json",
                                   says=["ran on the problem twice: the same bytes, and nothing written beside the results",
                                         "on its tokens in reverse, put back into their order, every field has the same bits"])
                case = json.loads((self.folder / "r.json").read_text())["cases"][0]
                self.assertEqual((case["producer"], case["verdict"], done.stderr), ("plain C", "Passed", ""))
                self.assertEqual(sum(field["verdict"] == "Passed" for field in case["fields"]), 10)
        self.expect(PASSED, "verify", "--golden", golden("odd.grouped_mm"), golden("odd.eager"), "--pipeline", f"plugin:{EXAMPLE}")

    def test_no_tokens_is_a_problem(self):
        self.expect(PASSED, "verify", "--fixture", "no_tokens", "--pipeline", f"plugin:{EXAMPLE}")

    def test_wrong_values_are_named_by_stage(self):
        self.judge(FAILED, "half", "second_gemm is the first stage with an error of its own")
        self.judge(FAILED, "not written", "hidden_states")

    def cases(self, code, fault, *words):
        return self.report("verify", *words, "--pipeline", f"plugin:{FAULTY}", code=code, environment={"ASSAY_PLUGIN_FAULT": fault})["cases"]

    def test_a_run_that_differs_is_unstable_although_each_passes(self):
        case, first = self.cases(SUSPECT, "third run", "--fixture", "tiny")
        for one in (case, first):
            self.assertEqual(one["verdict"], "Unstable")
            self.assertIn("unstable: two runs on the same input in the same process differ in 1 of", one["headline"])
            self.assertIn("elements of hidden_states", one["headline"])
        fields = {field["field"]: field for field in case["fields"]}
        self.assertEqual([name for name, field in fields.items() if field["verdict"] == "Unstable"], ["hidden_states"])
        self.assertIn("have other bits in another run", " ".join(fields["hidden_states"]["notes"]))
        self.judge(SUSPECT, "third run", ["~ unstable", "2 unstable"], ("--fixture", "tiny"), "--junit", "j.xml", "--html", "r.html")
        self.assertIn('<failure type="Unstable" message="hidden_states unstable', (self.folder / "j.xml").read_text())
        self.assertIn("unstable: two runs", (self.folder / "r.html").read_text())

    def test_what_depends_on_the_order_of_tokens_is_said(self):
        self.judge(FAILED, "order", "on its tokens in reverse, put back into their order, 128 of 768 elements of hidden_states have other bits")

    def test_runs_that_differ_are_both_judged(self):
        self.judge(FAILED, "left over", ["two runs on the same input in the same process differ", "(in between a run on its tokens in reverse)", "1 of", "elements of first_gemm", "this is the second run"])
        self.judge(FAILED, "wrong the first time", ["elements of intermediate", "this is the first run", "first run"])

    def test_what_no_implementation_may_do_is_a_failure(self):
        for fault, says in {
            "behind": "expected the memory behind hidden_states to be left alone, found byte 0 behind it overwritten",
            "before": "expected the memory before first_gemm to be left alone",
            "input": "to leave its inputs alone, found that it wrote to down_proj (byte 10) in its first run on tiny",
            "far behind": "expected the memory behind hidden_states to be left alone, found that it wrote to byte 8,192 behind it, beyond the guard band",
            "run over": "expected the memory behind first_gemm to be left alone",
            "failed": "failed in its first run on tiny: needs 3 experts",
            "no sentence": "failed in its first run on tiny: status 42, no sentence",
            "abort on other tokens": "crashed on tiny with its tokens in reverse, after one run (signal 6)",
        }.items():
            with self.subTest(fault=fault):
                self.judge(FAILED, fault, says)

    def test_a_crash_is_that_case_s_verdict_and_the_others_stand(self):
        for fault, says in {
            "crash": "crashed in its first run on tiny (signal 11)",
            "stack": "crashed in its first run on tiny (signal 11)",
            "far read": "behind gather_indices",
            "not listed": "it used a null pointer (fields that it does not list are null)",
            "exit": "ended its process in its first run on tiny (exit code 0)",
            "exit the second time": "ended its process on tiny with its tokens in reverse, after one run (exit code 3)",
            "closes everything": "in its first run on tiny",
            "crash in the constructor": "crashed while it was loaded (signal 11)",
            "exit in the constructor": "ended its process while it was loaded (exit code 0)",
            "crash in assay_plugin": "crashed in assay_plugin() (signal 7)",
            "exit in assay_plugin": "ended its process in assay_plugin() (exit code 0)",
        }.items():
            with self.subTest(fault=fault):
                case = self.cases(FAILED, fault, "--fixture", "tiny")[0]
                self.assertEqual(case["verdict"], "Crashed")
                self.assertIn(says, case["headline"])
        cases = self.cases(FAILED, "crash on many tokens", "--fixture", "one_token", "odd", "hot_expert", "ties")
        verdicts = {case["problem"]: case["verdict"] for case in cases}
        self.assertEqual(verdicts["one_token"], "Passed")
        self.assertEqual({"Passed", "Crashed"}, set(verdicts.values()))
        self.expect(FAILED, "verify", "--fixture", "tiny", "--pipeline", f"plugin:{FAULTY}", f"plugin:{EXAMPLE}", "--junit", "j.xml",
                    environment={"ASSAY_PLUGIN_FAULT": "crash"}, says=["✘ CRASHED", "2 cases: 1 CRASHED, 1 passed"])
        self.assertIn('<failure type="Crashed"', (self.folder / "j.xml").read_text())

    def test_a_hang_is_that_case_s_verdict(self):
        for fault, says in {
            "hang": "did not return within 1 s in its first run on tiny (--time-limit), and was ended",
            "hang the second time": "did not return within 1 s on tiny with its tokens in reverse",
            "hang in assay_plugin": "did not return within 1 s in assay_plugin()",
        }.items():
            with self.subTest(fault=fault):
                case = self.cases(FAILED, fault, "--fixture", "tiny", "--time-limit", "1")[0]
                self.assertEqual(case["verdict"], "TimedOut")
                self.assertIn(says, case["headline"])
        self.judge(FAILED, "hang", "✘ TIMED OUT", ("--fixture", "one_token"), "--time-limit", "0.5")

    def test_whatever_it_does_to_its_process_touches_nobody_else(self):
        expected = self.cases(PASSED, "", "--fixture", "tiny")[0]["fields"]
        for fault in ("flush to zero", "rounding mode", "elsewhere", "prints", "signals", "thread", "program", "crash in the destructor"):
            with self.subTest(fault=fault):
                begin = time.monotonic()
                done = self.expect(PASSED, "verify", "--fixture", "tiny", "--pipeline", f"plugin:{FAULTY}", "--json", "-", "--html", "r.html",
                                   environment={"ASSAY_PLUGIN_FAULT": fault})  # fmt: skip
                self.assertEqual(json.loads(done.stdout)["cases"][0]["fields"], expected)
                self.assertTrue((self.folder / "r.html").exists())  # in the folder where the program was started
                self.assertEqual("printed by" in done.stderr, fault == "prints")
                self.assertLess(time.monotonic() - begin, 60)

    @unittest.skipIf(SANITIZED, "AddressSanitizer ends the process whose address space the plug-in limits")
    def test_limits_that_it_sets_do_not_keep_it_from_the_next_problem(self):
        """Its process is started anew where the next one cannot be placed in it: no problem is passed over as unsupported."""
        cases = self.cases(PASSED, "limits", "--fixture", "one_token", "odd", "tiny")
        self.assertEqual(["Passed"] * 3, [case["verdict"] for case in cases])

    def test_a_thread_that_writes_later_changes_no_result_that_was_taken(self):
        """The next run meets it: unstable, or wrong in the one field, never a crash of the judge."""
        for case in self.cases(FAILED, "thread that writes", "--fixture", "tiny"):
            self.assertEqual([field["field"] for field in case["fields"] if field["verdict"] not in ("Passed",)], ["hidden_states"])

    def test_a_plugin_is_judged_as_its_dump(self):
        """Flush-to-zero of the plugin must not reach the judge."""
        for problem in (("--fixture", "tiny"), ("--fixture", "saturated")):
            case = self.cases(PASSED, "flush to zero", *problem, "--dump", "d.h5")[0]
            dump = self.report("verify", "--golden", "d.h5", code=PASSED)["cases"][0]
            self.assertEqual([(f["field"], f["verdict"], f["isolated"]) for f in case["fields"]], [(f["field"], f["verdict"], f["isolated"]) for f in dump["fields"]])

    def test_a_problem_that_it_does_not_support_is_no_failure(self):
        self.judge(NOTHING_COMPARED, "unsupported", "does not support this problem: needs 3 experts")

    def test_what_cannot_be_judged_says_why(self):
        for fault, says in {
            "interface": "to be built for plugin interface 1 or 2, found 7",
            "memory": "to be ASSAY_HOST or ASSAY_DEVICE, found 5",
            "fields": "to list forward fields (assay list fields), found 'hidden_state'",
            "no fields": "to list the fields it writes, found none",
            "weights": "to list forward fields (assay list fields), found 'gate'",
            "contract": "declares what assay does not know",
            "accumulators": "declares what assay does not know",
            "ties": "declares what assay does not know",
            "null": "found a null",
            "no forward": "to have a forward function, found null",
            "no row": "to return its row, found null",
        }.items():
            with self.subTest(fault=fault):
                self.judge(COULD_NOT_JUDGE, fault, says)
        self.write("text.so", "not a library")
        self.expect(COULD_NOT_JUDGE, "verify", "--fixture", "tiny", "--pipeline", "plugin:text.so", says="cannot be loaded as a shared library")
        self.expect(COULD_NOT_JUDGE, "verify", "--fixture", "tiny", "--pipeline", "plugin:none.so", says="no such file")

    @unittest.skipIf(shutil.which("nvidia-smi"), "needs a machine without a GPU")
    def test_a_device_plugin_needs_a_device(self):
        self.judge(COULD_NOT_JUDGE, "no device", "no GPU can be used here")

    def test_a_plugin_works_wherever_a_pipeline_does(self):
        self.expect(PASSED, "verify", "--fixture", "odd", "--pipeline", f"plugin:{EXAMPLE}", "--dump", "mine.h5")
        self.expect(PASSED, "verify", "--golden", "mine.h5")
        self.expect(PASSED, "explain", "--fixture", "odd", "--pipeline", f"plugin:{EXAMPLE}", "--field", "first_gemm", "--at", "row=3,col=5", says="accepted")
        faulty = {"ASSAY_PLUGIN_FAULT": "half"}
        self.expect(FAILED, "minimize", "--fixture", "tiny", "--pipeline", f"plugin:{FAULTY}", "-o", "small.h5", environment=faulty)
        self.expect(FAILED, "verify", "--golden", "small.h5", "--pipeline", f"plugin:{FAULTY}", environment=faulty)


if __name__ == "__main__":
    unittest.main()
