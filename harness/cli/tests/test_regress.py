"""regress: what a change changed, in sentences; 0 the same, 4 a legal change, 1 a regression."""

import json
import unittest

from program import COULD_NOT_JUDGE, FAILED, FORWARD, PASSED, SUSPECT, USAGE, ProgramTest, limit_file_size


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
        self.regress(FAILED, "a.h5", "bad.h5", ["hidden_states: Failed, Passed before: it fails now", "; 1 of 936 elements changed", "9 fields with 10,511 elements are bit for bit the same"])

    def test_dumps_of_other_problems_are_not_compared(self):
        self.dump("a.h5")
        self.dump("b.h5", fixture="one_token")
        done = self.regress(COULD_NOT_JUDGE, "a.h5", "b.h5", ["different problems", "b.h5 was computed with tokens 1 (here 13)"])
        self.assertEqual(done.stdout, "")

    def test_the_page_has_what_both_hold_at_the_worst_element(self):
        self.dump("a.h5")
        self.expect(PASSED, "mutate", "second_gemm_bit_flipped", "--fixture", "odd", "--dump", "b.h5")
        self.expect(FAILED, "regress", "--baseline", "a.h5", "--candidate", "b.h5", "--html", "p.html", "--json", "f.json")
        page = (self.folder / "p.html").read_text(encoding="utf-8")
        told = {one.get("field"): one for one in json.loads((self.folder / "f.json").read_text(encoding="utf-8"))["findings"]}
        self.assertEqual((told["second_gemm"]["severity"], told["second_gemm"]["verdict"]), ("REGRESSION", {"before": "Passed", "now": "Failed"}))
        self.assertNotIn("<script", page)
        self.assertRegex(page, r'A</th><td><code>[-\d.e]+</code> <span class="good">')
        self.assertRegex(page, r'B</th><td><code>[-\d.e]+</code> <span class="bad">')
        self.assertNotIn("not in the report", page)
        self.refuse(USAGE, "regress", "--baseline", "a.h5", "--candidate", "b.h5", "--html", "a.h5", says="would replace a.h5")

    def test_a_field_is_one_line_and_what_fails_is_not_called_legal(self):
        self.dump("a.h5")
        self.expect(PASSED, "mutate", "gate_and_up_swapped", "--fixture", "odd", "--dump", "b.h5")
        lines = self.regress(FAILED, "a.h5", "b.h5", ()).stdout.splitlines()
        fields = [line.split()[1].rstrip(":") for line in lines if line.split()[1].rstrip(":") in FORWARD]
        self.assertEqual(len(fields), len(set(fields)), lines)
        self.assertFalse([line for line in lines if line.startswith("legal") and "intermediate" in line], lines)
        self.assertRegex(lines[0], "^REGRESSION +intermediate: Failed, Passed before: it fails now")

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

    def test_reports_of_other_problems_are_one_sentence(self):
        self.expect(PASSED, "verify", "--fixture", "one_token", "--pipeline", "predicted", "-q", "--json", "one.json")
        other = json.loads((self.folder / "one.json").read_text(encoding="utf-8"))
        other["cases"][0]["problem"] = "odd"
        self.write("other.json", json.dumps(other))
        done = self.refuse(COULD_NOT_JUDGE, "regress", "--baseline", "before.json", "--candidate", "other.json", says="the two reports are of different problems")
        self.assertEqual(len(done.stderr.splitlines()), 1)


class Approvals(ProgramTest):
    CALL = ("regress", "--baseline", "a.h5", "--candidate", "b.h5")

    def setUp(self):
        super().setUp()
        self.dump("a.h5")
        self.dump("b.h5", contract="hf_eager")

    def approve(self, code=PASSED, *more, says=()):
        return self.expect(code, *self.CALL, "--approve", "--by", "Ada", "--why", "merges in bf16, as eager does", *more, says=says)

    def test_an_approved_change_is_not_reported_again_and_says_who_and_why(self):
        self.expect(SUSPECT, *self.CALL)
        self.approve(says="approved")
        told = "(approved by Ada on 20"
        done = self.expect(PASSED, *self.CALL, "--markdown", "c.md", "--json", "f.json", "--html", "p.html", says=[told, "merges in bf16, as eager does)"])
        self.assertNotIn("legal  ", done.stdout)
        findings = json.loads((self.folder / "f.json").read_text(encoding="utf-8"))
        self.assertEqual(findings["severity"], "approved")
        by = [one["approved"]["by"] for one in findings["findings"] if one["severity"] == "approved"]
        self.assertEqual(set(by), {"Ada"})
        for name in ("c.md", "p.html"):
            self.assertIn("approved by Ada on 20", (self.folder / name).read_text(encoding="utf-8"))

    def test_the_file_says_what_was_let_pass_from_where_to_where(self):
        self.approve()
        self.assertEqual({path.name for path in self.folder.iterdir() if "approved" in path.name}, {"a.approved.json"})
        written = json.loads((self.folder / "a.approved.json").read_text(encoding="utf-8"))
        self.assertEqual((written["schema"], written["version"]), ("assay-approvals", 1))
        [decision] = written["approvals"]
        self.assertEqual((decision["by"], decision["why"], decision["baseline"], decision["candidate"]), ("Ada", "merges in bf16, as eager does", "a.h5", "b.h5"))
        self.assertRegex(decision["when"], r"^20\d\d-\d\d-\d\dT")
        [output] = [change for change in decision["changes"] if change.get("field") == "hidden_states"]
        self.assertEqual(output["verdict"], {"before": "Passed", "now": "Passed"})
        figures = {one["what"]: (one["before"], one["now"]) for one in output["figures"]}
        self.assertEqual(figures["changed elements"][0], 0)
        self.assertGreater(figures["changed elements"][1], 0)

    def test_what_goes_beyond_is_reported(self):
        self.approve()
        self.expect(PASSED, "mutate", "output_bit_flipped", "--fixture", "odd", "--dump", "b.h5")
        self.expect(FAILED, *self.CALL, says=["REGRESSION", "beyond what was approved", "by Ada"])
        # One more element than was approved.
        self.dump("b.h5", contract="hf_eager")
        written = json.loads((self.folder / "a.approved.json").read_text(encoding="utf-8"))
        for change in written["approvals"][0]["changes"]:
            for figure in change.get("figures", []):
                if figure["what"] == "changed elements":
                    figure["now"] -= 1
        self.write("a.approved.json", json.dumps(written))
        self.expect(SUSPECT, *self.CALL, says="hidden_states: ")
        # Approved again, it is covered, and the first decision is still there.
        self.approve()
        self.expect(PASSED, *self.CALL)
        self.assertEqual(len(json.loads((self.folder / "a.approved.json").read_text(encoding="utf-8"))["approvals"]), 2)

    def test_a_regression_of_reports_can_be_let_pass_for_a_time(self):
        self.dump("k.h5")
        self.expect(PASSED, "verify", "--fixture", "odd", "--pipeline", "dump:k.h5", "-q", "--json", "before.json")
        self.expect(PASSED, "mutate", "down_last_row_zero", "--fixture", "odd", "--dump", "k.h5")
        self.expect(FAILED, "verify", "--fixture", "odd", "--pipeline", "dump:k.h5", "-q", "--json", "after.json")
        call = ("regress", "--baseline", "before.json", "--candidate", "after.json", "--approvals", "ok.json")
        self.expect(FAILED, "regress", "--baseline", "before.json", "--candidate", "after.json")
        self.expect(PASSED, *call, "--approve", "--by", "Ada", "--why", "known, to be mended")
        self.expect(PASSED, *call, says="it fails now")
        self.expect(FAILED, "regress", "--baseline", "before.json", "--candidate", "after.json")
        # The same field, further off.
        report = json.loads((self.folder / "after.json").read_text(encoding="utf-8"))
        for field in report["cases"][0]["fields"]:
            if field["field"] == "second_gemm":
                field["isolated"]["max_ratio"] *= 1.01
        self.write("after.json", json.dumps(report))
        self.expect(FAILED, *call, says=["REGRESSION", "beyond what was approved"])

    def test_nothing_open_writes_nothing(self):
        self.dump("b.h5")
        self.approve()
        self.assertFalse((self.folder / "a.approved.json").exists())

    def test_a_call_that_does_not_say_why_or_who_is_refused(self):
        self.refuse(USAGE, *self.CALL, "--approve", says="--approve needs --why REASON")
        self.refuse(USAGE, *self.CALL, "--approve", "--why", " ", says="--approve needs --why REASON")
        self.refuse(USAGE, *self.CALL, "--why", "because", says="--why and --by belong to --approve")
        environment = {"PATH": "/nonexistent"}
        self.refuse(USAGE, *self.CALL, "--approve", "--why", "because", environment=environment, says="--approve needs --by NAME")
        self.expect(PASSED, *self.CALL, "--approve", "--why", "because", environment={**environment, "USER": "grace"}, says="approved by grace")
        self.refuse(USAGE, *self.CALL, "--approve", "--why", "because", "--approvals", "a.h5", says="would replace a.h5")

    def test_a_file_that_is_none_is_one_sentence_and_stays(self):
        self.refuse(COULD_NOT_JUDGE, *self.CALL, "--approvals", "none.json", says="cannot read none.json: it does not exist")
        for text, says in (
            ("{", 'a.approved.json: expected JSON with "schema": "assay-approvals"'),
            ('{"schema": "assay-approvals", "version": 2}', "expected version 1 of schema assay-approvals, found 2"),
            ('{"schema": "assay-approvals", "version": 1, "approvals": [{"by": "x"}]}', "expected a value at approvals[0].why, found none"),
            ('{"schema": "assay-approvals", "version": 1, "approvals": [{"by": "x", "why": "y", "when": "z", "changes": [{"severity": "fine", "sentence": "s"}]}]}',
             'expected a severity at approvals[0].changes[0].severity, found "fine"'),
        ):  # fmt: skip
            self.write("a.approved.json", text)
            self.refuse(COULD_NOT_JUDGE, *self.CALL, says=says)
            self.refuse(COULD_NOT_JUDGE, *self.CALL, "--approve", "--by", "a", "--why", "b", says=says)

    def test_a_full_disk_leaves_the_file_as_it_was(self):
        """Of reports: to read a dump takes a file of its own, which the limit would stop first."""
        judge = ("verify", "--fixture", "odd", "--pipeline", "dump:a.h5", "-q", "--json")
        self.expect(PASSED, *judge, "before.json")
        self.expect(PASSED, "mutate", "output_bit_flipped", "--fixture", "odd", "--dump", "a.h5")
        self.expect(FAILED, *judge, "after.json")
        self.write("before.approved.json", '{"schema": "assay-approvals", "version": 1, "approvals": []}')
        call = ("regress", "--baseline", "before.json", "--candidate", "after.json", "--approve", "--by", "Eve", "--why", "no room")
        before = (self.folder / "before.approved.json").read_bytes()
        self.refuse(COULD_NOT_JUDGE, *call, preexec_fn=limit_file_size(64), says="before.approved.json")
        self.assertEqual((self.folder / "before.approved.json").read_bytes(), before)
        self.expect(PASSED, *call)
        self.assertNotEqual((self.folder / "before.approved.json").read_bytes(), before)


if __name__ == "__main__":
    unittest.main()
