"""invariance: the same bits whatever is computed beside a token, or which change made the difference."""

import json
import os
import pathlib
import unittest

from program import BACKWARD, FAILED, PASSED, SUSPECT, USAGE, ProgramTest

PLUGINS = pathlib.Path(os.environ["ASSAY_PLUGINS"])  # where the build leaves them
EXAMPLE, FAULTY = PLUGINS / "plugin_example.so", PLUGINS / "plugin_faulty.so"
OF_WEIGHTS = {"d_down_proj", "d_gate_up_proj", "d_gate"}
CHANGES = ["run to run", "alone", "a batch of 2", "a batch of 4", "a batch of 16", "a batch of 64", "a batch of 257", "a batch of 1024", "a batch of 4096",
           "other neighbours", "reverse", "other places"]  # fmt: skip


class Invariance(ProgramTest):
    def changes(self, code, fault, *more, says=()):
        """By name, of one case of the faulty plugin on tiny."""
        done = self.expect(code, "invariance", "--fixture", "tiny", "--pipeline", f"plugin:{FAULTY}", "--json", "i.json", *more, says=says,
                           environment={"ASSAY_PLUGIN_FAULT": fault})  # fmt: skip
        found = json.loads((self.folder / "i.json").read_text())
        self.assertEqual(found["schema"], "assay-invariance")
        self.case = found["judged"]["cases"][0]
        self.text = done.stdout
        return {change["change"]: change for change in found["cases"][0]["changes"]}

    def differing(self, changes):
        return [name for name, change in changes.items() if change["first"]]

    def test_our_own_pipelines_give_the_same_bits_under_every_change(self):
        self.expect(PASSED, "invariance", "--fixture", "tiny", "odd", "--pipeline", "reference_cpu", "predicted", "--json", "i.json", "--promise", "run,batch,order",
                    says=["the same bits run to run, in every batch and order: 12 changes", "4 cases: 4 passed"])  # fmt: skip
        cases = json.loads((self.folder / "i.json").read_text())["cases"]
        self.assertEqual(len(cases), 4)
        for case in cases:
            self.assertEqual([change["change"] for change in case["changes"]], CHANGES)
            self.assertEqual([change["first"] for change in case["changes"]], [None] * len(CHANGES))
            for change in case["changes"]:
                self.assertGreaterEqual({field["field"] for field in change["fields"]}, {"router_logits", "selected_experts", "first_gemm", "hidden_states"})

    def test_the_backward_pass_of_a_token_is_its_own_too(self):
        self.expect(PASSED, "invariance", "--fixture", "odd", "--pipeline", "predicted", "--backward", "--batches", "1,4", "--runs", "3", says="the same bits run to run")

    def test_the_example_plugin_is_invariant(self):
        self.expect(PASSED, "invariance", "--fixture", "tiny", "--pipeline", f"plugin:{EXAMPLE}", "--promise", "run,batch,order",
                    says="the same bits run to run, in every batch and order")

    def test_gradients_of_a_plugin_are_compared_as_its_results_are(self):
        """Gradients of weights run to run alone: other tokens, or their order, are other sums."""
        self.expect(PASSED, "invariance", "--fixture", "odd", "--pipeline", f"plugin:{EXAMPLE}", "--backward", "--batches", "1,4", "--runs", "3",
                    "--promise", "run,batch,order", "--json", "i.json", says="the same bits run to run, in every batch and order")  # fmt: skip
        for change in json.loads((self.folder / "i.json").read_text())["cases"][0]["changes"]:
            compared = {field["field"] for field in change["fields"]}
            self.assertGreaterEqual(compared, set(BACKWARD) - OF_WEIGHTS)
            self.assertEqual(OF_WEIGHTS & compared, OF_WEIGHTS if change["change"] == "run to run" else set())

    def test_a_backward_that_differs_run_to_run_is_unstable(self):
        changes = self.changes(SUSPECT, "later backward", "--backward", "--batches", "2", "--runs", "9", says="1 unstable")
        self.assertTrue(self.case["replay"].endswith(" --backward --batches 2 --runs 9"), self.case["replay"])
        self.assertEqual((self.differing(changes), changes["run to run"]["first"]), (["run to run"], "d_router_logits"))

    def test_an_order_of_summation_that_depends_on_the_batch_is_told(self):
        """verify passes it: no batch but the problem's own is looked at there."""
        self.expect(PASSED, "verify", "--fixture", "tiny", "--pipeline", f"plugin:{FAULTY}", environment={"ASSAY_PLUGIN_FAULT": "sums by batch"})
        changes = self.changes(PASSED, "sums by batch", says=["other bits: hidden_states of", "in a batch of 16 (legal): information, nothing was promised"])
        self.assertEqual(self.differing(changes), ["a batch of 16", "a batch of 64", "a batch of 257", "a batch of 1024", "a batch of 4096"])
        for name in self.differing(changes):
            self.assertEqual((changes[name]["first"], changes[name]["judged"]), ("hidden_states", "Passed"))
        self.changes(FAILED, "sums by batch", "--promise", "run,batch", says="batch was promised")
        self.assertEqual(self.case["verdict"], "Failed")
        self.changes(PASSED, "sums by batch", "--promise", "run,order")

    def test_a_third_call_that_differs_is_unstable(self):
        changes = self.changes(SUSPECT, "third run", "--junit", "j.xml", "--html", "i.html", says=["other bits: hidden_states of 1 of", "in 1 of 19 further runs (legal): unstable", "1 unstable"])
        self.assertEqual(self.differing(changes), ["run to run"])
        self.assertEqual(self.case["verdict"], "Unstable")
        self.assertIn('type="Unstable"', (self.folder / "j.xml").read_text())
        page = (self.folder / "i.html").read_text()
        self.assertIn("Other bits in 1 of 1 case", page)
        self.assertIn("in 1 of 19 further runs", page)
        self.changes(FAILED, "third run", "--promise", "run", says="run was promised")

    def test_a_place_that_matters_is_told(self):
        """A batch that repeats the tokens has them at other places, too."""
        changes = self.changes(PASSED, "place", says=["of 12 tokens in reverse (legal): information, nothing was promised"])
        self.assertEqual([name for name in self.differing(changes) if "batch" not in name], ["reverse", "other places"])
        self.assertEqual({changes[name]["judged"] for name in self.differing(changes)}, {"Passed"})
        self.changes(FAILED, "place", "--promise", "order", says="order was promised")

    def test_a_difference_that_is_not_legal_is_a_failure(self):
        changes = self.changes(FAILED, "wrong in large batches", says="not legal")
        self.assertEqual(self.differing(changes), ["a batch of 64", "a batch of 257", "a batch of 1024", "a batch of 4096"])

    def test_a_crash_on_other_tokens_is_that_case_s_verdict(self):
        self.expect(FAILED, "invariance", "--fixture", "tiny", "--pipeline", f"plugin:{FAULTY}", "predicted", "--batches", "64", "--runs", "2",
                    says=["✘ CRASHED", "2 cases: 1 CRASHED, 1 passed"], environment={"ASSAY_PLUGIN_FAULT": "crash on many tokens"})  # fmt: skip

    def test_what_cannot_be_run_again_is_refused(self):
        self.refuse(USAGE, "invariance", "--fixture", "tiny", "--pipeline", "dump:d.h5", says="what can be run again")
        self.refuse(USAGE, "invariance", "--pipeline", "predicted", says="needs --fixture GLOB or --golden FILE")
        self.refuse(USAGE, "invariance", "--fixture", "tiny", "--pipeline", "predicted", "--promise", "luck", says=["luck not in", "run,batch,order"])
        self.refuse(USAGE, "invariance", "--fixture", "tiny", "--pipeline", "predicted", "--batches", "0", says="--batches")


if __name__ == "__main__":
    unittest.main()
