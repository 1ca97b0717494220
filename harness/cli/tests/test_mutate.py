"""mutate: what it prints and writes, and that harness/SENSITIVITY.md is what it says today."""

import json
import re
import shutil
import unittest

from program import COULD_NOT_JUDGE, FAILED, PASSED, ROOT, USAGE, ProgramTest

EVIDENCE = ["detection_curves.json", "false_alarms.json", "mutate_contracts.json", "mutate_sums.json", "mutate_full_width.json"]
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

    def test_a_dump_holds_the_input_that_its_fault_needs(self):
        for fault, field in (("swiglu_swallows_nan", "intermediate"), ("output_clamped", "hidden_states"), ("d_input_swallows_nan", "d_input_hidden_states")):
            self.expect(PASSED, "mutate", fault, "--fixture", "odd", "--dump", "mine.h5")
            self.expect(FAILED, "verify", "--golden", "mine.h5", says=f"{field} is the first stage with an error of its own")
            self.expect(COULD_NOT_JUDGE, "verify", "--fixture", "odd", "--pipeline", "dump:mine.h5", says="another input_hidden_states")

    def test_correct_runs_and_curves_are_counted(self):
        contracts = len(json.loads(self.expect(PASSED, "list", "contracts", "--json").stdout)) - 1  # all but the oracle's
        runs = f"{6 * contracts} correct runs"
        self.expect(PASSED, "mutate", "--correct", "1", "--seed", "7", "--json", "c.json", says=f"{runs} (1 seed x 6 orders of summation x {contracts} contracts)")
        correct = json.loads((self.folder / "c.json").read_text())
        self.assertEqual((correct["alarms"], correct["judgements_without_elements"]), (0, 0))
        self.expect(PASSED, "mutate", "--correct", "1", "--seed", "9", "--json", "e.json")
        self.expect(PASSED, "mutate", "--merge", "e.json", "c.json", "--json", "m.json", says=f"{2 * 6 * contracts} correct runs (2 seeds")
        merged = json.loads((self.folder / "m.json").read_text())
        self.assertEqual(merged["seed_ranges"], [{"first": 7, "count": 1}, {"first": 9, "count": 1}])
        self.refuse(COULD_NOT_JUDGE, "mutate", "--merge", "c.json", "c.json", says="seed 7 is counted twice")
        (self.folder / "shards").mkdir()
        self.refuse(COULD_NOT_JUDGE, "mutate", "--merge", "shards", says="no JSON file in it")
        for name in ("c.json", "e.json"):
            shutil.copy(self.folder / name, self.folder / "shards" / name)
        self.expect(PASSED, "mutate", "--merge", "shards", says=f"{2 * 6 * contracts} correct runs (2 seeds")
        self.expect(PASSED, "mutate", "--curves", "1", "--family", "output_flip", "--json", "d.json", says="bit n of one element of the output is flipped")
        self.expect(PASSED, "mutate", "relu", "--fixture", "odd", "-q", "--html", "s.html", "--markdown", "s.md", "--evidence", "c.json", "d.json")
        self.assertIn(f"0 in {11 * contracts} judgements of {runs}", (self.folder / "s.md").read_text())
        self.assertIn("bit n of one element", (self.folder / "s.html").read_text())

    def test_scores_by_contract_are_written_and_shown(self):
        self.expect(PASSED, "mutate", "silu_unrounded", "relu", "--fixture", "odd", "--contract", "fused_fp32", "--contract", "hf_eager", "--scores", "s.json")
        fused, eager = json.loads((self.folder / "s.json").read_text())["scores"]
        self.assertEqual((fused["contract"], fused["planted"], fused["equivalent"], fused["scored"], fused["killed"]), ("fused_fp32", 2, 1, 1, 1))
        self.assertEqual((eager["contract"], eager["equivalent"], eager["killed"]), ("hf_eager", 0, 2))
        self.expect(PASSED, "mutate", "relu", "--fixture", "odd", "-q", "--markdown", "s.md", "--evidence", "s.json")
        self.assertIn("| fused_fp32 | small ones | 2, 1 legal | 1 of 1 (100.00 %) |", (self.folder / "s.md").read_text())
        (self.folder / "t.json").write_text('{"scores": [{}]}')
        self.refuse(COULD_NOT_JUDGE, "mutate", "relu", "--fixture", "odd", "-q", "--markdown", "s.md", "--evidence", "t.json", says="expected scores as assay mutate --scores writes them")

    def test_options_that_make_no_sense_are_refused(self):
        self.refuse(USAGE, "mutate", "--curves", "1", "--family", "nope", says="unknown family 'nope'; valid: output_scale, down_zeros")
        self.refuse(USAGE, "mutate", "--family", "output_flip", says="--family requires --curves")
        self.refuse(USAGE, "mutate", "--correct", "0", says="--correct: Value 0 not in range")
        self.refuse(USAGE, "mutate", "--contract", "nope", says="unknown contract 'nope'")


class Document(ProgramTest):
    def test_the_document_is_what_the_program_says(self):
        evidence = [RECORDED / name for name in EVIDENCE]
        self.expect(PASSED, "mutate", "-q", "--markdown", "s.md", "--evidence", *evidence)
        said, committed = (self.folder / "s.md").read_text().splitlines(), (ROOT / "harness" / "SENSITIVITY.md").read_text().splitlines()
        self.assertEqual(said, committed, "write it anew, by the command it begins with")

    def test_the_readme_has_the_documents_totals(self):
        document, readme = (ROOT / "harness" / "SENSITIVITY.md").read_text(), (ROOT / "README.md").read_text()
        faults, planted = re.search(r"^\| faults \| (\d+), planted (\d+) times \|$", document, re.M).groups()
        killed = re.search(r"^\| killed \| (\d+) of \1 ", document, re.M).group(1)
        backward = sum(fault["shows in"].startswith("d_") for fault in json.loads(self.expect(PASSED, "list", "faults", "--json").stdout))
        self.assertIn(f"plants {faults} faults, {backward} of them in the backward pass, in {planted} places: all {killed} that are not legal are found", readme)

    def test_the_recorded_evidence_is_what_must_be_shown(self):
        correct = json.loads((RECORDED / "false_alarms.json").read_text())
        self.assertGreaterEqual(correct["seeds"], 1000)
        self.assertGreaterEqual(len(correct["orders"]), 5)
        self.assertEqual((correct["alarms"], correct["judgements_without_elements"]), (0, 0))
        curves = json.loads((RECORDED / "detection_curves.json").read_text())["curves"]
        self.assertGreaterEqual(len(curves), 4)
        scores = [row for name in EVIDENCE[2:] for row in json.loads((RECORDED / name).read_text())["scores"]]
        contracts = [row["contract"] for row in json.loads(self.expect(PASSED, "list", "contracts", "--json").stdout)]
        kernels = contracts[1:-1]  # all but hf, which the document is of, and the oracle's
        self.assertEqual([(row["contract"], row["problems"]) for row in scores],
                         [(contract, "small ones") for contract in kernels] + [("hf", f"small ones, sums {sums}") for sums in ("float64", "pairwise", "split_k")]
                         + [("hf", "qwen3_30b_a3b, 4 tokens")])  # fmt: skip
        for row in scores:
            self.assertEqual((row["unreached"], row["killed"], row["right_stage"]), (0, row["scored"], row["scored"]))
            self.assertGreaterEqual(10 * row["hints_right"], 9 * row["hints_expected"], row)


if __name__ == "__main__":
    unittest.main()
