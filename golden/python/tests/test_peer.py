"""Peers: a torch layer stands in for another project's, so that everything but their kernels runs without a GPU."""

import os
import subprocess
import sys
import tempfile
import types
import unittest
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import numpy as np
import torch

from assay_golden import InputError, schema
from assay_golden.bits import widen
from assay_golden.cli import main
from assay_golden.export import Options, export_fixture
from assay_golden.peer import write_peer
from assay_golden.peer_layers import PEERS, Peer, gradients_of, import_layer, in_expert_order, watched, watched_kernel
from tests.problems import odd_fixture

PROGRAM = os.environ.get("ASSAY", "")
CPU = torch.device("cpu")


def composed(problem, swap=False):
    """The layer in torch, rounded where `hf` rounds. Rows descend within an expert, as an unstable sort may leave them."""
    config = problem.config
    hidden = problem.hidden.reshape(-1, config.hidden_size)
    expert = problem.selected.reshape(-1)
    slots = torch.argsort(expert * len(expert) + torch.arange(len(expert) - 1, -1, -1))
    first = torch.stack([(problem.gate_up_proj[expert[s]].float() @ hidden[s // config.top_k].float()).bfloat16() for s in slots])
    gate, up = first.chunk(2, dim=-1)[:: -1 if swap else 1]
    middle = torch.nn.functional.silu(gate.float()).bfloat16() * up
    second = torch.stack([(problem.down_proj[expert[s]].float() @ row.float()).bfloat16() for s, row in zip(slots, middle, strict=True)])
    unpermuted = torch.empty_like(second)
    unpermuted[slots] = second
    weighted = (unpermuted.reshape(*problem.weights.shape, -1) * problem.weights[..., None]).float()
    rows = in_expert_order(slots, torch.bincount(expert, minlength=config.num_experts), first_gemm=first, intermediate=middle, second_gemm=second)
    return {**rows, "hidden_states_unpermute": unpermuted, "hidden_states": weighted.sum(1).bfloat16().reshape(problem.hidden.shape)}


def stand_in(run, unsuitable=lambda config: "", module="math"):
    return Peer("stand-in", module, "no-such-distribution", module, "hf", False, unsuitable, run)


class WithGolden(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.temporary.cleanup)
        cls.folder = Path(cls.temporary.name)
        cls.goldens = {}
        for stored in (True, False):
            folder = cls.folder / str(stored)
            folder.mkdir()
            ((cls.goldens[stored], _),) = export_fixture(odd_fixture(store=stored), Options(str(folder), CPU, "eager", threads=1))


class Written(WithGolden):
    def judged(self, golden, path):
        words = [PROGRAM, "verify", "--golden", golden, "--pipeline", f"dump:{path}"]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    def test_a_layer_becomes_a_candidate_of_stored_and_of_regenerated_weights(self):
        results = []
        for stored, golden in self.goldens.items():
            path = self.folder / f"{stored}.h5"
            write_peer(stand_in(lambda _, problem: composed(problem)), golden, path, CPU, version="1.2", threads=1)
            results.append(schema.read(path))
            source = schema.read(golden)
            self.assertEqual((results[-1].kind, results[-1].contract, results[-1].producer), ("candidate", "hf", "stand-in 1.2"))
            self.assertEqual(set(results[-1].accumulators.values()), {"unknown"})
            for name in ("selected_experts", "topk_weights", "token_counts_by_expert", "gather_indices"):
                np.testing.assert_array_equal(results[-1].tensors["forward", name].data, source.tensors["forward", name].data)
        first, second = ({key[1]: t.data for key, t in file.tensors.items() if key[0] == "forward"} for file in results)
        self.assertEqual(set(first), {
            "selected_experts", "topk_weights", "token_counts_by_expert", "gather_indices", "first_gemm", "intermediate", "second_gemm",
            "hidden_states_unpermute", "hidden_states",
        })  # fmt: skip
        for name, data in first.items():
            np.testing.assert_array_equal(data, second[name])

    def test_a_layer_s_gradients_are_those_of_autograd(self):
        """A peer whose layer is float32 autograd: what it is given and what is taken from it, against the golden's own oracle."""
        golden = self.goldens[True]

        def run(_, problem):
            config, hidden = problem.config, problem.hidden.reshape(-1, problem.config.hidden_size)
            output = []
            for token, experts in enumerate(problem.selected):
                rows = [problem.down_proj[e].float() @ swiglu(problem.gate_up_proj[e].float() @ hidden[token].float()) for e in experts]
                output.append((torch.stack(rows) * problem.weights[token, :, None].float()).sum(0))
            output = torch.stack(output).bfloat16().reshape(problem.hidden.shape)
            return {"hidden_states": output, **gradients_of(problem, {
                "d_experts_hidden_states": lambda: problem.hidden.grad.reshape(-1, config.hidden_size), "d_topk_weights": problem.weights,
                "d_gate_up_proj": problem.gate_up_proj, "d_down_proj": problem.down_proj,
            }, output)}  # fmt: skip

        def swiglu(row):
            gate, up = row.chunk(2)
            return torch.nn.functional.silu(gate) * up

        path = self.folder / "gradients.h5"
        write_peer(stand_in(run), golden, path, CPU, threads=1)
        mine, source = schema.read(path), schema.read(golden)
        names = {name for group, name in mine.tensors if group == "backward"}
        self.assertEqual(names, {"d_experts_hidden_states", "d_topk_weights", "d_gate_up_proj", "d_down_proj"})
        for name in names:
            exact = source.tensors["oracle", name].data
            self.assertLess(np.abs(widen(mine.tensors["backward", name].data) - exact).max(), 0.03 * np.abs(exact).max(), name)

    @unittest.skipUnless(PROGRAM and os.access(PROGRAM, os.X_OK), "needs the built program in $ASSAY")
    def test_the_program_passes_the_right_layer_and_names_a_wrong_one(self):
        path, golden = self.folder / "judged.h5", self.goldens[False]
        write_peer(stand_in(lambda _, problem: composed(problem)), golden, path, CPU, threads=1)
        right = self.judged(golden, path)
        self.assertEqual(right.returncode, 0, right.stdout)
        write_peer(stand_in(lambda _, problem: composed(problem, swap=True)), golden, path, CPU, threads=1)
        wrong = self.judged(golden, path)
        self.assertEqual(wrong.returncode, 1, wrong.stdout)
        self.assertIn("intermediate is the first stage with an error of its own", " ".join(wrong.stdout.split()))

    def test_what_cannot_run_is_told_in_one_sentence(self):
        golden, path = self.goldens[True], self.folder / "none.h5"

        def raises(layer, problem):
            raise AssertionError("K must be a\n multiple of 32")

        for peer, sentence in (
            (stand_in(None, lambda config: "sizes must be even"), "peer stand-in does not take .*: sizes must be even, found 72 and 40"),
            (stand_in(raises), "peer stand-in does not run on .*: AssertionError K must be a multiple of 32"),
            (stand_in(lambda _, p: {"hidden_states": p.hidden.float()}), "hidden_states: expected torch.bfloat16"),
            (stand_in(None, module="no_such_moe"), "cannot import no_such_moe: .*; install it, or name the folder .* no_such_moe with --path"),
            (PEERS["unsloth"], "multiples of 16, found 72 and 40"),
        ):
            with self.assertRaisesRegex(InputError, sentence):
                write_peer(peer, golden, path, CPU, threads=1)
        self.assertFalse(path.exists())
        file = schema.read(golden)
        del file.tensors["forward", "topk_weights"]
        schema.write(self.folder / "unrouted.h5", file)
        with self.assertRaisesRegex(InputError, "has no topk_weights: a peer is given the golden's routing"):
            write_peer(stand_in(lambda _, problem: composed(problem)), self.folder / "unrouted.h5", path, CPU)

    def test_a_weight_that_is_not_the_golden_s_is_refused(self):
        file = schema.read(self.goldens[False])
        file.tensors["weights", "down_proj"].hashes[3] = "0" * 64
        schema.write(self.folder / "other.h5", file)
        with self.assertRaisesRegex(InputError, "down_proj, part 3: the generated values have SHA-256"):
            write_peer(stand_in(lambda _, problem: composed(problem)), self.folder / "other.h5", self.folder / "none.h5", CPU, threads=1)

    def test_the_command_says_what_lacks(self):
        words = ["peer", "--peer", "liger", "--golden", self.goldens[True], "--out", str(self.folder / "l.h5")]
        said = StringIO()
        with redirect_stderr(said):
            self.assertEqual(main([*words, "--device", "cpu", "--path", str(self.folder)]), 3)
        self.assertIn(f"peer liger: expected a folder liger_kernel in {self.folder}, found none", said.getvalue())
        if not torch.cuda.is_available():
            with redirect_stderr(said):
                self.assertEqual(main(words), 3)
            self.assertIn("peer liger runs on a GPU, and torch finds none", said.getvalue())


class Watching(unittest.TestCase):
    def test_calls_and_launches_are_kept_and_the_functions_put_back(self):
        def doubled(value):
            return 2 * value

        class Kernel:
            def __getitem__(self, grid):
                return lambda out, value: out.append((grid, value))

        owner = types.SimpleNamespace(function=doubled, kernel=Kernel())
        kernel, out = owner.kernel, []
        with watched(owner, "function") as calls, watched_kernel(owner, "kernel") as launches:
            self.assertEqual(owner.function(3), 6)
            owner.kernel[7](out, 5)
        self.assertEqual((calls, launches, out), ([((3,), {}, 6)], [(out, 5)], [(7, 5)]))
        self.assertIs(owner.function, doubled)
        self.assertIs(owner.kernel, kernel)

    def test_rows_move_within_their_expert_only(self):
        rows = torch.arange(5)[:, None]
        fields = in_expert_order(torch.tensor([4, 0, 3, 1, 2]), torch.tensor([2, 0, 3]), first_gemm=rows)
        self.assertEqual(fields["gather_indices"].tolist(), [0, 4, 1, 2, 3])
        self.assertEqual(fields["first_gemm"].flatten().tolist(), [1, 0, 3, 4, 2])
        with self.assertRaisesRegex(InputError, "its counts add up to 4 rows, expected 5"):
            in_expert_order(torch.tensor([4, 0, 3, 1, 2]), torch.tensor([1, 3]))

    def test_sources_in_a_folder_are_imported_from_there(self):
        with tempfile.TemporaryDirectory() as folder:
            package = Path(folder) / "assay_test_peer"
            package.mkdir()
            (package / "layer.py").write_text("from unsloth import DEVICE_TYPE\n")
            peer = Peer("unsloth", "", "", "assay_test_peer.layer", "hf", True, None, None)
            had = "unsloth" in sys.modules
            try:
                self.assertEqual(import_layer(peer, folder).DEVICE_TYPE, "cuda")
                (package / "broken.py").write_text("raise ValueError('needs CUDA')\n")
                with self.assertRaisesRegex(InputError, "cannot import assay_test_peer.broken: needs CUDA"):
                    import_layer(Peer("other", "", "", "assay_test_peer.broken", "hf", True, None, None), folder)
            finally:
                sys.path.remove(folder)
                if folder in sys.path:
                    sys.path.remove(folder)
                if not had:
                    sys.modules.pop("unsloth", None)


if __name__ == "__main__":
    unittest.main()
