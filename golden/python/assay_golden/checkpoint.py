"""Goldens of a real model: one layer of a local checkpoint with the input that the layer really sees."""

import os
import sys

import numpy as np
import torch

from .block import expert_matrix, refuse_unfilled, to_bits
from .errors import InputError, UsageError
from .export import all_experts, run_and_write
from .fixture import Config, Generator
from .generated import EXPERT_WEIGHTS
from .philox import words
from .schema import File, Regenerated, Stored, array_hash

LARGEST_STORED = 8 << 20  # bytes of expert weights
_DEFAULT_LENGTH = 16
_PROMPT_STREAM = 6


def _load(folder, device):
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    if not os.path.isfile(os.path.join(folder, "config.json")):
        raise InputError(f"expected a checkpoint folder with config.json, found none in {folder}")
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.bfloat16)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"cannot load the model in {folder}: {reason}")
    return model.eval().to(device)


def _block_of(model, layer):
    layers = model.model.layers
    if not 0 <= layer < len(layers):
        raise UsageError(f"expected a layer in 0..{len(layers) - 1}, found {layer}")
    block = layers[layer].mlp
    if type(block).__name__ != "Qwen3MoeSparseMoeBlock":
        raise InputError(f"layer {layer} is no Qwen3 MoE layer: its mlp is {type(block).__name__}")
    config = model.config
    if config.hidden_act != "silu":
        raise InputError(f"expected hidden_act silu, found {config.hidden_act}")
    return block, Config(
        config.hidden_size, config.moe_intermediate_size, config.num_experts, config.num_experts_per_tok, bool(config.norm_topk_prob)
    )


def _prompt(folder, path, vocabulary):
    """(token ids, how they came about)."""
    if path is None:
        ids = (words(0, _PROMPT_STREAM, 0, _DEFAULT_LENGTH) % np.uint64(vocabulary)).astype(np.int64).tolist()
        return ids, f"{_DEFAULT_LENGTH} seeded token ids: no prompt was given"
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the prompt {path}: {error}")
    if any(os.path.isfile(os.path.join(folder, name)) for name in ("tokenizer.json", "vocab.json")):
        from transformers import AutoTokenizer

        ids, how = AutoTokenizer.from_pretrained(folder, local_files_only=True)(text)["input_ids"], "text through the checkpoint's tokenizer"
    else:
        try:
            ids, how = [int(word) for word in text.split()], "token ids: the checkpoint has no tokenizer"
        except ValueError:
            raise InputError(f"{folder} has no tokenizer, so {path} must hold token ids separated by spaces")
    if not ids or min(ids) < 0 or max(ids) >= vocabulary:
        raise InputError(f"{path}: expected one or more token ids in 0..{vocabulary - 1}, found {ids[:8]}")
    return ids, how


def _true_input(model, block, ids, device):
    """What the layer's MoE block receives when the model reads the prompt: [1, L, H]."""
    seen = []
    handle = block.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    try:
        with torch.no_grad():
            model(input_ids=torch.tensor([ids], device=device), use_cache=False)
    finally:
        handle.remove()
    return seen[0]


def export_checkpoint(folder, layer, prompt, options):
    """Writes `<folder>.layer<N>.<implementation>.h5`. Yields (path, content hash). Raises InputError."""
    model = _load(folder, options.device)
    block, config = _block_of(model, layer)
    refuse_unfilled(block)
    ids, how = _prompt(folder, prompt, model.config.vocab_size)
    hidden = _true_input(model, block, ids, options.device)
    source = os.path.basename(os.path.abspath(folder))
    name = f"{source}.layer{layer}"
    file = File(config, 1, len(ids), fixture=name, seed=0)
    file.provenance = {"checkpoint": source, "layer": str(layer), "prompt": how, "token_ids": " ".join(map(str, ids[:64]))}
    file.tensors["inputs", "input_hidden_states"] = Stored(to_bits(hidden), "bfloat16", "captured")
    file.tensors["weights", "gate"] = Stored(to_bits(block.gate.weight), "bfloat16", "captured")
    for weight in EXPERT_WEIGHTS:
        file.tensors["weights", weight] = _weight(block, config, weight, source, layer)
    yield from run_and_write(options, file, block, hidden, None, name, with_oracle=False)


def _weight(block, config, name, source, layer):
    size = 3 * config.num_experts * config.moe_intermediate_size * config.hidden_size * 2
    if size < LARGEST_STORED:
        return Stored(all_experts(block, name), "bfloat16", "captured")
    rows = {"gate_up_proj": (2 * config.moe_intermediate_size, config.hidden_size),
            "down_proj": (config.hidden_size, config.moe_intermediate_size)}[name]  # fmt: skip
    hashes = [array_hash(to_bits(expert_matrix(block, name, expert))) for expert in range(config.num_experts)]
    generator = Generator("checkpoint", "", 0, layer, (config.num_experts, *rows), 0.0)
    return Regenerated(generator, hashes, {"checkpoint": source, "layer": np.int64(layer)})
