"""HuggingFace's Qwen3MoeSparseMoeBlock: built empty, poisoned with NaN, filled expert by expert. transformers 5.x and 4.5x."""

import numpy as np
import torch

from .errors import InputError
from .fills import materialise
from .generated import generated_experts
from .progress import Progress
from .schema import array_hash


def to_tensor(bits):
    """A bfloat16 tensor over the same memory as the uint16 `bits`."""
    return torch.from_numpy(np.ascontiguousarray(bits).view(np.int16)).view(torch.bfloat16)


def to_bits(tensor):
    """uint16 bits of a bfloat16 tensor."""
    return tensor.detach().contiguous().cpu().view(torch.int16).numpy().view("<u2")


def new_block(config, device):
    """A bfloat16 block whose every parameter is NaN: what is not filled afterwards is seen."""
    try:
        from transformers.models.qwen3_moe.configuration_qwen3_moe import Qwen3MoeConfig
        from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock
    except ImportError as error:
        raise InputError(f"expected transformers with Qwen3MoeSparseMoeBlock (4.51 or newer): {error}")
    settings = Qwen3MoeConfig(
        hidden_size=config.hidden_size, moe_intermediate_size=config.moe_intermediate_size, num_experts=config.num_experts,
        num_experts_per_tok=config.top_k, norm_topk_prob=config.norm_topk_prob, hidden_act="silu", num_hidden_layers=1,
    )  # fmt: skip
    with torch.device("meta"):
        block = Qwen3MoeSparseMoeBlock(settings)
    block = block.to(torch.bfloat16).to_empty(device=device).eval().requires_grad_(False)
    for parameter in block.parameters():
        parameter.fill_(float("nan"))
    return block


def is_fused(block):
    """Whether the experts are two tensors [E, 2I, H] and [E, H, I] (transformers 5) rather than a list of modules (4.5x)."""
    return hasattr(block.experts, "gate_up_proj")


def expert_parameters(block):
    """(projection, expert, weight) of every expert matrix; projection is "gate_up", "gate", "up" or "down"."""
    if is_fused(block):
        for expert in range(block.experts.gate_up_proj.shape[0]):
            yield "gate_up", expert, block.experts.gate_up_proj[expert]
            yield "down", expert, block.experts.down_proj[expert]
        return
    for expert, module in enumerate(block.experts):
        yield "gate", expert, module.gate_proj.weight
        yield "up", expert, module.up_proj.weight
        yield "down", expert, module.down_proj.weight


def expert_matrix(block, name, expert):
    """One expert's gate_up_proj [2I, H], gate rows first, or down_proj [H, I], as the block holds it."""
    if is_fused(block):
        return getattr(block.experts, name)[expert]
    module = block.experts[expert]
    return torch.cat([module.gate_proj.weight, module.up_proj.weight]) if name == "gate_up_proj" else module.down_proj.weight


def expert_gradient(block, name):
    """(gradient of all experts as one tensor, whether all of it is torch's own): transformers 4 leaves None where an expert had no token."""
    missing = []

    def of(weight):
        if weight.grad is None:
            missing.append(weight)
            return torch.zeros_like(weight)
        return weight.grad

    if is_fused(block):
        whole = of(getattr(block.experts, name))
    elif name == "down_proj":
        whole = torch.stack([of(module.down_proj.weight) for module in block.experts])
    else:
        whole = torch.stack([torch.cat([of(module.gate_proj.weight), of(module.up_proj.weight)]) for module in block.experts])
    return whole, not missing


def _fill_expert(block, name, expert, matrix):
    if is_fused(block):
        getattr(block.experts, name)[expert].copy_(matrix)
    elif name == "down_proj":
        block.experts[expert].down_proj.weight.copy_(matrix)
    else:
        half = matrix.shape[0] // 2
        block.experts[expert].gate_proj.weight.copy_(matrix[:half])
        block.experts[expert].up_proj.weight.copy_(matrix[half:])


@torch.no_grad()
def fill(block, fixture, threads=None):
    """Fills the poisoned block from the fixture's generators. Returns {field: [sha256, ...]}: one hash per expert, one of the gate."""
    gate = materialise(fixture.generators["gate"], "gate")
    block.gate.weight.copy_(to_tensor(gate))
    hashes = {"gate": [array_hash(gate)], "gate_up_proj": [], "down_proj": []}
    with Progress(f"{fixture.name}: generating experts", 2 * fixture.config.num_experts) as progress:
        for name, expert, bits, digest in generated_experts(fixture.generators, threads):
            _fill_expert(block, name, expert, to_tensor(bits))
            hashes[name].append(digest)
            progress.step()
    refuse_unfilled(block)
    return hashes


@torch.no_grad()
def refuse_unfilled(block):
    """Raises InputError when a parameter still holds NaN."""
    for name, parameter in block.named_parameters():
        for index, part in enumerate(parameter):
            if torch.isnan(part).any():
                raise InputError(f"parameter {name} was not filled: row {index} still holds NaN")
