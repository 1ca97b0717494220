"""Two candidates compared from Python: layers, dicts of fields, results and files, and what is refused."""

import tempfile
import unittest

import assay
from assay import program_runs
from kept_files import KeptFiles
from numpy_layer import bf16, forward


def doubled(problem):
    """An honest layer, but for a row of second_gemm that is twice as large from there on."""
    fields = forward(problem)
    fields["second_gemm"] = fields["second_gemm"].copy()
    fields["second_gemm"][5] *= 2
    return fields


def wide_merge(problem):
    """The weighted products join the sum unrounded: contract hf_fp32_merge."""
    fields = forward(problem)
    weighted = fields["hidden_states_unpermute"] * fields["topk_weights"].reshape(-1, 1)
    return fields | {"hidden_states": bf16(weighted.reshape(problem.tokens, problem.config.top_k, -1).sum(axis=1))}


class Diff(KeptFiles, unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.problem = assay.problem("odd")

    def test_two_layers_part_at_the_field_that_one_of_them_spoils(self):
        found = assay.diff(forward, doubled, self.problem)
        self.assertEqual((found.first, found.exit_code, found.equal, found.legal), ("second_gemm", 1, False, False))
        self.assertEqual((bool(found.legal_under[0]), found.legal_under[1]), (True, ()))
        row = found.fields["second_gemm"]
        self.assertEqual((row.differing, row.elements, row.nearer, row.verdicts), (72, 39 * 72, "A", ("Passed", "Failed")))
        self.assertEqual(found.fields["first_gemm"].differing, 0)
        self.assertIn("A and B part first at second_gemm", found.sentence)
        self.assertIn("A: A.h5 (forward)\n", found.text)
        self.assertNotIn(tempfile.gettempdir(), found.text + str(found.record))

    def test_two_legal_ones_are_told_apart_by_their_contracts(self):
        found = assay.diff(forward(self.problem), wide_merge, "odd")
        self.assertEqual((found.first, found.exit_code, found.equal, found.legal), ("hidden_states", 4, False, True))
        self.assertIn("hf", found.legal_under[0])
        self.assertIn("hf_fp32_merge", found.legal_under[1])
        self.assertEqual(found.fields["hidden_states"].nearer, "B")

    def test_equal_ones_do_not_part(self):
        found = assay.diff(forward, forward, self.problem)
        self.assertEqual((found.first, found.exit_code, found.equal, found.legal), ("", 0, True, True))

    def test_files_and_results_are_taken_as_they_are(self):
        goldens = program_runs.golden_folder()
        found = assay.diff(goldens / "odd.grouped_mm.h5", str(goldens / "odd.eager.h5"))
        self.assertEqual((found.first, found.exit_code, found.legal_under), ("hidden_states", 4, (("hf",), ("hf_eager",))))
        bad = assay.judge(self.problem, doubled(self.problem))
        self.assertEqual(assay.diff(bad, forward, self.problem).first, "second_gemm")
        found.html(self.folder / "page.html")
        found.markdown(self.folder / "comment.md")
        self.assertIn("They part first at hidden_states", (self.folder / "page.html").read_text(encoding="utf-8"))
        self.assertTrue((self.folder / "comment.md").read_text(encoding="utf-8").startswith("### ~ assay diff: they part first at hidden"))

    def test_what_cannot_be_compared_is_said_in_a_sentence(self):
        good = assay.judge(self.problem, forward(self.problem))
        for words, says in (
            ((forward, forward), "A is no file: name the problem it belongs to"),
            ((good, forward, self.problem), "A: the result keeps no file"),
            ((forward, 5, self.problem), "B: expected a file, a Result, a dict of fields or a layer, found int"),
            ((forward, {"hidden_state": 1}, self.problem), "unknown field 'hidden_state'; did you mean hidden_states"),
        ):  # fmt: skip
            with self.assertRaisesRegex(assay.UsageError, says):
                assay.diff(*words)
        with self.assertRaisesRegex(assay.UsageError, "device= belongs to a problem that is named"):
            assay.diff(forward, forward, self.problem, device="cpu")
        goldens = program_runs.golden_folder()
        with self.assertRaisesRegex(assay.InputError, "A and B are of different problems"):
            assay.diff(goldens / "odd.grouped_mm.h5", goldens / "tiny.grouped_mm.h5")


if __name__ == "__main__":
    unittest.main()
