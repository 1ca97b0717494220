"""The Python of README, run as it stands there: its layer as it is written, which fails as it says, and with the halves put right."""

import re
import unittest
from pathlib import Path

try:
    import torch
except ImportError:
    torch = None

import assay
from kept_files import KeptFiles

README = (Path(__file__).resolve().parents[3] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)
SAID = re.search(r"^\$ \S*python -m pytest test_layer.py[^\n]*\n([^\n]*)\n```$", README, re.M).group(1)


@unittest.skipIf(torch is None, "needs torch")
class Readme(KeptFiles, unittest.TestCase):
    def layer(self, changed=lambda text: text):
        """The block's layer; its test is called by pytest, which is not needed here."""
        text, _, test = BLOCKS[0].partition("@assay.layer_problems(")
        self.assertRegex(test, r'"odd", device="cpu"\)[^\n]*\ndef test_layer\(problem\):\n    assay.assert_layer\(layer, problem\)\n')
        names = {}
        exec(compile(changed(text), "README.md", "exec"), names)
        return names["layer"]

    def test_the_layer_fails_as_it_says_and_passes_when_it_is_put_right(self):
        problem = assay.problem("odd", device="cpu")
        with self.assertRaises(assay.LayerFailure) as raised:
            assay.assert_layer(self.layer(), problem)
        self.assertEqual(raised.exception.result.headline, SAID)
        self.assertIn("`gate, up = ...` is right: it passes", README)
        self.assertTrue(assay.assert_layer(self.layer(lambda text: text.replace("up, gate = ", "gate, up = ")), problem).passed)

    def test_what_is_said_about_invariance_and_results_runs(self):
        layer = self.layer(lambda text: text.replace("up, gate = ", "gate, up = "))
        call = re.search(r"`print\((assay\.invariance\(.*?\))\.text\)`", README).group(1)
        found = eval(call.replace('device="cuda"', 'device="cpu"').replace('promise="batch"', "batches=(1, 16), runs=2"), {"assay": assay, "layer": layer})
        self.assertTrue(found.passed, found.text)
        result = assay.judge("odd", layer(assay.problem("odd", device="cpu")))
        for name in re.findall(r"`\.(\w+)(?:\(path\))?`", README.split("Outside of tests:")[1].split("\n")[0]):
            self.assertTrue(hasattr(result, name), name)

    def test_what_is_said_about_two_layers_runs(self):
        names = {"assay": assay, "triton_layer": self.layer(), "torch_layer": self.layer(lambda text: text.replace("up, gate = ", "gate, up = "))}
        said = re.search(r"`(assay\.diff\(.*?\))`[^\n]*", README)
        found = eval(said.group(1).replace('device="cuda"', 'device="cpu"'), names)
        self.assertEqual((found.first, found.legal_under[0], found.legal_under[1] != ()), ("hidden_states", (), True))
        for name in re.findall(r"`\.(\w+)(?:\(path\))?`", said.group(0)):
            self.assertTrue(hasattr(found, name), name)

    def test_a_candidate_is_written_and_judged(self):
        golden = assay.program_runs.golden_folder() / "odd.grouped_mm.h5"
        written = self.layer(lambda text: text.replace("up, gate = ", "gate, up = "))(assay.problem(golden, device="cpu"))
        names = {"logits": written["router_logits"], "experts": written["selected_experts"], "weights": written["topk_weights"], "out": written["hidden_states"]}
        names["gate_up"] = assay.problem(golden, device="cpu").predicted["first_gemm"]
        text = BLOCKS[1].replace("golden/data/odd.grouped_mm.h5", str(golden)).replace("mine.h5", str(self.folder / "mine.h5"))
        self.assertEqual(text.count(str(self.folder)), 1)
        exec(compile(text, "README.md", "exec"), names)
        done = assay.program_runs.run(["verify", "--golden", golden, "--pipeline", f"dump:{self.folder / 'mine.h5'}", "--contract", "auto"])
        self.assertEqual(done.returncode, 0, done.stdout)


if __name__ == "__main__":
    unittest.main()
