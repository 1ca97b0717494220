import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from assay_golden import checkpoint, schema
from assay_golden.bits import widen
from assay_golden.errors import InputError, UsageError
from assay_golden.export import Options


class Checkpoint(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

        cls.temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.temporary.cleanup)
        cls.folder = Path(cls.temporary.name)
        torch.manual_seed(0)
        config = Qwen3MoeConfig(
            vocab_size=320, hidden_size=64, intermediate_size=128, moe_intermediate_size=32, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, head_dim=16, num_experts=12, num_experts_per_tok=2, norm_topk_prob=True, mlp_only_layers=[1],
        )  # fmt: skip
        cls.model = Qwen3MoeForCausalLM(config).to(torch.bfloat16).eval()
        cls.model.save_pretrained(cls.folder / "model")

    def export(self, layer, prompt=None):
        options = Options(str(self.folder), torch.device("cpu"), "eager")
        return [schema.read(path) for path, _ in checkpoint.export_checkpoint(str(self.folder / "model"), layer, prompt, options)]

    def test_the_layer_sees_its_true_input_and_weights(self):
        prompt = self.folder / "prompt.txt"
        prompt.write_text("5 7 11 300\n2")
        (file,) = self.export(2, str(prompt))
        outputs = self.model.model(input_ids=torch.tensor([[5, 7, 11, 300, 2]]), output_hidden_states=True)
        layer = self.model.model.layers[2]
        hidden = outputs.hidden_states[2]  # the third layer's input, before its attention
        self.assertEqual((file.batch, file.sequence, file.config.num_experts), (1, 5, 12))
        self.assertEqual(file.provenance["token_ids"], "5 7 11 300 2")
        found = widen(file.tensors["inputs", "input_hidden_states"].data)
        self.assertEqual(found.shape, (1, 5, 64))
        self.assertLess(abs(float(np.square(found).mean()) - 1), 0.05, "the input of the experts is normalised")
        self.assertEqual(tuple(hidden.shape), (1, 5, 64))
        gate = layer.mlp.gate.weight.detach().view(torch.int16).numpy().view("<u2")
        np.testing.assert_array_equal(file.tensors["weights", "gate"].data, gate)
        again = layer.mlp(torch.from_numpy(found).bfloat16())
        again = again[0] if isinstance(again, tuple) else again
        self.assertLess(np.abs(again.detach().float().numpy() - widen(file.tensors["forward", "hidden_states"].data)).max(), 2.0**-6)

    def test_without_a_prompt_the_ids_are_seeded_and_it_says_so(self):
        first, second = self.export(0)[0], self.export(0)[0]
        self.assertIn("no prompt was given", first.provenance["prompt"])
        np.testing.assert_array_equal(first.tensors["inputs", "input_hidden_states"].data, second.tensors["inputs", "input_hidden_states"].data)

    def test_large_weights_are_named_by_hash(self):
        with mock.patch.object(checkpoint, "LARGEST_STORED", 1000):
            named = self.export(0)[0].tensors["weights", "down_proj"]
        stored = self.export(0)[0].tensors["weights", "down_proj"].data
        self.assertEqual(named.hashes, [schema.array_hash(matrix) for matrix in stored])
        self.assertEqual((named.generator.fill, named.generator.stream, named.generator.shape), ("checkpoint", 0, (12, 64, 32)))
        self.assertEqual((named.extra["checkpoint"], named.extra["layer"]), ("model", 0))

    def test_what_cannot_be_exported_is_said(self):
        with self.assertRaisesRegex(InputError, "layer 1 is no Qwen3 MoE layer"):
            self.export(1)
        with self.assertRaisesRegex(UsageError, r"expected a layer in 0..2, found 3"):
            self.export(3)
        prompt = self.folder / "text.txt"
        for text, message in (("hello", "has no tokenizer"), ("1 320", r"token ids in 0..319"), ("", "one or more token ids")):
            prompt.write_text(text)
            with self.assertRaisesRegex(InputError, message):
                self.export(0, str(prompt))
        with self.assertRaisesRegex(InputError, "expected a checkpoint folder with config.json"):
            list(checkpoint.export_checkpoint(str(self.folder), 0, None, Options(str(self.folder), torch.device("cpu"))))


if __name__ == "__main__":
    unittest.main()
