"""Plugins whose experts' rows begin at multiples of a number: judged as if there were nothing between them."""

import os
import pathlib
import unittest

from program import COULD_NOT_JUDGE, FAILED, PASSED, ProgramTest

PLUGINS = pathlib.Path(os.environ["ASSAY_PLUGINS"])
PADDED, EXAMPLE = PLUGINS / "plugin_padded.so", PLUGINS / "plugin_example.so"
BACKWARD = ("--backward",)


class PaddedPlugin(ProgramTest):
    def case(self, code, fault, *words, problem="tiny", plugin=PADDED):
        return self.report("verify", "--fixture", problem, "--pipeline", f"plugin:{plugin}", *words, code=code, environment={"ASSAY_PLUGIN_FAULT": fault})["cases"][0]

    def refused(self, fault, says):
        self.expect(COULD_NOT_JUDGE, "verify", "--fixture", "tiny", "--pipeline", f"plugin:{PADDED}", says=says, environment={"ASSAY_PLUGIN_FAULT": fault})

    def verdicts(self, case):
        return {field["field"]: field["verdict"] for field in case["fields"]}

    def test_every_field_is_judged_as_without_padding(self):
        for problem in ("tiny", "odd", "hot_expert", "empty_experts", "one_token", "no_tokens"):
            with self.subTest(fixture=problem):
                padded, whole = self.case(PASSED, "", *BACKWARD, problem=problem), self.case(PASSED, "", *BACKWARD, problem=problem, plugin=EXAMPLE)
                self.assertEqual(padded["fields"], whole["fields"])
                self.assertEqual(padded["producer"], "padded plain C")

    def test_the_padding_is_counted_and_the_runs_are_compared_without_it(self):
        for fault in ("", "garbage"):
            with self.subTest(fault=fault):
                case = self.case(PASSED, fault, *BACKWARD)
                self.assertEqual(case["verdict"], "Passed")
                remarks = " ".join(case["remarks"])
                self.assertIn("ran on the problem twice, backward twice behind the first forward: the same bytes", remarks)
                self.assertIn("row_alignment 8: 56 of 104 rows in expert order are padding, which is not judged", remarks)

    def test_the_counts_alone_say_where_rows_begin(self):
        self.assertEqual(self.case(PASSED, "counts alone")["verdict"], "Passed")

    def test_its_rows_may_come_in_any_order_too(self):
        self.assertEqual(self.case(PASSED, "rows in any order, too")["verdict"], "Passed")

    def test_a_dump_has_no_padding(self):
        self.case(PASSED, "garbage", "--dump", "mine.h5")
        self.expect(PASSED, "verify", "--golden", "mine.h5")

    def test_rows_elsewhere_fail(self):
        for fault, field in {"moved rows": "second_gemm", "other alignment": "gather_indices"}.items():
            with self.subTest(fault=fault):
                verdicts = self.verdicts(self.case(FAILED, fault))
                self.assertNotIn(verdicts[field], ("Passed", "Suspect"))
                self.assertEqual(verdicts["hidden_states"], "Passed")
        verdicts = self.verdicts(self.case(FAILED, "gradient's moved rows", *BACKWARD))
        self.assertNotIn(verdicts["d_first_gemm"], ("Passed", "Suspect"))
        self.assertEqual(verdicts["first_gemm"], "Passed")

    def test_a_write_behind_the_room_is_told(self):
        for fault, says in {
            "behind the room": "expected the memory behind second_gemm to be left alone, found byte 0 behind it overwritten",
            "not declared": "expected the memory behind gather_indices to be left alone",
        }.items():
            with self.subTest(fault=fault):
                self.assertIn(says, self.case(FAILED, fault)["headline"])

    def test_where_no_field_says_how_many_rows_there_are_they_are_not_read(self):
        case = self.case(FAILED, "no such expert", *BACKWARD)
        verdicts = self.verdicts(case)
        for field in ("gather_indices", "first_gemm", "intermediate", "second_gemm", "d_first_gemm"):
            self.assertEqual(verdicts[field], "WrongShape", field)
        self.assertIn("selected_experts", case["headline"])
        self.assertIn("neither selected_experts nor token_counts_by_expert says how many rows an expert has", str(case["fields"]))

    def test_what_it_declares_wrongly_is_refused(self):
        for fault, says in {
            "zero": "declares what assay does not know: row_alignment=0; expected a number in 1 to 65536",
            "negative": "row_alignment=-8; expected a number in 1 to 65536",
            "too large": "row_alignment=65537; expected a number in 1 to 65536",
            "no number": "row_alignment=8x; expected a number in 1 to 65536",
            "unknown word": "'rows_aligned' behind its ties; valid: rows_any, row_alignment=N",
            "no ties": "unknown tie rule 'row_alignment=8'",
            "no counts": "declares row_alignment=8: expected it to list selected_experts or token_counts_by_expert, which say where rows begin, found neither",
        }.items():
            with self.subTest(fault=fault):
                self.refused(fault, says)


if __name__ == "__main__":
    unittest.main()
