"""diff: where two candidates part first, whether both are legal, what separates them, who is nearer to float64."""

import json
import unittest

from program import COULD_NOT_JUDGE, FAILED, PASSED, ROOT, SUSPECT, USAGE, ProgramTest, golden

RECORDED = ROOT / "golden" / "recorded"


class Diff(ProgramTest):
    def diff(self, code, a, b, says=(), *more):
        return self.expect(code, "diff", a, b, *more, says=says)

    def found(self, code, a, b):
        return json.loads(self.diff(code, a, b, (), "--json", "-").stdout)

    def test_huggingface_s_two_implementations_part_at_the_merge(self):
        for name, fields in (("odd", {"hidden_states", "d_experts_hidden_states", "d_input_hidden_states"}), ("tiny", None)):
            with self.subTest(golden=name):
                a, b = golden(f"{name}.grouped_mm"), golden(f"{name}.eager")
                self.diff(SUSPECT, a, b, ["A and B part first at hidden_states: ", "both are legal, A under hf, B under hf_eager",
                                          "in A slots are summed in fp32, where B adds them in bf16 by ascending expert",
                                          "A is nearer to float64 there", "tokens take the same experts"])
                found = self.found(SUSPECT, a, b)
                self.assertEqual((found["schema"], found["first"]), ("assay-diff", "hidden_states"))
                self.assertEqual([found[side]["legal_under"] for side in "ab"], [["hf"], ["hf_eager"]])
                if fields:
                    self.assertEqual({field["field"] for field in found["fields"] if field["differing"]}, fields)
                self.assertEqual(found["judged"]["schema"], "assay-report")
                # The other way round, the other side is the nearer.
                self.diff(SUSPECT, b, a, ["A under hf_eager, B under hf", "in A slots are added in bf16 by ascending expert, where B sums them in fp32",
                                          "B is nearer to float64 there"])

    def test_equal_ones_do_not_part(self):
        self.diff(PASSED, golden("odd.grouped_mm"), golden("odd.grouped_mm"), ["A and B are bit for bit the same in 21 fields", "both are legal under hf"])
        self.diff(PASSED, golden("odd.grouped_mm"), RECORDED / "gpu_fused_odd.h5", ["bit for bit the same in 20 fields", "both are legal under hf"])

    def test_a_planted_fault_is_that_side_s(self):
        self.dump("good.h5")
        for fault, field, cause in (("second_gemm_bit_flipped", "second_gemm", "bit 5 of one element is flipped"),
                                    ("gate_and_up_swapped", "intermediate", "gate and up halves are exchanged"),
                                    ("output_bit_flipped", "hidden_states", "bit 3 of one element is flipped")):  # fmt: skip
            with self.subTest(fault):
                self.expect(PASSED, "mutate", fault, "--fixture", "odd", "--dump", "bad.h5")
                self.diff(FAILED, "good.h5", "bad.h5", [f"A and B part first at {field}: ", "A is legal under hf", "B is not legal", cause, "A is nearer to float64"])
                self.diff(FAILED, "bad.h5", "good.h5", ["A is not legal", cause, "B is legal under hf"])
        # Both with the same fault: no bit differs, and neither is legal.
        self.diff(FAILED, "bad.h5", "bad.h5", ["bit for bit the same", "A is not legal", "B is not legal"])

    def test_one_rounding_point_is_named(self):
        self.dump("hf.h5")
        for contract, says in (("fused_fp32", "what SwiGLU reads of first_gemm is rounded to bf16, which B does not do"),
                               ("hf_fp32_merge", "in A weight times value is rounded to bf16, which B does not do")):  # fmt: skip
            with self.subTest(contract):
                self.dump("other.h5", contract=contract)
                self.diff(SUSPECT, "hf.h5", "other.h5", ["both are legal", contract, says])

    def test_other_projects_layers_part_where_the_first_field_tells(self):
        done = self.diff(SUSPECT, RECORDED / "unsloth_rows.h5", RECORDED / "liger_rows.h5",
                         ["A and B part first at intermediate: ", "both are legal, A under unsloth, B under fused_fp32", "in A silu is rounded to bf16, which B does not do",
                          "B is nearer to float64 there", "other fields: in A weight times value is rounded to bf16"])  # fmt: skip
        sentence = self.found(SUSPECT, RECORDED / "unsloth_rows.h5", RECORDED / "liger_rows.h5")["sentence"]
        self.assertNotIn("weight times value", sentence)
        self.assertNotIn("d_intermediate", done.stdout[:done.stdout.index("other fields:")].split("A: ")[0])

    def test_the_page_and_the_json_say_the_same(self):
        self.diff(SUSPECT, golden("odd.grouped_mm"), golden("odd.eager"), "Report: d.html", "--html", "d.html", "--json", "d.json")
        page = (self.folder / "d.html").read_text()
        found = json.loads((self.folder / "d.json").read_text())
        self.assertIn(found["sentence"], page)
        self.assertIn("They part first at hidden_states", page)
        self.assertNotIn("<script", page)
        self.assertEqual(found["routing"]["same_sets"], 13)

    def test_a_comment_says_what_the_terminal_says(self):
        self.diff(SUSPECT, golden("odd.grouped_mm"), golden("odd.eager"), (), "--markdown", "d.md", "-q")
        text = (self.folder / "d.md").read_text()
        self.assertTrue(text.startswith("### ~ assay diff: they part first at hidden\\_states\n\nA and B part first at hidden\\_states: "), text)
        self.assertRegex(text, r"\n- A: `.*odd\.grouped_mm\.h5` \(.*\), legal under hf\n- B: `.*odd\.eager\.h5` \(.*\), legal under hf\\_eager\n")
        self.assertIn("| ≠ | hidden\\_states | 936 |", text)
        self.assertIn("<details><summary>fields that do not part</summary>", text)
        self.assertEqual(text.count("<details>"), text.count("</details>"))
        self.assertTrue(text.endswith(f"`assay diff {golden('odd.grouped_mm')} {golden('odd.eager')} --markdown d.md -q`\n"), text)

    def test_what_is_read_is_not_replaced(self):
        self.dump("a.h5")
        for option in ("--markdown", "--html", "--json"):
            self.refuse(USAGE, "diff", "a.h5", golden("odd.eager"), option, "a.h5", says=f"{option} a.h5 would replace a.h5, which this command reads")

    def test_different_problems_are_one_sentence(self):
        says = "A and B are of different problems"
        self.refuse(COULD_NOT_JUDGE, "diff", golden("odd.eager"), golden("tiny.eager"), says=[says, "hidden_size"])
        self.dump("a.h5", fixture="hot_expert")
        self.dump("b.h5", fixture="empty_experts")
        done = self.refuse(COULD_NOT_JUDGE, "diff", "a.h5", "b.h5", says=says)
        self.assertEqual(len(done.stderr.splitlines()), 1)
        self.refuse(COULD_NOT_JUDGE, "diff", "a.h5", "none.h5", says="none.h5")
        self.refuse(USAGE, "diff", "a.h5", says="B")


if __name__ == "__main__":
    unittest.main()
