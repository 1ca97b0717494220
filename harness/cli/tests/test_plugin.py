"""Plugins: the example passes, and whatever a plugin may do wrong is told in one sentence."""

import json
import os
import pathlib
import shutil
import unittest

from program import COULD_NOT_JUDGE, FAILED, NOTHING_COMPARED, PASSED, ProgramTest, golden

PLUGINS = pathlib.Path(os.environ["ASSAY_PLUGINS"])  # where the build leaves them
EXAMPLE, FAULTY = PLUGINS / "plugin_example.so", PLUGINS / "plugin_faulty.so"


class Plugin(ProgramTest):
    def judge(self, code, fault, says, problem=("--fixture", "tiny"), *more):
        return self.expect(code, "verify", *problem, "--pipeline", f"plugin:{FAULTY}", *more, says=says, environment={"ASSAY_PLUGIN_FAULT": fault})

    def test_the_example_passes_every_kind_of_problem(self):
        for name in ("tiny", "odd", "ties", "all_tied", "zeros", "hot_expert", "empty_experts", "one_token", "saturated", "no_renormalisation"):
            with self.subTest(fixture=name):
                done = self.expect(PASSED, "verify", "--fixture", name, "--pipeline", f"plugin:{EXAMPLE}", "--json", "r.json",
                                   says=["ran on the problem, on its tokens in reverse and on the problem again: the same bytes"])
                case = json.loads((self.folder / "r.json").read_text())["cases"][0]
                self.assertEqual((case["producer"], case["verdict"], done.stderr), ("plain C", "Passed", ""))
                self.assertEqual(sum(field["verdict"] == "Passed" for field in case["fields"]), 10)
        self.expect(PASSED, "verify", "--golden", golden("odd.grouped_mm"), golden("odd.eager"), "--pipeline", f"plugin:{EXAMPLE}")

    def test_no_tokens_is_a_problem(self):
        self.expect(PASSED, "verify", "--fixture", "no_tokens", "--pipeline", f"plugin:{EXAMPLE}")

    def test_wrong_values_are_named_by_stage(self):
        self.judge(FAILED, "half", "second_gemm is the first stage with an error of its own")
        self.judge(FAILED, "not written", "hidden_states")

    def test_runs_that_differ_are_both_judged(self):
        self.judge(FAILED, "left over", ["two runs on the problem differ", "1 of", "elements of first_gemm", "this is the second run"])
        self.judge(FAILED, "wrong the first time", ["elements of intermediate", "this is the first run", "first run"])

    def test_what_no_implementation_may_do_is_a_failure(self):
        for fault, says in {
            "behind": "expected the memory behind hidden_states to be left alone, found byte 0 behind it overwritten",
            "before": "expected the memory before first_gemm to be left alone",
            "input": "to leave its inputs alone, found down_proj changed",
            "failed": "failed in its first run on tiny: needs 3 experts",
            "no sentence": "failed in its first run on tiny: status 42, no sentence",
            "crash": "crashed in its first run on tiny (signal 11)",
            "abort on other tokens": "crashed on tiny with its tokens in reverse, after one run (signal 6)",
        }.items():
            with self.subTest(fault=fault):
                self.judge(FAILED, fault, says)

    def test_a_problem_that_it_does_not_support_is_no_failure(self):
        self.judge(NOTHING_COMPARED, "unsupported", "does not support this problem: needs 3 experts")

    def test_what_cannot_be_judged_says_why(self):
        for fault, says in {
            "interface": "to be built for plugin interface 1, found 7",
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
