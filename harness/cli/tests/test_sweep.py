"""verify --sweep: every config of a plugin by itself, the worst first, and one that crashes ends no other."""

import json
import os
import pathlib
import re
import subprocess
import unittest

from program import COULD_NOT_JUDGE, FAILED, NOTHING_COMPARED, PASSED, ROOT, USAGE, ProgramTest

PLUGINS = pathlib.Path(os.environ["ASSAY_PLUGINS"])  # where the build leaves them
EXAMPLE, FAULTY = PLUGINS / "plugin_example.so", PLUGINS / "plugin_faulty.so"
CONFIGS = ["block=all", "block=8", "block=64"]


class Sweep(ProgramTest):
    def sweep(self, code, fault, *more, plugin=FAULTY, says=(), fixtures=("tiny",)):
        return self.expect(code, "verify", "--fixture", *fixtures, "--pipeline", f"plugin:{plugin}", "--sweep", *more, says=says, environment={"ASSAY_PLUGIN_FAULT": fault})

    def cases(self, code, fault, *more, **how):
        """Config and verdict of the cases, as the report has them."""
        self.done = self.sweep(code, fault, *more, "--json", "s.json", **how)
        self.judged = json.loads((self.folder / "s.json").read_text())["cases"]
        return [(case["candidate"].rpartition("#")[2], case["verdict"]) for case in self.judged]

    def table(self):
        """Verdict and config of the table's rows, as they are printed."""
        below = self.done.stdout.partition(", the worst first")[2]
        return re.findall(r"^  . ([a-zA-Z ]+?)  +(block=\S+) ", below, re.MULTILINE)

    def test_every_config_of_the_example_passes(self):
        for more in ((), ("--backward",)):
            with self.subTest(more=more):
                found = self.cases(PASSED, "", *more, plugin=EXAMPLE, fixtures=("tiny", "odd"), says=f"3 configs of plugin:{EXAMPLE}, the worst first")
                self.assertEqual(sorted(found), sorted((config, "Passed") for config in CONFIGS for _ in range(2)))
                self.assertEqual(sorted(self.table()), sorted(("passed", config) for config in CONFIGS))
                self.assertIn("ran on the problem twice", " ".join(self.judged[0]["remarks"]))

    def test_configs_are_other_runs(self):
        """By itself the library sums as its first config does; another order of sums has other bits."""
        for name, config in {"itself": "", "first": "#block=all", "second": "#block=8"}.items():
            self.expect(PASSED, "verify", "--fixture", "long", "--pipeline", f"plugin:{EXAMPLE}{config}", "--dump", f"{name}.h5", "-q")
        self.expect(PASSED, "diff", "itself.h5", "first.h5", says="bit for bit the same in 10 fields")
        self.assertIn("the product's sums take another order", " ".join(self.run_assay("diff", "itself.h5", "second.h5").stdout.split()))

    def test_a_wrong_config_is_first_and_named(self):
        found = self.cases(FAILED, "one config is wrong", "--junit", "s.xml", "--html", "s.html", fixtures=("one_token", "tiny"))
        self.assertEqual(found[:2], [("block=8", "Failed")] * 2)
        self.assertEqual(sorted(found[2:]), sorted((config, "Passed") for config in ("block=all", "block=64") for _ in range(2)))
        self.assertEqual(self.table()[0], ("FAILED", "block=8"))
        self.assertEqual([words for words, _ in self.table()[1:]], ["passed", "passed"])
        self.assertRegex(self.done.stdout, r"block=8 +0 of 2 .*one_token: second_gemm is the first stage")
        for name in ("s.html", "s.xml"):
            self.assertIn("#block=8", (self.folder / name).read_text())

    def test_a_config_s_replay_runs_it_alone(self):
        self.cases(FAILED, "one config is wrong")
        replay = self.judged[0]["replay"].split()
        wrong, right = f"plugin:{FAULTY}#block=8", f"plugin:{FAULTY}#block=64"
        self.assertEqual(replay[replay.index("--pipeline") + 1], wrong)
        planted = {"ASSAY_PLUGIN_FAULT": "one config is wrong"}
        self.expect(FAILED, *replay[1:], says="second_gemm is the first stage with an error of its own", environment=planted)
        self.expect(PASSED, *(right if word == wrong else word for word in replay[1:]), environment=planted)
        self.expect(FAILED, *self.judged[0]["minimize"].split()[1:], environment=planted)

    def test_a_config_that_crashes_or_hangs_ends_no_other(self):
        self.assertEqual(self.cases(FAILED, "one config crashes"), [("block=8", "Crashed"), ("block=64", "Failed"), ("block=all", "Passed")])
        self.assertEqual(self.table(), [("CRASHED", "block=8"), ("FAILED", "block=64"), ("passed", "block=all")])
        self.assertEqual(self.cases(FAILED, "one config hangs", "--time-limit", "1")[0], ("block=64", "TimedOut"))
        self.assertEqual(self.cases(FAILED, "crash in assay_plugin_select")[0], ("block=8", "Crashed"))
        self.assertIn("in assay_plugin_select() of block=8", self.judged[0]["headline"])

    def test_a_config_that_cannot_be_chosen_says_why(self):
        self.assertEqual(self.cases(FAILED, "select fails")[0], ("block=8", "Failed"))
        self.assertIn("failed to select its config block=8: status 42", self.judged[0]["headline"])
        self.assertEqual(self.cases(FAILED, "one config's row")[0], ("block=64", "Failed"))
        self.assertIn("declares what assay does not know", self.judged[0]["headline"])
        self.assertEqual(self.cases(PASSED, "select unsupported")[-1], ("block=8", "Unsupported"))
        self.assertIn("does not support its config block=8 here: needs 2 sockets", self.judged[-1]["headline"])

    def test_a_library_that_crashes_when_it_is_asked_has_that_verdict(self):
        self.assertEqual([verdict for _, verdict in self.cases(FAILED, "crash in assay_plugin_configs")], ["Crashed"])
        self.assertIn("crashed in assay_plugin_configs() (signal 7)", self.judged[0]["headline"])

    def test_what_cannot_be_swept_says_why(self):
        for fault, says in {
            "null configs": "to return less than 16384 bytes, found null",
            "no configs": "to list its configs, found none",
            "a config twice": "to list its config block=8 once, found it twice",
            "a config with a quote": "to be of letters, digits and _.,=:+-/, found the sign ' in 'block=64'",
        }.items():
            with self.subTest(fault=fault):
                self.sweep(COULD_NOT_JUDGE, fault, says=says)
        self.expect(USAGE, "verify", "--fixture", "tiny", "--pipeline", "predicted", "--sweep", says="expected gpu_fused or plugin:PATH.so, which have configs, found predicted")
        self.expect(USAGE, "verify", "--fixture", "tiny", "--pipeline", f"plugin:{EXAMPLE}#block=8", "--sweep", says="runs every config of")
        self.expect(COULD_NOT_JUDGE, "verify", "--fixture", "tiny", "--pipeline", f"plugin:{EXAMPLE}#block=9", says="valid: block=all, block=8, block=64")

    def test_a_library_without_configs_runs_as_ever_and_cannot_be_swept(self):
        self.write("one_way.c", "#define assay_plugin_configs none\n#define assay_plugin_select nobody\n" + '#include "harness/host/plugin_example.c"\n')
        library = self.folder / "one_way.so"
        subprocess.run(["cc", "-shared", "-fPIC", f"-I{ROOT}", self.folder / "one_way.c", "-o", library, "-lm"], check=True)
        self.expect(PASSED, "verify", "--fixture", "tiny", "--pipeline", f"plugin:{library}")
        self.expect(COULD_NOT_JUDGE, "verify", "--fixture", "tiny", "--pipeline", f"plugin:{library}", "--sweep", says="to export assay_plugin_configs and assay_plugin_select")
        self.expect(COULD_NOT_JUDGE, "verify", "--fixture", "tiny", "--pipeline", f"plugin:{library}#block=8", says="asks for a config; found no such symbol")

    def test_shards_of_a_sweep_are_the_sweep(self):
        self.cases(PASSED, "", plugin=EXAMPLE, fixtures=("tiny", "one_token"))
        for i in (1, 2):
            self.sweep(PASSED, "", "--shard", f"{i}/2", "--json", f"{i}.json", plugin=EXAMPLE, fixtures=("tiny", "one_token"))
        shards = [case for i in (1, 2) for case in json.loads((self.folder / f"{i}.json").read_text())["cases"]]
        self.assertEqual(sorted((case["problem"], case["candidate"]) for case in shards), sorted((case["problem"], case["candidate"]) for case in self.judged))
        self.assertEqual(len(shards), 6)

    def test_the_kernels_of_gpu_fused_are_swept(self):
        """Without a GPU each of its configs says that it cannot run here."""
        done = self.run_assay("verify", "--fixture", "one_token", "--pipeline", "gpu_fused", "--sweep", "--backward", "--json", "g.json")
        names = [case["candidate"] for case in json.loads((self.folder / "g.json").read_text())["cases"]]
        self.assertIn(done.returncode, (PASSED, NOTHING_COMPARED))
        self.assertEqual(len(set(names)), len(names))
        for name in ("gpu_fused#variant=auto", "gpu_fused#variant=mma_sm80", "gpu_fused#variant=wgmma_sm90,tiles=narrow",
                     "gpu_fused#variant=wgmma_sm90,tiles=wide,pipeline_depth_down=2,raster_rows=16,cluster=2",
                     "gpu_fused#dW:variant=wgmma_sm90,tile_order=width,pipeline_depth=2,pipeline_depth_gathered=3"):  # fmt: skip
            self.assertIn(name, names)
        self.assertIn(f"{len(names)} configs of gpu_fused, the worst first", done.stdout)
        self.expect(USAGE, "verify", "--fixture", "tiny", "--pipeline", "gpu_fused#tiles=oval", says="tiles")


if __name__ == "__main__":
    unittest.main()
