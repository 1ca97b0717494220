import json
import os
import subprocess
import sys
import unittest
from pathlib import Path
from unittest import mock

import numpy as np

from assay_golden import schema
from tests.exporting import Folder, export
from tests.problems import make_fixture

PACKAGE = Path(__file__).parents[1]


class Program(Folder):
    def call(self, *arguments):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE), os.environ.get("PYTHONPATH", "")])}
        return subprocess.run([sys.executable, "-m", "assay_golden", *map(str, arguments)], capture_output=True, text=True, env=environment)

    def fixtures(self):
        fixture = make_fixture()
        record = {
            "name": "tiny", "config": vars(fixture.config), "batch": 2, "sequence": 6, "seed": 1, "store_weights": True, "golden": True,
            "generators": {
                name: {"generator": g.fill, "routing": g.routing, "seed": g.seed, "stream": g.stream, "shape": g.shape, "scale": g.scale}
                for name, g in fixture.generators.items()
            },
        }  # fmt: skip
        path = self.folder / "fixtures.json"
        path.write_text(json.dumps({"fixtures": [record]}))
        return path


class CommandLine(Program):
    def test_a_python_without_the_libraries_says_which(self):
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PACKAGE)}
        done = subprocess.run([sys.executable, "-S", "-m", "assay_golden", "check", "x"], capture_output=True, text=True, env=environment)
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertRegex(done.stderr, r"^assay_golden: Python at .* lacks (numpy|h5py); golden/python/requirements.txt")

    def test_export_then_check(self):
        done = self.call("export", "--fixtures", self.fixtures(), "--out", self.folder, "--implementation", "eager", "--device", "cpu")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.split()[1], str(self.folder / "tiny.eager.h5"))
        checked = self.call("check", self.folder / "tiny.eager.h5")
        self.assertEqual((checked.returncode, "every stated hash holds" in checked.stdout), (0, True), checked.stderr)

    def test_wrong_calls_end_with_2_and_unusable_files_with_3(self):
        fixtures = self.fixtures()
        broken = self.folder / "broken.json"
        broken.write_text('{"fixtures": [{"name": "x"}]}')
        for code, message, *arguments in (
            (2, "unknown fixture 'huge'; valid: tiny", "hash", "--fixtures", fixtures, "--fixture", "huge"),
            (2, "exactly one of --fixtures", "export"),
            (2, "belong together", "export", "--checkpoint", "x"),
            (2, "invalid choice", "export", "--implementation", "fast"),
            (3, "cannot read fixtures", "hash", "--fixtures", self.folder / "none.json"),
            (3, "fixture x: unusable record", "hash", "--fixtures", broken),
            (3, "cannot run", "hash", "--assay", self.folder / "none"),
            (3, "is not an HDF5 file", "check", fixtures),
        ):
            done = self.call(*arguments)
            self.assertEqual((done.returncode, message in done.stderr, "Traceback" in done.stderr), (code, True, False), done.stderr)


@unittest.skipUnless(os.environ.get("ASSAY_TRANSFORMERS4"), "ASSAY_TRANSFORMERS4 names no folder with transformers 4.5x")
class Transformers4(Program):
    def test_eager_gives_the_bits_of_transformers_5(self):
        with mock.patch.dict(os.environ, {"PYTHONPATH": os.environ["ASSAY_TRANSFORMERS4"]}):
            done = self.call("export", "--fixtures", self.fixtures(), "--out", self.folder, "--device", "cpu")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("only eager is exported", done.stderr)
        old = schema.read(self.folder / "tiny.eager.h5")
        self.assertTrue(old.provenance["transformers"].startswith("4."))
        self.assertIn("d_input_hidden_states", old.provenance["left_out"])
        new = export(make_fixture(), self.folder, implementation="eager")[0]
        for key, tensor in old.tensors.items():
            if key[0] == "forward":
                np.testing.assert_array_equal(tensor.data, new.tensors[key].data, str(key))
        self.assertEqual(len([key for key in old.tensors if key[0] == "forward"]), 10)


if __name__ == "__main__":
    unittest.main()
