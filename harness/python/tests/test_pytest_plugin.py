"""The plug-in as its users see it: pytest in a process of its own, on test files written here."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]

TESTS = """
import assay
from numpy_layer import forward

SCALE = {scale}

@assay.layer_problems("odd", "one_tok*")
def test_honest(problem):
    assay.assert_layer(forward, problem)

@assay.layer_problems("odd")
def test_mine(problem):
    fields = forward(problem)
    assay.assert_layer(lambda problem: fields | {{"second_gemm": fields["second_gemm"] * SCALE}}, problem, contract="hf")
"""


@unittest.skipUnless(importlib.util.find_spec("pytest"), "needs pytest (Debian: python3-pytest)")
class Plugin(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)

    def pytest(self, tests, *words, code=0, environment=()):
        (self.folder / "test_kernel.py").write_text(tests)
        paths = os.pathsep.join(map(str, (ROOT / "harness" / "python", ROOT / "golden" / "python", HERE)))
        variables = {**os.environ, "PYTHONPATH": paths, "TMPDIR": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1", **dict(environment)}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "assay.pytest_plugin", "-p", "no:cacheprovider", "-q", *words], cwd=self.folder, env=variables,
            capture_output=True, encoding="utf-8", check=False,
        )  # fmt: skip
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout

    def left_behind(self):
        return [path for path in self.folder.iterdir() if path.name.startswith("assay-")]

    def test_a_run_that_passes_writes_one_report_and_leaves_nothing_behind(self):
        said = self.pytest(TESTS.format(scale=1), "--assay-html", "all.html", "--assay-junit", "all.xml", "--assay-json", "all.json")
        self.assertIn("3 passed", said)
        self.assertIn("3 judged", said)
        record = json.loads((self.folder / "all.json").read_text())
        self.assertEqual(sorted((case["problem"], case["producer"]) for case in record["cases"]), [
            ("odd", "test_kernel.py::test_honest"), ("odd", "test_kernel.py::test_mine"), ("one_token", "test_kernel.py::test_honest"),
        ])  # fmt: skip
        self.assertEqual(len(xml.etree.ElementTree.parse(self.folder / "all.xml").findall(".//testsuite")), 3)
        self.assertIn("one_token", (self.folder / "all.html").read_text())
        self.assertEqual(self.left_behind(), [])

    def test_a_failure_prints_assays_own_text_and_its_replay_line_works(self):
        said = self.pytest(TESTS.format(scale=2), code=1)
        self.assertIn("1 failed, 2 passed", said)
        self.assertIn("second_gemm is the first stage with an error of its own: results are 2 times what they should be", " ".join(said.split()))
        self.assertNotIn("judging.py", said)  # no traceback of ours
        replay = next(line for line in said.splitlines() if line.strip().startswith("replay: assay ")).split()[2:]
        from assay import program_runs

        again = subprocess.run([program_runs.find_program(), *replay], capture_output=True, encoding="utf-8", check=False)
        self.assertEqual(again.returncode, 1, again.stdout + again.stderr)
        self.assertIn("second_gemm is the first stage with an error", " ".join(again.stdout.split()))

    def test_a_baseline_tells_what_changed_and_fails_on_a_regression(self):
        self.pytest(TESTS.format(scale=1), "--assay-json", "before.json")
        said = self.pytest(TESTS.format(scale=1), "--assay-baseline", "before.json")
        self.assertNotIn("REGRESSION", said.upper().replace("NO REGRESSION", "").replace("0 REGRESSIONS", ""))
        # The changed kernel's own test expects the failure: only the baseline can tell.
        caught = TESTS.format(scale=2).replace("    assay.assert_layer(lambda", "    assay.judge(problem, (lambda").replace(', problem, contract="hf")', ')(problem), contract="hf")')
        said = self.pytest(caught, "--assay-baseline", "before.json", code=1)
        self.assertIn("3 passed", said)
        self.assertIn("regression", said.lower())

    def test_mistakes_are_one_sentence(self):
        unknown = TESTS.format(scale=1).replace('"odd"', '"ood"')
        self.assertIn("layer_problems: no fixture matches 'ood'; did you mean odd", self.pytest(unknown, code=2))
        unnamed = TESTS.format(scale=1).replace("def test_mine(problem)", "def test_mine(p)")
        self.assertIn("it needs an argument named problem", self.pytest(unnamed, code=2))
        self.assertIn("ASSAY names /nowhere, which is no program", self.pytest(TESTS.format(scale=1), code=2, environment={"ASSAY": "/nowhere"}.items()))
        said = self.pytest("def test_nothing():\n    pass\n", "--assay-html", "none.html")
        self.assertIn("nothing was judged: no report is written", said)

    def test_a_gpu_that_a_mark_names_and_is_not_there_skips_with_its_sentence(self):
        tests = TESTS.format(scale=1).replace('layer_problems("odd"', 'layer_problems("odd", device="cuda:99"').replace(', "one_tok*"', "")
        said = self.pytest(tests, "-rs")
        self.assertIn("2 skipped", said)
        self.assertIn("device='cuda", said)

    @unittest.skipUnless(importlib.util.find_spec("xdist"), "needs pytest-xdist")
    def test_workers_report_together(self):
        self.assertIn("3 judged", self.pytest(TESTS.format(scale=1), "-n", "2", "--assay-json", "all.json"))
        self.assertEqual(len(json.loads((self.folder / "all.json").read_text())["cases"]), 3)


if __name__ == "__main__":
    unittest.main()
