"""mutate: what it prints and writes, and that harness/SENSITIVITY.md is what it says today."""

import json
import unittest

from program import FAILED, PASSED, ROOT, USAGE, ProgramTest

RECORDED = ROOT / "golden" / "recorded"


class Score(ProgramTest):
    def test_each_fault_has_its_detectors_its_hint_and_the_rules_that_accept_it(self):
        self.expect(PASSED, "mutate", "output_bit_flipped", "--fixture", "odd", "--json", "m.json",
                    says=["kill score 1 of 1 (100.0 %)", "interval, isolated", "on the final output"])  # fmt: skip
        score = json.loads((self.folder / "m.json").read_text())
        self.assertEqual(score["totals"]["killed"], 1)
        (mutation,) = score["mutations"]
        self.assertEqual((mutation["outcome"], mutation["expected_stage"]), ("killed", "hidden_states"))
        self.assertIn("predicted_bits", mutation["declared"]["killed_by"])
        self.assertNotIn("predicted_bits", mutation["undeclared"]["killed_by"])
        self.assertEqual(mutation["rivals"]["cosine_0.997"], "accepts")

    def test_a_fault_that_its_problem_does_not_reach_fails_the_run(self):
        self.expect(FAILED, "mutate", "silu_overflows", "--fixture", "zeros", says=["UNREACHED", "no bit of any field changes"])

    def test_correct_runs_and_curves_are_counted(self):
        self.expect(PASSED, "mutate", "--correct", "1", "--seed", "7", "--json", "c.json", says="18 correct runs (1 seeds x 6 orders of summation x 3 contracts)")
        correct = json.loads((self.folder / "c.json").read_text())
        self.assertEqual((correct["alarms"], correct["judgements_without_elements"]), (0, 0))
        self.expect(PASSED, "mutate", "--curves", "1", "--family", "output_flip", "--json", "d.json", says="bit n of one element of the output is flipped")
        self.expect(PASSED, "mutate", "relu", "--fixture", "odd", "-q", "--html", "s.html", "--markdown", "s.md", "--evidence", "c.json", "d.json")
        self.assertIn("0 in 33 judgements of 18 correct runs", (self.folder / "s.md").read_text())
        self.assertIn("bit n of one element", (self.folder / "s.html").read_text())

    def test_options_that_make_no_sense_are_refused(self):
        self.refuse(USAGE, "mutate", "--curves", "1", "--family", "nope", says="unknown family 'nope'; valid: output_scale, down_zeros")
        self.refuse(USAGE, "mutate", "--family", "output_flip", says="--family requires --curves")
        self.refuse(USAGE, "mutate", "--correct", "0", says="--correct: Value 0 not in range")
        self.refuse(USAGE, "mutate", "--contract", "nope", says="unknown contract 'nope'")


class Document(ProgramTest):
    def test_the_document_is_what_the_program_says(self):
        evidence = [RECORDED / "detection_curves.json", RECORDED / "false_alarms.json"]
        self.expect(PASSED, "mutate", "-q", "--markdown", "s.md", "--evidence", *evidence)
        said, committed = (self.folder / "s.md").read_text().splitlines(), (ROOT / "harness" / "SENSITIVITY.md").read_text().splitlines()
        self.assertEqual(said, committed, "write it anew: assay mutate --markdown harness/SENSITIVITY.md --evidence golden/recorded/detection_curves.json golden/recorded/false_alarms.json")

    def test_the_recorded_evidence_is_what_must_be_shown(self):
        correct = json.loads((RECORDED / "false_alarms.json").read_text())
        self.assertGreaterEqual(correct["seeds"], 1000)
        self.assertGreaterEqual(len(correct["orders"]), 5)
        self.assertEqual((correct["alarms"], correct["judgements_without_elements"]), (0, 0))
        curves = json.loads((RECORDED / "detection_curves.json").read_text())["curves"]
        self.assertGreaterEqual(len(curves), 4)


if __name__ == "__main__":
    unittest.main()
