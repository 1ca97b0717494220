"""README's words against the program and the recorded files: what it shows is printed, what it names is there, its figures are those recorded."""

import json
import re
import subprocess
import sys
import unittest

from program import FAILED, PASSED, ROOT, ProgramTest, golden

README = (ROOT / "README.md").read_text(encoding="utf-8")
RECORDED = ROOT / "golden" / "recorded"
PAGES = (
    "README.md", "CONTRIBUTING.md", "harness/NUMERICS.md", "harness/SENSITIVITY.md", "golden/SCHEMA.md", "gpu/PERFORMANCE.md",
    ".ci/examples/regress.sh", ".ci/examples/merge.sh",
)  # fmt: skip


def recorded(name):
    return json.loads((RECORDED / name).read_text(encoding="utf-8"))


def words(text):
    return " ".join(text.split())


def last_bits(case):
    """(as predicted, of) in a case's headline."""
    return [int(number.replace(",", "")) for number in re.search(r"inputs alone: ([\d,]+) of ([\d,]+)", case["headline"]).groups()]


class FirstScreen(ProgramTest):
    SHOWN = re.findall(r"^```\n(\$ assay verify .*?)^```$", README, re.M | re.S)
    FAULTS = ("gate_up_sums_in_bf16", "gate_up_dw_rows_shifted")

    def test_a_failure_of_each_pass_is_printed_as_it_is_shown(self):
        self.assertEqual(len(self.SHOWN), 2)
        for fault, shown in zip(self.FAULTS, self.SHOWN):
            with self.subTest(fault=fault):
                self.expect(PASSED, "mutate", fault, "--fixture", "odd", "--dump", "mine.h5")
                done = self.run_assay("verify", "--golden", golden("odd.grouped_mm"), "--pipeline", "dump:mine.h5")
                self.assertEqual(done.returncode, FAILED, done.stderr)
                printed = words(done.stdout.replace(golden("odd.grouped_mm"), "golden/data/odd.grouped_mm.h5"))
                # A sentence may be broken elsewhere; what is left out stands as "...".
                for part in re.split(r"^ *\.\.\.$", shown.partition("\n")[2], flags=re.M):
                    for line in re.split(r"\n(?=  [✔✘] |  explain|✘|  [a-zA-Z]|   )", part):
                        self.assertIn(words(line), printed)

    def test_the_faults_that_it_names_are_those_shown(self):
        self.assertEqual(tuple(re.findall(r"`assay mutate (\w+) --fixture odd --dump mine.h5`", README)), self.FAULTS)


class Commands(ProgramTest):
    def test_every_option_is_one_of_its_command(self):
        helps = {}
        for page in PAGES:
            text = (ROOT / page).read_text(encoding="utf-8")
            for line in re.findall(r"assay ((?:verify|regress|diff|invariance|merge|golden|report|explain|minimize|mutate|inspect|list|bench)\b[^`\n]*)", text):
                command = re.match(r"(golden|bench|list) (\w+)|(\w+)", line)
                name = tuple(word for word in command.groups() if word)
                for option in re.findall(r"(?<![\w-])(--[a-z][a-z-]*)", line.split("#")[0]):
                    if name not in helps:
                        helps[name] = self.expect(PASSED, *name, "--help").stdout
                    self.assertIn(option, helps[name], f"{page}: assay {line}")
        self.assertGreater(len(helps), 10)

    def test_every_folder_and_file_that_it_names_is_there(self):
        made = {"golden/data/G.h5"}
        named = set(re.findall(r"`((?:harness|golden|gpu|reference_cpu|fixtures|reports|\.ci)/[\w./-]*)`", README)) - made
        tree = re.search(r"^## Where things are\n\n```\n(.*?)^```", README, re.M | re.S).group(1)
        above = ""
        for line in tree.splitlines():
            for folder in re.findall(r"(?:^ *|  )([\w/]+/)(?=  )", line):
                named.add(folder if not line.startswith(" ") else above + folder)
            if not line.startswith(" "):
                above = line.split()[0]
        self.assertGreater(len(named), 25)
        for path in sorted(named):
            self.assertTrue((ROOT / path).exists(), path)


class Figures(unittest.TestCase):
    def says(self, sentence):
        self.assertIn(sentence, README)

    def test_of_whole_layers_at_4096_tokens(self):
        both = [last_bits(recorded(f"qwen3_30b_a3b_t4096.{which}.json")["cases"][0]) for which in ("grouped_mm", "eager")]
        self.assertTrue(all(predicted == of for predicted, of in both))
        self.says(f"| 4,096 | {sum(of for _, of in both):,} | **0** |")
        run = recorded("gradients/qwen3_30b_a3b_t4096.json")
        predicted, of = last_bits(run["cases"][0])
        self.says(f"{predicted:,} of {of:,} bits as predicted, in {run['seconds']:.0f} s and {run['peak_memory_bytes'] / 2**30:.1f} GiB")

    def test_of_our_own_kernels(self):
        large = [last_bits(case) for case in recorded("gpu_t4096.json")["cases"]]
        self.says(f"at T = 4,096 {sum(bits[0] for bits in large):,} of {sum(bits[1] for bits in large):,} bits as predicted")
        backward, contracts = recorded("gpu_backward.json")["cases"], recorded("gpu_backward_contracts.json")["cases"]
        self.says(f"{len(backward)} cases of small problems, {len(contracts)} under `fused_fp32`")
        cases = [*backward, *contracts, *recorded("gpu_backward_30b.json")["cases"]]
        self.assertEqual({case["verdict"] for case in cases}, {"Passed"})
        against = [(case["candidate"].startswith("gpu_cublas"), field["field"], field["chained_bits"]["differing"]) for case in cases for field in case["fields"]]
        self.assertEqual({one[:2] for one in against if one[2] > 0}, {(True, "d_gate")})
        self.says(f"of `gpu_cublas` {sum(one[2] for one in against)}, all in `d_gate`")

    def test_of_times(self):
        done = subprocess.run([sys.executable, str(RECORDED / "bench_table.py"), "--check"], capture_output=True, encoding="utf-8", check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_of_correct_runs(self):
        self.says(f"{recorded('false_alarms.json')['judgements']:,} judgements of correct runs in six orders of summation and fourteen contracts")

    def test_of_other_projects_layers(self):
        rows = dict(re.findall(r"^\| (tiny|odd|Qwen3-\S+) (\|[^\n]*)$", README[README.index("| golden | `unsloth`"):], re.M))
        names = {"tiny": "tiny", "odd": "odd", "qwen3_30b_a3b": "Qwen3-30B-A3B", "qwen3_next_80b": "Qwen3-Next-80B-A3B", "qwen3_235b_a22b": "Qwen3-235B-A22B"}
        seen = 0
        for case in recorded("peers.json")["cases"]:
            if case["verdict"] == "Passed" and case["problem"] in names:
                bits = [field["chained"] for field in case["fields"].values() if field["chained"]]
                self.assertIn(f"{sum(one[0] for one in bits):,} of {sum(sum(one) for one in bits):,}", rows[names[case["problem"]]])
                seen += 1
        self.assertGreater(seen, 12)


if __name__ == "__main__":
    unittest.main()
