"""Shards and their merge, what is left out, where a run ends, and Markdown for a pull request."""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import unittest

try:
    import yaml
except ImportError:
    yaml = None

from program import ASSAY, COULD_NOT_JUDGE, FAILED, NOTHING_COMPARED, PASSED, ROOT, SUSPECT, USAGE, ProgramTest, golden

EXAMPLES = ROOT / ".ci" / "examples"
PLUGINS = pathlib.Path(os.environ["ASSAY_PLUGINS"])  # where the build leaves them

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

    # What the script uses of Ray: a task is a process of its own, with the function and its words alone.
    RAY = """
import multiprocessing, os

def init():
    pass

def remote(num_cpus, num_gpus):
    def of(function):
        class Task:
            @staticmethod
            def remote(*words):
                print(f"task of {num_cpus:g} cores and {num_gpus:g} GPUs", flush=True)
                return function, words
        return Task
    return of

def get(tasks):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return [one.get() for one in [pool.apply_async(function, words) for function, words in reversed(tasks)]][::-1]
"""

    def ray_sweep(self, *words, **environment):
        """In a folder as a job gets it: the examples, the plug-in; Ray stands beside them where `RAY` was written there."""
        if not (self.folder / ".ci").exists():
            (self.folder / ".ci").symlink_to(ROOT / ".ci")
        return subprocess.run([sys.executable, ".ci/examples/ray_sweep.py", *words], cwd=self.folder, capture_output=True, encoding="utf-8", timeout=300, check=False,
                              env={"PATH": os.environ["PATH"], "ASSAY": str(ASSAY), "PYTHONPATH": str(self.folder / "modules"), **environment})  # fmt: skip

    def documented_ray_words(self):
        """The words of the script's own example, on a problem that takes no minutes."""
        line = re.search(r"ray job submit .*? -- python3 (\S+) (.*)$", (EXAMPLES / "ray_sweep.py").read_text(), re.M)
        self.assertEqual(line[1], ".ci/examples/ray_sweep.py")
        return ["tiny" if word == "small" else word for word in shlex.split(line[2])]

    def test_a_ray_sweep_gives_what_one_run_gives(self):
        self.write("modules/ray.py", self.RAY)
        shutil.copy(PLUGINS / "plugin_example.so", self.folder / "libmine.so")
        words = self.documented_ray_words()
        self.expect(PASSED, "verify", *words[1:], "-q", "--json", "whole.json")
        self.expect(PASSED, "merge", "--sweep", "whole.json", "-q", "--json", "alone.json")
        for of in ("8", "2"):
            with self.subTest(shares=of):
                shutil.rmtree(self.folder / "results", ignore_errors=True)
                done = self.ray_sweep(of, *words[1:], SHARE_CPUS="1", SHARE_GPUS="0.5")
                self.assertEqual(done.returncode, PASSED, done.stdout + done.stderr)
                self.assertEqual(done.stdout.count("task of 1 cores and 0.5 GPUs"), int(of))
                self.assertIn("3 configs of plugin:./libmine.so, the worst first", done.stdout)
                self.assertEqual(told((self.folder / "all.json").read_text()), told((self.folder / "alone.json").read_text()))
                self.assertTrue((self.folder / "report.html").exists() and (self.folder / "comment.md").exists())

    def test_a_ray_sweep_that_cannot_run_says_so_in_a_sentence(self):
        self.write("modules/ray.py", "raise ImportError")
        done = self.ray_sweep("2", "--fixture", "tiny")
        self.assertEqual((done.returncode, done.stdout), (COULD_NOT_JUDGE, ""))
        self.assertEqual(done.stderr, "ray_sweep.py: Ray is not installed here: pip install ray, or take .ci/examples/slurm.sh\n")
        for words in ((), ("--fixture", "tiny"), ("0",)):
            done = self.ray_sweep(*words)
            self.assertEqual(done.returncode, COULD_NOT_JUDGE)
            self.assertRegex(done.stderr, r"^ray_sweep.py: expected the number of shares, then words of assay verify: .*\n$")
        self.write("modules/ray.py", self.RAY)
        done = self.ray_sweep("2", "--fixture", "nope", "--pipeline", "predicted")
        self.assertEqual(done.returncode, COULD_NOT_JUDGE, done.stdout)
        self.assertIn("no fixture matches 'nope'", done.stdout)
        self.assertEqual(done.stderr, f"ray_sweep.py: share 1 of 2 could not be judged (shard.sh ended with {USAGE})\n")

    PLUGIN = ROOT / "harness" / "host" / "plugin_example.c"

    def workspace(self, source):
        """A checkout whose build is done: the plug-in's source as it is given, and stand-ins for what leaves the machine."""
        (self.folder / "bin").mkdir(exist_ok=True)
        for name in ("dev", "bin/gh", "bin/curl"):
            (self.folder / name).write_text('#!/bin/sh\necho "$0 $@" >>called.log\n')
            (self.folder / name).chmod(0o755)
        for name, target in ((".ci", ROOT / ".ci"), ("assay", ASSAY)):
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(target)
        (self.folder / "harness" / "host").mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "harness" / "host" / "plugin.h", self.folder / "harness" / "host")
        (self.folder / "harness" / "host" / "plugin_example.c").write_text(source)
        shutil.rmtree(self.folder / "results", ignore_errors=True)
        (self.folder / "comment.md").unlink(missing_ok=True)

    def step(self, text, environment):
        environment = {"HOME": str(self.folder), "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "2", "GITHUB_STEP_SUMMARY": "summary.md"} | environment
        done = subprocess.run(["bash", "-e", "-c", text], cwd=self.folder, env=environment, capture_output=True, encoding="utf-8", timeout=300, check=False)
        return done.returncode, done.stdout + done.stderr

    def filled(self, text, values):
        return re.sub(r"\$\{\{ (.+?) \}\}", lambda match: values.get(match[1], "7"), str(text))

    def github(self, jobs):
        """What these jobs run, step by step, in two shares. Returns the failed steps."""
        workflow = yaml.safe_load((EXAMPLES / "github.yml").read_text())
        failed = []
        for job in (workflow["jobs"][name] for name in jobs):
            for shard in ("1", "2") if "strategy" in job else ("",):
                for step in job["steps"]:
                    if "run" not in step or (failed and step.get("if") != "always()"):
                        continue
                    environment = workflow["env"] | job.get("env", {}) | step.get("env", {}) | {"PROBLEMS": "--fixture tiny odd"}
                    values = {"matrix.shard": shard, "github.event.pull_request.head.sha": "abc123"}
                    filled = {key: self.filled(value, values).replace("/4", "/2") for key, value in environment.items()}
                    code, said = self.step(self.filled(step["run"], values), filled)
                    failed += [(step["run"], said)] if code != 0 else []
        return failed

    def gitlab(self, job, **environment):
        pipeline = yaml.safe_load((EXAMPLES / "gitlab.yml").read_text())
        common = pipeline["variables"] | pipeline[job].get("variables", {}) | {"PROBLEMS": "--fixture tiny", "REVISION": "abc123", "COMMENT_TOKEN": "t"}
        return self.step("\n".join(pipeline[job]["script"]), common | {"CI_API_V4_URL": "u", "CI_PROJECT_ID": "1", "CI_MERGE_REQUEST_IID": "2"} | environment)

    def comment(self):
        return (self.folder / "comment.md").read_text()

    @unittest.skipIf(yaml is None, "needs PyYAML (Debian: python3-yaml)")
    def test_the_github_workflow_runs_step_by_step_and_an_approval_lets_a_change_pass(self):
        good = self.PLUGIN.read_text()
        self.workspace(good)
        self.assertEqual(self.github(("judge", "report")), [])
        self.assertIn("2 cases: 2 passed", self.comment())
        self.assertIn("commit all.json of an accepted run as baseline.json", self.comment())
        self.assertTrue((self.folder / "history" / "abc123.json").exists())
        self.assertTrue((self.folder / "report.html").exists() and (self.folder / "junit.xml").exists())
        self.assertIn("gh pr comment 7 --body-file comment.md", (self.folder / "called.log").read_text())
        (self.folder / "all.json").rename(self.folder / "baseline.json")

        rounded = "return from_bf16(to_bf16(value));"
        self.assertEqual(good.count(rounded), 1)
        self.workspace(good.replace(rounded, "return from_bf16(to_bf16(value * 1.01f));"))
        failed = self.github(("judge", "report"))
        self.assertEqual([step for step, _ in failed], [".ci/examples/regress.sh"], failed)
        self.assertIn("assay regress: regression", self.comment())
        self.expect(PASSED, "regress", "--baseline", "baseline.json", "--candidate", "all.json", "--approve", "--by", "me", "--why", "a coarser silu")
        self.assertEqual(self.github(("report",)), [])
        self.assertIn("approved by me", self.comment())
        self.assertIn("a coarser silu", self.comment())

    @unittest.skipIf(yaml is None, "needs PyYAML (Debian: python3-yaml)")
    def test_the_gitlab_pipeline_runs_line_by_line(self):
        self.workspace(self.PLUGIN.read_text())
        code, said = self.gitlab("judge", CI_NODE_INDEX="1", CI_NODE_TOTAL="1")
        self.assertEqual(code, 0, said)
        code, said = self.gitlab("report")
        self.assertEqual(code, 0, said)
        self.assertIn("1 case: 1 passed", self.comment())
        self.assertIn("curl --fail", (self.folder / "called.log").read_text())
        (self.folder / "results" / "1.json").unlink()
        self.assertNotEqual(self.gitlab("report")[0], 0)

    def test_the_examples_call_scripts_that_are_there(self):
        for name in ("github.yml", "gitlab.yml", "slurm.sh", "ray_sweep.py"):
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
