"""Runs the built program ($ASSAY) the way a user would, in a folder of its own. Standard library only."""

import json
import os
import pathlib
import resource
import shutil
import struct
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
GOLDENS = ROOT / "golden" / "data"
ASSAY = pathlib.Path(os.environ.get("ASSAY") or ROOT / "build" / "harness" / "cli" / "assay").resolve()
FORWARD = (
    "router_logits", "selected_experts", "topk_weights", "token_counts_by_expert", "gather_indices",
    "first_gemm", "intermediate", "second_gemm", "hidden_states_unpermute", "hidden_states",
)  # fmt: skip
BACKWARD = (
    "d_second_gemm", "d_topk_weights", "d_intermediate", "d_down_proj", "d_first_gemm", "d_permuted_hidden_states",
    "d_gate_up_proj", "d_router_logits", "d_gate", "d_experts_hidden_states", "d_input_hidden_states",
)  # fmt: skip

# One enum of the program: harness/contract/exit_code.h.
PASSED, FAILED, USAGE, COULD_NOT_JUDGE, SUSPECT, NOTHING_COMPARED = 0, 1, 2, 3, 4, 77


def golden(name):
    return str(GOLDENS / f"{name}.h5")


def limit_file_size(size):
    """For preexec_fn: no file may grow beyond `size` bytes, as on a disk that is full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


# `./dev sanitize` says so: everything takes several times as long, and some limits end the checks themselves.
SANITIZED = "ASSAY_SANITIZED" in os.environ


class ProgramTest(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="assay-test-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def run_assay(self, *words, **options):
        """Runs in the test's folder. A program ended by a signal has a negative return code."""
        options.setdefault("stdout", subprocess.PIPE)
        # No colour and no width of the caller's terminal.
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LC_ALL": "C.UTF-8", "ASSAY_PYTHON": "/nonexistent/python", "OMP_NUM_THREADS": "2"}
        environment |= {name: os.environ[name] for name in ("UBSAN_OPTIONS",) if name in os.environ}
        environment.update(options.pop("environment", {}))
        return subprocess.run(
            [str(ASSAY), *map(str, words)], cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
            encoding="utf-8", timeout=1200 if SANITIZED else 120, check=False, **options,
        )  # fmt: skip

    def expect(self, code, *words, says=(), **options):
        """The exit code, and every sentence of `says` somewhere in the output. Returns the finished process."""
        done = self.run_assay(*words, **options)
        text = (done.stdout or "") + done.stderr
        told = " ".join(text.split())  # the report wraps its lines
        self.assertEqual(done.returncode, code, f"assay {' '.join(map(str, words))}\n{text}")
        for sentence in [says] if isinstance(says, str) else says:
            self.assertIn(sentence, told)
        return done

    def refuse(self, code, *words, says, **options):
        """An error is one sentence on stderr after the program's name, and leaves no file behind."""
        before = self.listing()
        done = self.expect(code, *words, says=says, **options)
        self.assertTrue(done.stderr.startswith("assay: "), done.stderr)
        self.assertEqual(self.listing(), before, "something was left behind or changed")
        return done

    def listing(self):
        """Every file below the folder with its bytes."""
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}

    def write(self, name, data):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return name

    def dump(self, name, fixture="odd", contract="hf"):
        """A dump by the program itself."""
        self.expect(PASSED, "verify", "--fixture", fixture, "--pipeline", "predicted", "--contract", contract, "--dump", name, "-q")
        return name

    def report(self, *words, code=PASSED, **options):
        """The JSON report of `assay verify WORDS`."""
        return json.loads(self.expect(code, *words, "--json", "-", **options).stdout)


def safetensors(tensors):
    """A safetensors file of {name: (dtype, shape, bytes)}: length of the header, header, data."""
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    return pack_safetensors(header, b"".join(data for _, _, data in tensors.values()))


def pack_safetensors(header, data):
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data
