"""golden make, check and list; inspect; report; list: what the other commands write and print."""

import hashlib
import json
import subprocess
import sys
import unittest
import xml.etree.ElementTree

from program import COULD_NOT_JUDGE, FAILED, FORWARD, GOLDENS, PASSED, ROOT, SUSPECT, USAGE, ProgramTest, golden

IMPLEMENTATIONS = (("grouped_mm", "hf"), ("eager", "hf_eager"))


class Predicted(ProgramTest):
    def test_a_prediction_equals_the_recorded_run_bit_for_bit(self):
        """The claim of the project: what an H200 computed is known from the inputs alone."""
        self.expect(PASSED, "golden", "make", "--predicted", "--fixture", "odd", "tiny", says="undetermined elements: none")
        self.assertEqual(len(self.listing()), 4)
        for fixture in ("odd", "tiny"):
            for implementation, _ in IMPLEMENTATIONS:
                name = f"{fixture}.{implementation}"
                with self.subTest(name):
                    # The recording has gradients too, and names its accumulators otherwise: legal changes.
                    done = self.expect(SUSPECT, "regress", "--baseline", f"{name}.predicted.h5", "--candidate", golden(name),
                                       says="are bit for bit the same: " + ", ".join(FORWARD))  # fmt: skip
                    self.assertNotRegex(done.stdout, "REGRESSION|elements changed")

    def test_a_prediction_names_itself_and_is_no_golden(self):
        self.expect(PASSED, "golden", "make", "--predicted", "--fixture", "odd", "--implementation", "eager", "--out", ".")
        self.expect(PASSED, "inspect", "odd.eager.predicted.h5", says=["kind = predicted", "contract = hf_eager", "undetermined", "content hash: ok"])

    def test_the_exporter_needs_a_python_and_says_so(self):
        self.refuse(COULD_NOT_JUDGE, "golden", "make", "--fixture", "odd", says=["could not run '/nonexistent/python'", "ASSAY_PYTHON"])

    def test_the_writer_of_dumps_says_what_its_python_lacks(self):
        script = f"import sys; sys.path.insert(0, {str(ROOT / 'golden' / 'python')!r}); from assay_golden import Candidate"
        done = subprocess.run([sys.executable, "-I", "-S", "-B", "-c", script], capture_output=True, encoding="utf-8", check=False)
        self.assertIn("ImportError: assay_golden needs numpy and h5py, found no numpy: python3 -m pip install numpy h5py", done.stderr)


class Goldens(ProgramTest):
    SMALL = [golden(f"{fixture}.{implementation}") for fixture in ("odd", "tiny", "rows", "one_choice") for implementation, _ in IMPLEMENTATIONS]

    def test_every_small_golden_holds_its_hashes_its_intervals_and_its_oracle(self):
        report = json.loads(self.expect(PASSED, "golden", "check", *self.SMALL, "--json", "-").stdout)
        self.assertEqual({case["verdict"] for case in report["cases"]}, {"Passed"})
        oracles = [case for case in report["cases"] if case["candidate"].endswith("/oracle")]
        self.assertEqual(len(oracles), len(self.SMALL))
        for oracle in oracles:
            self.assertEqual(oracle["contract"], "fp64")
            self.assertGreaterEqual(sum(field["verdict"] == "Passed" for field in oracle["fields"]), 7)

    def test_a_list_shows_every_golden(self):
        lines = self.expect(PASSED, "golden", "list", GOLDENS).stdout.splitlines()
        self.assertEqual(len(lines), len(list(GOLDENS.glob("*.h5"))))
        for fixture in ("odd", "tiny"):
            for implementation, contract in IMPLEMENTATIONS:
                line = next(line for line in lines if f"{fixture}.{implementation}.h5" in line)
                for word in ("golden", f"huggingface {implementation}", contract, "NVIDIA H200", "tokens"):
                    self.assertIn(word, line)

    def test_a_list_tells_of_a_file_that_is_none(self):
        self.write("bad.h5", "a text")
        self.expect(COULD_NOT_JUDGE, "golden", "list", self.folder, says=["bad.h5", "HDF5"])
        self.expect(COULD_NOT_JUDGE, "golden", "list", "no_folder", says="no_folder: No such file or directory")

    def test_inspect_shows_every_field_with_its_hash_checked(self):
        text = self.expect(PASSED, "inspect", golden("odd.eager"), says="content hash: ok").stdout
        for field in FORWARD:
            self.assertRegex(text, rf"/forward/{field}  (bfloat16|int32) \[.*nan 0, inf 0, hash ok")
        for attribute in ("kind = golden", "contract = hf_eager", "schema_version = 1.", "device = NVIDIA H200", "provenance = {"):
            self.assertIn(attribute, text)


class Reports(ProgramTest):
    def test_two_results_become_one_page(self):
        self.expect(PASSED, "verify", "--golden", golden("odd.eager"), "-q", "--json", "a.json")
        self.expect(FAILED, "verify", "--golden", golden("tiny.eager"), "--contract", "hf", "-q", "--json", "b.json")
        done = self.expect(FAILED, "report", "a.json", "b.json", "--html", "r.html", "--junit", "r.xml", "--json", "r.json", says=["odd", "tiny", "FAILED"])
        self.assertEqual(done.stderr, "")
        merged, single = (json.loads((self.folder / name).read_text(encoding="utf-8")) for name in ("r.json", "a.json"))
        self.assertEqual([case["problem"] for case in merged["cases"]], ["odd", "tiny"])
        self.assertEqual(merged["cases"][0], single["cases"][0])
        self.assertEqual(int(xml.etree.ElementTree.parse(self.folder / "r.xml").getroot().get("failures")), 3)
        page = (self.folder / "r.html").read_text(encoding="utf-8")
        self.assertTrue("odd" in page and "tiny" in page)
        self.expect(PASSED, "report", "a.json", "-q")

    def test_a_page_with_a_history_says_what_changed_since(self):
        (self.folder / "earlier").mkdir()
        self.expect(PASSED, "verify", "--golden", golden("odd.eager"), "-q", "--json", "earlier/a.json")
        self.expect(FAILED, "verify", "--golden", golden("odd.eager"), "--contract", "hf", "-q", "--json", "b.json")
        self.expect(FAILED, "report", "b.json", "--history", "earlier", "--html", "r.html", "-q")
        self.assertIn("it fails now", (self.folder / "r.html").read_text(encoding="utf-8"))
        self.expect(COULD_NOT_JUDGE, "report", "b.json", "--history", "nowhere", says="nowhere: No such file or directory")

    def test_a_history_is_told_field_by_field_oldest_first(self):
        (self.folder / "earlier").mkdir()
        self.expect(PASSED, "verify", "--golden", golden("odd.eager"), "-q", "--json", "r.json")
        report = json.loads((self.folder / "r.json").read_text(encoding="utf-8"))
        for name, created, ratio in (("b", "2026-01-02T10:00:00Z", 0.75), ("a", "2026-01-01T10:00:00Z", 0.25)):
            report["created"] = created
            for field in report["cases"][0]["fields"]:
                if field["field"] == "hidden_states":
                    field["isolated"]["max_ratio"] = field["chained"]["max_ratio"] = ratio
            self.write(f"earlier/{name}.json", json.dumps(report))
        self.expect(FAILED, "verify", "--golden", golden("odd.eager"), "--contract", "hf", "-q", "--json", "earlier/now.json")
        # What regress approved is no report, and a report is not its own history.
        self.write("earlier/a.approved.json", "{}")
        done = self.expect(FAILED, "report", "earlier/now.json", "--history", "earlier", "--html", "r.html", says=": 3 reports")
        self.assertRegex(done.stdout, r"field +2026-01-01T10:00 +2026-01-02T10:00 +20\d\d-\d\d-\d\dT\d\d:\d\d\n")
        self.assertRegex(done.stdout, r"\n  hidden_states +✔ 0\.250 +✔ 0\.750 +✘ [\d.,e+]+\n")
        self.assertRegex(done.stdout, r"\n  the case +✔ passed +✔ passed +✘ FAILED\n")
        self.assertRegex(done.stdout, r"\n  verified in( +[\d.]+ m?s){3}\n")
        self.assertRegex(done.stdout, r"hidden_states: FAILED since 20\S+Z, passed before")
        page = (self.folder / "r.html").read_text(encoding="utf-8")
        self.assertIn("field by field in 3 reports", page)


class Lists(ProgramTest):
    KINDS = ("fields", "stages", "fixtures", "pipelines", "contracts", "faults")

    def test_every_kind_is_text_and_json_of_the_same_things(self):
        for kind in self.KINDS:
            lines = self.expect(PASSED, "list", kind).stdout.splitlines()
            rows = json.loads(self.expect(PASSED, "list", kind, "--json").stdout)
            rows = rows["fixtures"] if kind == "fixtures" else rows
            self.assertEqual(len(lines), len(rows) + 1, kind)
            for line, row in zip(lines[1:], rows):
                self.assertEqual(line.split()[0], row["name"] if kind == "fixtures" else row[kind.rstrip("s")])

    def test_the_fields_are_those_of_the_files(self):
        names = [row["field"] for row in json.loads(self.expect(PASSED, "list", "fields", "--json").stdout) if row["group"] == "forward"]
        self.assertEqual(names, list(FORWARD))

    def test_hashes_are_those_of_the_files(self):
        self.dump("a.h5", fixture="odd")
        text = self.expect(PASSED, "inspect", "a.h5").stdout
        lines = dict(line.rsplit(" ", 1) for line in self.expect(PASSED, "list", "hashes", "--fixture", "odd").stdout.splitlines())
        self.assertEqual(len(lines), 3 + 2 * 7)
        for name in ("input_hidden_states", "gate", "gate_up_proj[0]", "down_proj[0]"):
            self.assertIn(lines[f"odd {name}"], text)

    def test_hashes_of_known_bytes(self):
        """An input of zeros: 8 tokens of 64 elements of 2 bytes."""
        self.expect(PASSED, "list", "hashes", "--fixture", "zeros", "--expert", "7",
                    says=["zeros input_hidden_states " + hashlib.sha256(bytes(8 * 64 * 2)).hexdigest(), "zeros gate_up_proj[7] "])  # fmt: skip
        self.refuse(USAGE, "list", "hashes", "--fixture", "zeros", "--expert", "8", says="zeros has experts 0 to 7, found --expert 8", stdout=-1)


class Mutants(ProgramTest):
    def test_planted_faults_are_found_in_their_stage(self):
        done = self.expect(PASSED, "mutate", "output_bit_flipped", "gate_and_up_swapped", "-v", says="4 faults planted, 4 killed, 4 in the right stage")
        self.assertIn("intermediate is the first stage with an error of its own", " ".join(done.stdout.split()))


if __name__ == "__main__":
    unittest.main()
