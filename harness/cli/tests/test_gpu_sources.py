"""The digest that says whether GPU evidence is current: it sees tokens, in rooms too, and nothing else."""

import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "golden" / "recorded"))
import gpu_sources  # noqa: E402

KERNEL = '#include "harness/contract/bf16.h"\n// adds\n__global__ void add(int* a) { a[0] += 1; }\n'


class Digest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.write("harness/contract/bf16.h", "struct Bf16 { int bits; };\n")
        self.write("gpu/kernels/add.cu", KERNEL)
        self.before = gpu_sources.digest(self.root)

    def write(self, path, text):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def test_a_token_in_a_room_changes_it(self):
        self.write("gpu/kernels/add.cu", KERNEL.replace("+= 1", "+= 2"))
        self.assertNotEqual(gpu_sources.digest(self.root), self.before)

    def test_a_token_in_an_included_header_changes_it(self):
        self.write("harness/contract/bf16.h", "struct Bf16 { short bits; };\n")
        self.assertNotEqual(gpu_sources.digest(self.root), self.before)

    def test_a_new_kernel_changes_it(self):
        self.write("gpu/wgmma/more.cuh", "int x;\n")
        self.assertNotEqual(gpu_sources.digest(self.root), self.before)

    def test_comments_blanks_and_folders_do_not(self):
        (self.root / "gpu/kernels/add.cu").unlink()
        (self.root / "harness/contract/bf16.h").unlink()
        self.write("harness/contract/bf16.h", "struct Bf16 {\n  int bits;  // sixteen\n};\n")
        self.write("gpu/add.cu", '#include "harness/contract/bf16.h"\n__global__ void add(int* a) {\n  a[0] += 1; /* one */\n}\n')
        self.assertEqual(gpu_sources.digest(self.root), self.before)

    def test_blanks_inside_strings_are_tokens(self):
        self.assertNotEqual(gpu_sources.tokens('asm("a b");'), gpu_sources.tokens('asm("ab");'))
        self.assertEqual(gpu_sources.tokens('asm("// no comment");')[2], '"// no comment"')
        self.assertEqual(gpu_sources.tokens('asm("a "\n    "b");'), gpu_sources.tokens('asm("a b");'))
        self.assertEqual(gpu_sources.tokens("#define TWO \\\n  2\n"), gpu_sources.tokens("#define TWO 2\n"))

    def test_today_s_sources_are_seen(self):
        names = {path.name for path in gpu_sources.sources(ROOT)}
        self.assertLessEqual({"grouped_gemm_wgmma_sm90.cu", "merge.cu", "ptx.cuh", "bf16.h", "summation.h"}, names)


if __name__ == "__main__":
    unittest.main()
