"""The generator in Python and the one in C++ make the same bits: compared line for line with `assay list hashes` ($ASSAY)."""

import contextlib
import io
import os
import subprocess
import tempfile
import unittest

import numpy as np

from assay_golden import schema
from assay_golden.cli import main
from assay_golden.fills import generate_expert, materialise
from assay_golden.fixture import ask_program
from assay_golden.schema import array_hash
from assay_golden.writer import Candidate

PROGRAM = os.environ.get("ASSAY", "")
WIDE = "qwen3_30b_a3b"  # full width: only its first and last expert


def program_hashes(*words):
    command = [PROGRAM, "list", "hashes", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@unittest.skipUnless(PROGRAM and os.access(PROGRAM, os.X_OK), "needs the built program in $ASSAY")
class SameBits(unittest.TestCase):
    def test_every_tensor_of_every_small_fixture(self):
        names = [fixture.name for fixture in ask_program(PROGRAM) if not fixture.name.startswith("qwen3")]
        self.assertGreater(len(names), 10)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            self.assertEqual(main(["hash", "--assay", PROGRAM, *(word for name in names for word in ("--fixture", name))]), 0)
        ours = printed.getvalue().splitlines()
        self.assertGreater(len(ours), 10 * 15)
        self.assertEqual(ours, program_hashes("--fixture", *names))

    def test_the_first_and_the_last_expert_of_a_real_model(self):
        fixture = next(fixture for fixture in ask_program(PROGRAM) if fixture.name == WIDE)
        chosen = (0, fixture.config.num_experts - 1)
        ours = []
        for name, generator in fixture.generators.items():
            if name in ("gate_up_proj", "down_proj"):
                ours += [f"{WIDE} {name}[{expert}] {array_hash(generate_expert(generator, expert))}" for expert in chosen]
            else:
                ours.append(f"{WIDE} {name} {array_hash(materialise(generator, name))}")
        self.assertEqual(ours, program_hashes("--fixture", WIDE, "--expert", *map(str, chosen)))

    def test_another_seed_would_be_noticed(self):
        """The comparison is not one of empty lists or of constants."""
        lines = program_hashes("--fixture", "tiny", "one_sign", "--expert", "0")
        hashes = {line.rsplit(" ", 1)[1] for line in lines}
        self.assertEqual((len(lines), len(hashes)), (10, 10))


@unittest.skipUnless(PROGRAM and os.access(PROGRAM, os.X_OK), "needs the built program in $ASSAY")
class SameFiles(unittest.TestCase):
    def test_a_file_of_the_program_is_read_here(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "dump.h5")
            command = [PROGRAM, "verify", "--fixture", "odd", "--pipeline", "predicted", "--dump", path, "-q"]
            subprocess.run(command, check=True)
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                self.assertEqual(main(["check", path]), 0)
            # ten fields, and the four inputs and weights that it names
            self.assertIn("candidate of odd, 15 tensors, every stated hash holds", printed.getvalue())

    def test_an_experts_padded_rows_are_judged_without_their_padding(self):
        """Written here with garbage between the experts' rows; rows in places of others must fail."""
        golden = "golden/data/rows.grouped_mm.h5"
        source = schema.read(golden)
        alignment, nan = 16, np.uint16(0x7FC0)
        counts = source.tensors["forward", "token_counts_by_expert"].data
        padded = -(-counts // alignment) * alignment
        starts = np.cumsum(padded) - padded
        places = np.concatenate([start + np.arange(count) for start, count in zip(starts, counts)])
        for shift, status in ((0, 0), (1, 1)):
            candidate = Candidate.like(golden, "padded", row_alignment=alignment)
            for (group, name), tensor in source.tensors.items():
                if group != "forward":
                    continue
                data = tensor.data
                if schema.is_padded(name):
                    garbage = -7 if data.dtype.kind == "i" else nan
                    whole = np.full((padded.sum(), *data.shape[1:]), garbage, data.dtype)
                    whole[places] = np.roll(data, shift, axis=0)
                    data = whole
                candidate.add(name, data)
            with self.subTest(shift=shift), tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "padded.h5")
                candidate.write(path)
                command = [PROGRAM, "verify", "--golden", golden, "--pipeline", f"dump:{path}"]
                self.assertEqual(subprocess.run(command, capture_output=True).returncode, status)


if __name__ == "__main__":
    unittest.main()
