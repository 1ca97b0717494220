"""Shards and their merge, what is left out, where a run ends, and Markdown for a pull request."""

import json
import os
import re
import shlex
import subprocess
import unittest

from program import ASSAY, COULD_NOT_JUDGE, FAILED, NOTHING_COMPARED, PASSED, ROOT, SUSPECT, USAGE, ProgramTest, golden

EXAMPLES = ROOT / ".ci" / "examples"

FIXTURES = ("tiny", "odd", "ties", "one_token", "zeros")


def told(report):
    """A report without what is of a machine and a moment."""
    cases = json.loads(report)["cases"]
    for case in cases:
        case.pop("seconds")
    return cases


class Shards(ProgramTest):
    WORDS = ("verify", "--fixture", *FIXTURES, "--pipeline", "predicted", "reference_cpu", "-q")

    def merge(self, code, *files, says=()):
        self.expect(code, "merge", *files, "--json", "all.json", "-q", says=says)
        return told((self.folder / "all.json").read_text())

    def test_results_do_not_depend_on_the_sharding(self):
        self.expect(PASSED, *self.WORDS, "--json", "whole.json")
        whole = self.merge(PASSED, "whole.json")
        self.assertEqual(len(whole), 2 * len(FIXTURES))
        for of in (2, 3):
            files = [f"{index}.json" for index in range(1, of + 1)]
            for index, file in enumerate(files, 1):
                self.expect(PASSED, *self.WORDS, "--shard", f"{index}/{of}", "--json", file)
            self.assertEqual(self.merge(PASSED, *reversed(files)), whole)
        self.refuse(COULD_NOT_JUDGE, "merge", "1.json", "3.json", says="shard 2 of 3 is missing")
        self.refuse(COULD_NOT_JUDGE, "merge", "1.json", "1.json", "2.json", says="are both shard 1 of 3")
        self.refuse(COULD_NOT_JUDGE, "merge", "whole.json", "1.json", "2.json", "3.json", says="name each result once")

    def test_a_fault_in_one_shard_is_the_merge_s_verdict(self):
        self.expect(PASSED, "mutate", "output_bit_flipped", "--fixture", "odd", "--dump", "bad.h5")
        words = ("verify", "--golden", golden("odd.eager"), golden("odd.grouped_mm"), golden("tiny.eager"), "bad.h5", "-q")
        codes = [self.run_assay(*words, "--shard", f"{index}/2", "--json", f"{index}.json").returncode for index in (1, 2)]
        self.assertEqual(sorted(codes), [PASSED, FAILED])
        self.assertEqual(len(self.merge(FAILED, "1.json", "2.json")), 4)

    def test_a_shard_without_a_case_compares_nothing(self):
        self.expect(NOTHING_COMPARED, "verify", "--fixture", "tiny", "--pipeline", "predicted", "--shard", "2/2", "-q")

    def test_array_jobs_name_the_shard(self):
        for environment, cases in (
            ({"ASSAY_SHARD": "2/5"}, 2),
            ({"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "10", "SLURM_ARRAY_TASK_MIN": "0"}, 1),
            ({"CI_NODE_INDEX": "1", "CI_NODE_TOTAL": "1"}, 10),
        ):  # fmt: skip
            with self.subTest(environment=environment):
                done = self.expect(PASSED, *self.WORDS, "--shard", "auto", "--json", "-", environment=environment)
                self.assertEqual(len(json.loads(done.stdout)["cases"]), cases)
        self.refuse(USAGE, *self.WORDS, "--shard", "auto", says="name the share as --shard I/N")
        self.refuse(USAGE, *self.WORDS, "--shard", "auto", says="give the array no step", environment={"SLURM_ARRAY_TASK_ID": "12", "SLURM_ARRAY_TASK_COUNT": "3"})
        for wrong in ("0/2", "3/2", "x", "1/", "-1/2"):
            self.refuse(USAGE, *self.WORDS, "--shard", wrong, says="expected I/N with 1 <= I <= N, or auto")


class Examples(ProgramTest):
    """The scripts that the examples for continuous integration call, as those call them."""

    def script(self, name, *words, **environment):
        return subprocess.run([str(EXAMPLES / name), *words], cwd=self.folder, env={"PATH": os.environ["PATH"], "ASSAY": str(ASSAY), "OMP_NUM_THREADS": "2", **environment},
                              capture_output=True, encoding="utf-8", timeout=200, check=False)  # fmt: skip

    def merged(self, code, cases):
        done = self.script("merge.sh")
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        self.assertIn(cases, (self.folder / "comment.md").read_text())
        self.assertTrue((self.folder / "report.html").exists() and (self.folder / "junit.xml").exists())

    def test_a_matrix_of_jobs(self):
        for index in (1, 2, 3):
            done = self.script("shard.sh", "--golden", golden("odd.eager"), golden("tiny.eager"), ASSAY_SHARD=f"{index}/3")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.merged(PASSED, "2 cases: 2 passed")
        (self.folder / "results" / "2.json").unlink()
        self.assertEqual(self.script("merge.sh").returncode, COULD_NOT_JUDGE)

    def test_parallel_jobs_and_a_failure(self):
        self.expect(PASSED, "mutate", "output_bit_flipped", "--fixture", "odd", "--dump", "bad.h5")
        for index in ("1", "2"):
            done = self.script("shard.sh", "--golden", golden("odd.eager"), "bad.h5", CI_NODE_INDEX=index, CI_NODE_TOTAL="2")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.merged(FAILED, "2 cases: 1 FAILED, 1 passed")

    def test_an_array_job_names_what_exists(self):
        """What the array judges takes minutes: its words are read, not run."""
        words = shlex.split((EXAMPLES / "slurm.sh").read_text().split("shard.sh ")[-1])
        self.assertEqual(words[:4], ["--fixture", "*", "--exclude", "qwen3_235b*"])
        done = self.script("shard.sh", "--fixture", "tiny", "odd", "--pipeline", "predicted", SLURM_ARRAY_TASK_ID="8", SLURM_ARRAY_TASK_COUNT="8", SLURM_ARRAY_TASK_MIN="1")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_examples_call_scripts_that_are_there(self):
        for name in ("github.yml", "gitlab.yml", "slurm.sh"):
            called = re.findall(r"\.ci/examples/(\w+\.sh)", (EXAMPLES / name).read_text())
            self.assertIn("shard.sh", called)
            for script in called:
                self.assertTrue(os.access(EXAMPLES / script, os.X_OK), script)


class Choice(ProgramTest):
    def test_what_is_excluded_is_not_judged(self):
        done = self.expect(PASSED, "verify", "--fixture", "tiny", "odd", "ties", "--exclude", "o*", "--pipeline", "predicted", "--json", "-")
        self.assertEqual({case["problem"] for case in json.loads(done.stdout)["cases"]}, {"ties", "tiny"})
        done = self.expect(PASSED, "verify", "--golden", golden("odd.eager"), golden("odd.grouped_mm"), "--exclude", "*.eager.h5", "--json", "-")
        self.assertEqual(len(json.loads(done.stdout)["cases"]), 1)
        self.refuse(USAGE, "verify", "--fixture", "tiny", "--exclude", "t*", "--pipeline", "predicted", says="--exclude leaves no problem to judge")

    def test_several_stages_are_judged_and_the_others_not(self):
        case = self.report("verify", "--golden", golden("odd.eager"), "--stage", "GateUp", "hidden_states")["cases"][0]
        judged = {field["field"] for field in case["fields"] if field["verdict"] == "Passed"}
        self.assertEqual(judged, {"first_gemm", "hidden_states"})
        self.assertIn("--stage GateUp hidden_states", case["replay"])

    def test_the_first_failure_ends_the_run_where_that_is_asked_for(self):
        self.expect(PASSED, "mutate", "output_bit_flipped", "--fixture", "odd", "--dump", "bad.h5")
        words = ("verify", "--golden", golden("odd.eager"), "--pipeline", "dump:bad.h5", "predicted", "reference_cpu")
        self.assertEqual(len(self.report(*words, code=FAILED)["cases"]), 3)
        cases = self.report(*words, "--fail-fast", code=FAILED)["cases"]
        self.assertEqual(len(cases), 1)
        self.assertIn("--fail-fast: the run ended here; 2 of its 3 cases were not run", cases[0]["remarks"])
        self.assertEqual(len(self.report(*words, "--fail-fast", "--exclude", "nothing", code=FAILED)["cases"]), 1)


class Markdown(ProgramTest):
    def test_a_run_as_a_comment(self):
        self.expect(PASSED, "mutate", "output_bit_flipped", "--fixture", "odd", "--dump", "bad.h5")
        self.expect(FAILED, "verify", "--golden", golden("odd.grouped_mm"), "--pipeline", "dump:bad.h5", "predicted", "--markdown", "r.md")
        text = (self.folder / "r.md").read_text()
        self.assertTrue(text.startswith("### ✘ assay: 2 cases: 1 FAILED, 1 passed\n"), text)
        self.assertIn("hidden\\_states is the first stage with an error of its own", text)
        self.assertIn("<details><summary>passed</summary>", text)
        self.assertEqual(text.count("<details>"), text.count("</details>"))

    def test_a_change_as_a_comment(self):
        self.dump("a.h5")
        self.dump("b.h5", contract="hf_eager")
        self.expect(SUSPECT, "regress", "--baseline", "a.h5", "--candidate", "b.h5", "--markdown", "c.md")
        text = (self.folder / "c.md").read_text()
        self.assertTrue(text.startswith("### ~ assay regress: legal change\n"), text)
        self.assertIn("- ~ legal change: ", text)
        self.assertIn("<details><summary>what is the same</summary>", text)


if __name__ == "__main__":
    unittest.main()
