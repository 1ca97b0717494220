"""MoE layers of other projects, each run as it is and watched from outside: one row a peer in PEERS, one function that calls its layer."""

import importlib
import importlib.metadata
import os
import sys
import types
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Callable

import torch

from .errors import InputError


@dataclass
class Problem:
    """A golden's problem in the device's memory. Routing is the golden's; a peer with a router of its own leaves it alone."""

    config: object
    hidden: torch.Tensor  # [B, L, H]
    gate: torch.Tensor  # [E, H]
    gate_up_proj: torch.Tensor  # [E, 2I, H], gate rows first
    down_proj: torch.Tensor  # [E, H, I]
    selected: torch.Tensor  # [T, K] int64
    weights: torch.Tensor  # [T, K]
    d_output: torch.Tensor | None = None  # [B, L, H]; with it a peer's backward pass runs, too

    def leaves(self):
        """The tensors that gradients are wanted of."""
        return self.hidden, self.gate, self.gate_up_proj, self.down_proj, self.weights


@dataclass(frozen=True)
class Peer:
    name: str
    package: str  # imported from what is installed
    distribution: str  # the package's name when it is installed
    folder: str  # what --path FOLDER holds, and is imported from there
    contract: str  # where the layer rounds, by reading it
    own_router: bool
    unsuitable: Callable  # config -> why its kernels do not take these sizes, or ""
    run: Callable  # (module of its layer, Problem) -> {field: tensor}


@contextmanager
def watched(owner, name):
    """While it lasts, every call of owner.name is kept: [(arguments, keywords, result)]."""
    calls, function = [], getattr(owner, name)

    def watching(*arguments, **keywords):
        result = function(*arguments, **keywords)
        calls.append((arguments, keywords, result))
        return result

    setattr(owner, name, watching)
    try:
        yield calls
    finally:
        setattr(owner, name, function)


@contextmanager
def watched_kernel(owner, name):
    """The same for a Triton kernel, kernel[grid](...): the arguments of every launch."""
    launches, kernel = [], getattr(owner, name)

    class Watching:
        def __getitem__(self, grid):
            def launch(*arguments, **keywords):
                kernel[grid](*arguments, **keywords)
                launches.append(arguments)

            return launch

    setattr(owner, name, Watching())
    try:
        yield launches
    finally:
        setattr(owner, name, kernel)


def in_expert_order(slots, counts, **rows):
    """Fields of rows that stand in a peer's order, brought into the schema's: within an expert, slots ascend. Bits are not touched.

    slots [S]: the flat slot of every row, as the peer's index says. counts [E]: rows of every expert, as the peer counted them.
    """
    if int(counts.sum()) != slots.numel():
        raise InputError(f"its counts add up to {int(counts.sum())} rows, expected {slots.numel()}")
    expert = torch.repeat_interleave(torch.arange(len(counts), device=slots.device), counts.to(slots.device))
    order = torch.argsort(expert * slots.numel() + slots.long())
    moved = {name: value[order] for name, value in rows.items()}
    return {"token_counts_by_expert": counts, "gather_indices": slots[order], **moved}


def keep_gradients(problem, *tensors):
    """Before the backward pass, where there is one: the gradients of these results will be looked at."""
    if problem.d_output is not None:
        for tensor in tensors:
            tensor.retain_grad()


def gradients_of(problem, names, output):
    """Runs the backward pass, where there is one. names: field -> the tensor whose gradient it is, or a function that gives the field."""
    if problem.d_output is None:
        return {}
    output.backward(problem.d_output.reshape(output.shape))
    return {name: value() if callable(value) else value.grad for name, value in names.items()}


# Unsloth: torch's router, SwiGLU and merge around its own grouped product, which rounds to bf16 once: what HuggingFace's grouped_mm does.


def _unsloth_block_k(config):
    """The largest step that divides both reductions: its kernel asks for that."""
    return next((k for k in (64, 32, 16) if config.hidden_size % k == 0 and config.moe_intermediate_size % k == 0), 0)


def _unsloth_unsuitable(config):
    return "" if _unsloth_block_k(config) else "hidden_size and moe_intermediate_size must be multiples of 16"


def _unsloth_settings(config):
    return types.SimpleNamespace(
        hidden_size=config.hidden_size, moe_intermediate_size=config.moe_intermediate_size, num_experts=config.num_experts,
        num_experts_per_tok=config.top_k, norm_topk_prob=config.norm_topk_prob, hidden_act="silu",
    )  # fmt: skip


def _run_unsloth(layer, problem):
    """The fused block with both permutations inside its products; the second product once more without, for its rows in expert order."""
    config = problem.config
    # One fixed size in place of its search over 108. 64 rows and 4 warps: one warpgroup of Hopper's tensor cores.
    sizes = dict(BLOCK_SIZE_M=64, BLOCK_SIZE_N=64, BLOCK_SIZE_K=_unsloth_block_k(config), num_warps=4, num_stages=3)
    # Backward, the columns of the weights are summed over or stored whole: its kernels ask for a size that divides both.
    backward = {**sizes, "BLOCK_SIZE_N": next(n for n in (64, 32, 16) if config.hidden_size % n == 0 and 2 * config.moe_intermediate_size % n == 0)}
    block = layer.Qwen3MoeFusedGroupedGEMMBlock(
        _unsloth_settings(config), problem.gate, problem.gate_up_proj, problem.down_proj, permute_x=True, permute_y=True, autotune=False,
        kernel_config_fwd=layer.KernelConfigForward(**sizes),
        kernel_config_bwd_dW=layer.KernelConfigBackward_dW(**backward), kernel_config_bwd_dX=layer.KernelConfigBackward_dX(**backward),
    )  # fmt: skip
    with (
        watched(block, "run_router") as router, watched(block, "get_token_counts_and_gather_indices") as order,
        watched(block, "act_and_mul") as activation, watched(layer, "grouped_gemm") as products,
    ):  # fmt: skip
        output, logits = block(problem.hidden)
    _, weights, selected = router[0][2]
    counts, gather = order[0][2]
    (_, _, first), (arguments, keywords, unpermuted) = products
    act = activation[0][2]
    with torch.no_grad():
        second = layer.grouped_gemm(*arguments, **{**keywords, "permute_y": False})
    keep_gradients(problem, logits, weights, first, act, unpermuted)
    return {
        "router_logits": logits, "selected_experts": selected, "topk_weights": weights,
        "token_counts_by_expert": counts, "gather_indices": gather, "first_gemm": first, "intermediate": act,
        "second_gemm": second, "hidden_states_unpermute": unpermuted, "hidden_states": output,
        **gradients_of(problem, {
            "d_second_gemm": lambda: unpermuted.grad[gather.long()], "d_topk_weights": weights, "d_intermediate": act,
            "d_down_proj": block.down_proj, "d_first_gemm": first, "d_gate_up_proj": block.gate_up_proj, "d_router_logits": logits,
            "d_gate": block.gate, "d_input_hidden_states": problem.hidden,
        }, output),
    }  # fmt: skip


def _run_unsloth_torch(layer, problem):
    """Its reference in plain torch, one product an expert."""
    block = layer.Qwen3MoeGroupedGEMMBlock(_unsloth_settings(problem.config), problem.gate, problem.gate_up_proj, problem.down_proj)
    with watched(block, "run_router") as router, watched(layer, "permute") as permuted:
        result, logits = block(problem.hidden)
    names = (
        "token_counts_by_expert", "gather_indices", "topk_weights", "first_gemm", "intermediate", "second_gemm", "hidden_states_unpermute",
        "hidden_states",
    )  # fmt: skip
    fields = {name: getattr(result, name) for name in names}
    rows = permuted[0][2]
    keep_gradients(problem, logits, rows, *(fields[name] for name in names[2:6]))
    return {
        "router_logits": logits, "selected_experts": router[0][2][2], **fields,
        **gradients_of(problem, {
            **{f"d_{name}": fields[name] for name in ("second_gemm", "topk_weights", "intermediate", "first_gemm")},
            "d_down_proj": block.down_proj, "d_permuted_hidden_states": rows, "d_gate_up_proj": block.gate_up_proj,
            "d_router_logits": logits, "d_gate": block.gate, "d_input_hidden_states": problem.hidden,
        }, fields["hidden_states"]),
    }  # fmt: skip


# Liger: SwiGLU on the first product's fp32 sums, and weights times rows summed in fp32. Its stored copy of first_gemm is for the backward
# pass: nothing of the forward pass is computed from it, so it is no field of the candidate.


def _given_routing(problem):
    """Gradients of a layer that is given its routing: the input's is the experts' part alone."""
    return {
        "d_experts_hidden_states": lambda: problem.hidden.grad.reshape(-1, problem.config.hidden_size), "d_topk_weights": problem.weights,
        "d_gate_up_proj": problem.gate_up_proj, "d_down_proj": problem.down_proj,
    }  # fmt: skip


def _run_liger(layer, problem):
    hidden = problem.hidden.reshape(-1, problem.config.hidden_size)
    with watched(layer, "compute_routing_metadata") as routing, watched_kernel(layer, "_fused_down_proj_kernel") as down:
        output = layer.LigerFusedMoEFunction.apply(hidden, problem.gate_up_proj, problem.down_proj, problem.selected.int(), problem.weights)
    counts, _, _, slots = routing[0][2][:4]
    # The launch is (post_act, down_proj, expert_start, tile_row_start, tile_expert, Y).
    rows = {"intermediate": down[0][0], "second_gemm": down[0][5]}
    # Backward, d_first_gemm is the tenth argument of one launch, the slots' dX the sixth of another.
    with watched_kernel(layer, "_moe_bwd_down_proj_kernel") as swiglu, watched_kernel(layer, "_moe_bwd_dX_expanded_kernel") as slot_dx:
        gradients = gradients_of(problem, _given_routing(problem), output)
    if gradients:
        rows |= {"d_first_gemm": swiglu[0][9], "d_permuted_hidden_states": slot_dx[0][5]}
    return {**in_expert_order(slots, counts, **rows), "hidden_states": output, **gradients}


# ScatterMoE: torch's SwiGLU with silu rounded, as HuggingFace; but the merge is one bf16 product weights @ rows, summed in fp32.


def _run_scattermoe(layer, problem):
    config = problem.config
    width = config.moe_intermediate_size
    with torch.device("meta"):
        mlp = layer.GLUMLP(config.hidden_size, width, config.num_experts, config.top_k, activation=torch.nn.SiLU())

    def swapped(halves):  # its first half is up, its second gate
        return torch.cat([halves[..., width:], halves[..., :width]], dim=-1)

    backward = problem.d_output is not None
    first_weight = swapped(problem.gate_up_proj.detach().transpose(1, 2)).transpose(1, 2).contiguous()
    mlp.experts.weight = torch.nn.Parameter(first_weight, requires_grad=backward)
    mlp.output_experts.weight = torch.nn.Parameter(problem.down_proj.detach(), requires_grad=backward)
    hidden = problem.hidden.reshape(-1, config.hidden_size)
    kernels = importlib.import_module(layer.__name__.rpartition(".")[0] + ".kernels.ops")
    # Its sort and count are under torch.compile, which takes longer than the layer and changes no bit of them.
    torch.compiler.set_stance("force_eager")
    with watched(kernels, "scatter2scatter") as products, watched(mlp.experts, "forward") as experts:
        output = mlp(hidden, problem.weights, problem.selected)
    _, _, _, slots, ends = experts[0][0]  # (x, k, sorted_expert_idxs, sorted_scattered_idxs, expert_offsets)
    counts = torch.diff(ends, prepend=ends.new_zeros(1))
    (_, _, first), (_, second, unpermuted) = products
    first = experts[0][2]
    rows = {"first_gemm": swapped(first.detach()), "intermediate": second["X"]}
    unpermuted = unpermuted.clone()  # its backward pass uses the buffer again
    keep_gradients(problem, first)
    with watched(kernels, "scatter2scatter") as products, watched(kernels, "group") as gathers:
        gradients = gradients_of(problem, {
            "d_experts_hidden_states": lambda: problem.hidden.grad.reshape(-1, config.hidden_size), "d_topk_weights": problem.weights,
            "d_gate_up_proj": lambda: swapped(mlp.experts.weight.grad.transpose(1, 2)).transpose(1, 2),
            "d_down_proj": mlp.output_experts.weight,
        }, output)  # fmt: skip
    if gradients:
        slot_dx = products[1][2].reshape(len(slots), -1)
        rows |= {
            "d_second_gemm": gathers[0][2], "d_intermediate": products[0][2], "d_first_gemm": swapped(first.grad),
            "d_permuted_hidden_states": slot_dx[slots],
        }  # fmt: skip
    return {**in_expert_order(slots, counts, **rows), "hidden_states_unpermute": unpermuted, "hidden_states": output, **gradients}


# SonicMoE: products and SwiGLU by quack's kernels, fp32 in registers. Its stored copy of first_gemm serves the backward pass alone.


def _run_sonicmoe(layer, problem):
    config = problem.config
    tokens, top_k = problem.selected.shape
    tuner = importlib.import_module("quack.autotuner")
    for kernel in vars(importlib.import_module("quack.gemm_interface")).values():
        if isinstance(kernel, tuner.Autotuner):  # its own default in place of a search of minutes; a tile changes no rounding point
            kernel.configs = [tuner.AutotuneConfig(config=None)]

    def interleaved(halves):  # its rows are gate 0, up 0, gate 1, ...
        gate, up = halves.chunk(2, dim=1)
        return torch.stack([gate, up], dim=2).reshape(halves.shape)

    def apart(rows):
        return torch.cat([rows[:, 0::2], rows[:, 1::2]], dim=1)

    backward = problem.d_output is not None
    first_weight = interleaved(problem.gate_up_proj.detach()).contiguous().requires_grad_(backward)
    token = torch.arange(tokens, dtype=torch.int32, device=problem.selected.device).repeat_interleave(top_k)
    scores = problem.weights.reshape(-1).float()
    with (
        watched(layer, "general_routing_router_metadata_triton") as routing, watched(layer, "_up_projection_forward") as up,
        watched(layer, "_down_projection_forward") as down,
    ):  # fmt: skip
        output, _ = layer.moe_general_routing_inputs(
            problem.hidden.reshape(-1, config.hidden_size), scores, token, problem.selected.reshape(-1).int(),
            first_weight.permute(1, 2, 0), None, problem.down_proj.permute(1, 2, 0), None, config.num_experts,
            torch.cuda.current_stream().cuda_stream, layer.ActivationType.SWIGLU,
        )  # fmt: skip
    counts, slots = routing[0][0][4], routing[0][0][7]
    rows = {"intermediate": up[0][1]["a"], "second_gemm": down[0][1]["y"]}
    with watched(layer, "_down_projection_backward_act") as swiglu, watched(layer, "_up_projection_backward_act") as slot_dx:
        gradients = gradients_of(problem, {
            **_given_routing(problem), "d_gate_up_proj": lambda: torch.cat([first_weight.grad[:, 0::2], first_weight.grad[:, 1::2]], dim=1),
        }, output)  # fmt: skip
    if gradients:
        rows |= {"d_first_gemm": apart(swiglu[0][1]["dh"]), "d_permuted_hidden_states": slot_dx[0][1]["dx_expanded"]}
    return {**in_expert_order(slots, counts, **rows), "hidden_states": output, **gradients}


def _any_size(config):
    return ""


# fmt: off
PEERS = {peer.name: peer for peer in (
    Peer("unsloth", "unsloth.kernels.moe.grouped_gemm.reference.layers.qwen3_moe", "unsloth", "grouped_gemm.reference.layers.qwen3_moe",
         "unsloth", True, _unsloth_unsuitable, _run_unsloth),
    Peer("unsloth_torch", "unsloth.kernels.moe.grouped_gemm.reference.layers.qwen3_moe", "unsloth", "grouped_gemm.reference.layers.qwen3_moe",
         "hf", True, _any_size, _run_unsloth_torch),
    Peer("liger", "liger_kernel.ops.fused_moe", "liger-kernel", "liger_kernel.ops.fused_moe", "fused_fp32", False, _any_size, _run_liger),
    Peer("sonicmoe", "sonicmoe.functional", "sonic-moe", "sonicmoe.functional", "fused_fp32", False, _any_size, _run_sonicmoe),
    Peer("scattermoe", "scattermoe.mlp", "scattermoe", "scattermoe.mlp", "hf_fp32_merge", False, _any_size, _run_scattermoe),
)}
# fmt: on


def import_layer(peer, path=None):
    """The module of a peer's layer: installed, or from the sources in the folder `path`. Raises InputError in one sentence."""
    os.environ.setdefault("LIGER_FUSED_MOE_AUTOTUNE", "0")  # read when it is imported: one fixed tile size in place of a search
    top = peer.folder.partition(".")[0]
    if path is not None:
        if not os.path.isdir(os.path.join(path, top)):
            raise InputError(f"peer {peer.name}: expected a folder {top} in {path}, found none")
        sys.path.insert(0, os.fspath(path))
        if peer.name.startswith("unsloth") and "unsloth" not in sys.modules:
            # Its kernels ask the whole package for one constant; this is all of it that they use.
            sys.modules["unsloth"] = types.ModuleType("unsloth")
            sys.modules["unsloth"].DEVICE_TYPE = "cuda"
    name = peer.package if path is None else peer.folder
    try:
        return importlib.import_module(name)
    except Exception as error:  # a foreign package may raise anything while it is imported
        reason = " ".join(str(error).split()) or type(error).__name__
        hint = f"; install it, or name the folder that holds its sources' {top} with --path" if path is None else f" (from {path})"
        raise InputError(f"peer {peer.name}: cannot import {name}: {reason}{hint}")


def installed_version(peer):
    """The release of the installed package a peer is imported from, or ""."""
    try:
        return importlib.metadata.version(peer.distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
