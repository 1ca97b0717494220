"""regress: what a change changed, in sentences; 0 the same, 4 a legal change, 1 a regression."""

import json
import unittest

from program import COULD_NOT_JUDGE, FAILED, FORWARD, PASSED, SUSPECT, ProgramTest


class Dumps(ProgramTest):
    def regress(self, code, before, after, says):
        return self.expect(code, "regress", "--baseline", before, "--candidate", after, says=says)

    def test_equal_dumps_are_bit_for_bit_the_same(self):
        self.dump("a.h5")
        self.dump("b.h5")
        self.regress(PASSED, "a.h5", "b.h5", ["no difference in 1 case and 10 fields", "are bit for bit the same: " + ", ".join(FORWARD)])

    def test_another_contract_is_a_legal_change(self):
        self.dump("a.h5")
        self.dump("b.h5", contract="hf_eager")
        for before, after, names in (("a.h5", "b.h5", "from hf to hf_eager"), ("b.h5", "a.h5", "from hf_eager to hf")):
            done = self.regress(SUSPECT, before, after, [f"contract changed {names}", "hidden_states: ", "9 fields with 10,511 elements are bit for bit the same"])
            self.assertRegex(done.stdout, r"legal +hidden_states: [\d,]+ of 936 elements changed \([\d.]+ %\), first at token \d+, col \d+, by at most [\d,]+ ulps")
            self.assertNotIn("REGRESSION", done.stdout)

    def test_a_fault_is_a_regression_that_names_the_field(self):
        self.dump("a.h5")
        for fault, field in (("second_gemm_bit_flipped", "second_gemm"), ("output_bit_flipped", "hidden_states"), ("gate_and_up_swapped", "intermediate")):
            with self.subTest(fault):
                self.expect(PASSED, "mutate", fault, "--fixture", "odd", "--dump", "bad.h5")
                done = self.regress(FAILED, "a.h5", "bad.h5", "REGRESSION")
                told = [line for line in done.stdout.splitlines() if line.startswith("REGRESSION")]
                self.assertTrue(any(field in line for line in told), told)

    def test_one_flipped_bit_is_one_element(self):
        self.dump("a.h5")
        self.expect(PASSED, "mutate", "output_bit_flipped", "--fixture", "odd", "--dump", "bad.h5")
        self.regress(FAILED, "a.h5", "bad.h5", ["hidden_states: 1 of 936 elements changed", "9 fields with 10,511 elements are bit for bit the same"])

    def test_dumps_of_other_problems_are_not_compared(self):
        self.dump("a.h5")
        self.dump("b.h5", fixture="one_token")
        done = self.regress(COULD_NOT_JUDGE, "a.h5", "b.h5", ["different problems", "b.h5 was computed with tokens 1 (here 13)"])
        self.assertEqual(done.stdout, "")

    def test_findings_as_json(self):
        self.dump("a.h5")
        found = json.loads(self.expect(PASSED, "regress", "--baseline", "a.h5", "--candidate", "a.h5", "--json", "-").stdout)
        self.assertEqual((found["schema"], found["severity"]), ("assay-regress", "same"))
        self.expect(PASSED, "regress", "--baseline", "a.h5", "--candidate", "a.h5", "--json", "f.json", says="bit for bit")
        self.assertEqual(json.loads((self.folder / "f.json").read_text(encoding="utf-8"))["severity"], "same")


class Reports(ProgramTest):
    def setUp(self):
        super().setUp()
        self.dump("k.h5")
        self.expect(PASSED, "verify", "--fixture", "odd", "--pipeline", "dump:k.h5", "-q", "--json", "before.json")

    def after(self, code):
        self.expect(code, "verify", "--fixture", "odd", "--pipeline", "dump:k.h5", "-q", "--json", "after.json")

    def test_the_same(self):
        self.after(PASSED)
        self.expect(PASSED, "regress", "--baseline", "before.json", "--candidate", "after.json", says="no difference in 1 case and 10 fields")

    def test_another_contract(self):
        self.dump("k.h5", contract="hf_eager")
        self.after(PASSED)
        self.expect(SUSPECT, "regress", "--baseline", "before.json", "--candidate", "after.json", says="contract changed from hf to hf_eager")

    def test_a_fault(self):
        self.expect(PASSED, "mutate", "down_last_row_zero", "--fixture", "odd", "--dump", "k.h5")
        self.after(FAILED)
        done = self.expect(FAILED, "regress", "--baseline", "before.json", "--candidate", "after.json", says="REGRESSION")
        self.assertRegex(done.stdout, r"REGRESSION .*second_gemm")
        back = self.expect(SUSPECT, "regress", "--baseline", "after.json", "--candidate", "before.json")
        self.assertNotIn("REGRESSION", back.stdout)

    def test_a_case_that_is_gone(self):
        self.expect(PASSED, "verify", "--fixture", "odd", "tiny", "--pipeline", "predicted", "-q", "--json", "before.json")
        self.expect(PASSED, "verify", "--fixture", "odd", "--pipeline", "predicted", "-q", "--json", "after.json")
        self.expect(FAILED, "regress", "--baseline", "before.json", "--candidate", "after.json", says="case tiny, predicted is missing")


if __name__ == "__main__":
    unittest.main()
