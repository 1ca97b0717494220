"""One run of HuggingFace's block with every field of the layer: captured where the code forms it, derived where it never does."""

from dataclasses import dataclass, field

import numpy as np
import torch

from .block import expert_gradient, is_fused
from .errors import InputError
from .generated import EXPERT_WEIGHTS
from .watch import Watch, keep_gradient

IMPLEMENTATIONS = ("grouped_mm", "eager")


@dataclass
class Run:
    fields: dict = field(default_factory=dict)  # name -> tensor (int32 indices as numpy)
    origins: dict = field(default_factory=dict)
    notes: dict = field(default_factory=dict)  # what the run tells about itself, for the provenance

    def captured(self, **tensors):
        self._add("captured", tensors)

    def derived(self, **tensors):
        self._add("derived", tensors)

    def _add(self, origin, tensors):
        for name, tensor in tensors.items():
            self.fields[name] = tensor.detach() if isinstance(tensor, torch.Tensor) else tensor
            self.origins[name] = origin


def refuse_probabilities(logits, weights):
    """Early releases of transformers 5 return the softmax as logits and never round the weights: not the layer to compare with."""
    sums = logits.double().sum(-1)
    softmax = logits.numel() > 0 and bool((logits >= 0).all()) and bool(((sums - 1).abs() < 0.02).all())
    if logits.dtype == torch.float32 or weights.dtype == torch.float32 or softmax:
        raise InputError(
            "this release of transformers returns probabilities as router_logits "
            f"(found {logits.dtype} logits, {weights.dtype} weights); use a release from 2026-04-13 or newer, or 4.5x"
        )


def expert_order(selected, num_experts):
    """(gather_indices [S], token_counts_by_expert [E]) as int32: the stable argsort of the flat slots, and its groups."""
    flat = selected.cpu().numpy().reshape(-1)
    if flat.size and (flat.min() < 0 or flat.max() >= num_experts):
        raise InputError(f"selected_experts: expected 0..{num_experts - 1}, found {flat.min()}..{flat.max()}")
    return np.argsort(flat, kind="stable").astype("<i4"), np.bincount(flat, minlength=num_experts).astype("<i4")


def _check_rows(rows, hidden, tokens, what):
    same = rows.shape == (len(tokens), hidden.shape[1]) and torch.equal(rows, hidden[torch.from_numpy(tokens).to(hidden.device)])
    if not same:
        raise InputError(f"{what} does not read the input rows in the order this exporter knows: the release of transformers is not supported")


def _grouped(hidden, gather, top_k, seen, order):
    """Fields of the grouped products, and where each of their rows belongs: torch.sort is not stable on every device."""
    (permuted, _), (_, second_gemm) = seen["linear"]
    slots = order.cpu().numpy()
    _check_rows(permuted.detach(), hidden, slots // top_k, "the first grouped product")
    place = np.empty(len(gather), dtype=np.int64)
    place[gather] = np.arange(len(gather))
    tensors = {"permuted": permuted, "first_gemm": seen["gate_up"], "intermediate": seen["activated"], "second_gemm": second_gemm}
    return tensors, place[slots]


def _by_expert(products, hidden, gather, counts, top_k, names):
    """Per-expert rows, slot-major as eager walks them, brought into expert order. Each value is a list of (destination rows, tensor)."""
    pieces = {name: [] for name in names}
    end = 0
    for expert, count in enumerate(counts):
        begin, end = end, end + int(count)
        if count == 0:
            continue
        tokens, slots = np.divmod(gather[begin:end], top_k)
        order = np.lexsort((tokens, slots))  # slot first, then token
        where = begin + order
        for name, tensor in products(expert).items():
            if name == "permuted":
                _check_rows(tensor.detach(), hidden, tokens[order], f"expert {expert}")
            pieces[name].append((where, tensor))
    return pieces


def _assemble(pieces, rows, columns, like, pick):
    out = torch.full((rows, columns), float("nan"), dtype=like.dtype, device=like.device)
    for where, tensor in pieces:
        out[torch.from_numpy(where).to(like.device)] = pick(tensor)
    return out


def _expert_products(block, seen):
    """expert -> the tensors of its rows, for fused and for separate gate and up projections. A tuple stands side by side."""
    products = seen.products

    def of(expert):
        if is_fused(block):
            first, second = products["gate_up", expert], products["down", expert]
            return {"permuted": first.rows, "first_gemm": (first.out,), "intermediate": second.rows, "second_gemm": second.out}
        gate, up, down = (products[name, expert] for name in ("gate", "up", "down"))
        return {"permuted": gate.rows, "first_gemm": (gate.out, up.out), "intermediate": down.rows, "second_gemm": down.out}

    def checked(expert):
        try:
            return of(expert)
        except KeyError as error:
            raise InputError(f"no product was seen for {error.args[0]}: the release of transformers is not supported")

    return checked


def _gradient(tensor):
    """The gradient that reached a tensor. Only a problem without tokens may leave none: then it is zero."""
    if tensor.grad is None and tensor.requires_grad and tensor.numel() and tensor.is_leaf is False:
        raise InputError(f"no gradient reached a tensor of shape {list(tensor.shape)}: the release of transformers is not supported")
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _side_by_side(value, get):
    return torch.cat([get(part) for part in value], dim=-1) if isinstance(value, tuple) else get(value)


GRADIENT_OF = {
    "permuted": "d_permuted_hidden_states", "first_gemm": "d_first_gemm",
    "intermediate": "d_intermediate", "second_gemm": "d_second_gemm",
}  # fmt: skip


def run(block, hidden, implementation, top_k, d_output=None, replayed=None):
    """Runs the block on hidden [B, L, H] and returns a Run. With d_output [B, L, H] also backward; with `replayed` [T, K] with these experts."""
    num_experts = block.gate.weight.shape[0]
    grouped = implementation == "grouped_mm"
    if is_fused(block):
        block.experts.config._experts_implementation = implementation
    elif grouped:
        raise InputError("this release of transformers has no grouped_mm: choose --implementation eager")
    backward = d_output is not None
    hidden = hidden.detach().clone().requires_grad_(backward)
    block.requires_grad_(backward).zero_grad(set_to_none=True)
    watch, seen = Watch(block, replayed), {"linear": []}
    with _hooks(block, seen, grouped), torch.set_grad_enabled(backward), watch:
        output = block(hidden)
    output = output[0] if isinstance(output, tuple) else output
    logits, weights, selected = _router(seen, watch.seen)
    if replayed is None:
        refuse_probabilities(logits.detach(), weights.detach())
    result = Run()
    gather, counts = expert_order(selected, num_experts)
    rows = hidden.detach().reshape(-1, hidden.shape[-1])
    result.captured(router_logits=logits, selected_experts=selected.cpu().numpy().astype("<i4"), topk_weights=weights)
    result.derived(token_counts_by_expert=counts, gather_indices=gather)
    if output.requires_grad:  # eager's output is a constant when there is no token
        output.backward(d_output)
    _expert_fields(result, block, rows, gather, counts, top_k, seen if grouped else None, watch.seen, backward)
    inverse = np.empty(len(gather), dtype=np.int64)
    inverse[gather] = np.arange(len(gather))
    second = result.fields["second_gemm"]
    result.derived(hidden_states_unpermute=second[torch.from_numpy(inverse).to(second.device)])
    result.captured(hidden_states=output)
    if backward and not is_fused(block):
        # Two products where the schema means one: what they add up to was rounded between them.
        result.fields.pop("d_permuted_hidden_states")
        result.notes["left_out"] = "d_permuted_hidden_states, d_experts_hidden_states, d_input_hidden_states: gate_proj and up_proj are separate products"
    if backward:
        result.captured(d_topk_weights=_gradient(weights), d_router_logits=_gradient(logits), d_gate=_gradient(block.gate.weight))
        for name in EXPERT_WEIGHTS:
            gradient, own = expert_gradient(block, name)
            (result.captured if own else result.derived)(**{f"d_{name}": gradient})
    if backward and is_fused(block):
        result.captured(
            d_experts_hidden_states=_gradient(seen["experts_input"]).reshape(rows.shape),
            d_input_hidden_states=_gradient(hidden).reshape(rows.shape),
        )
    return result


def _expert_fields(result, block, hidden, gather, counts, top_k, grouped_seen, watched, backward):
    inner = block.gate.weight.shape[1], expert_width(block)
    widths = {"permuted": inner[0], "first_gemm": 2 * inner[1], "intermediate": inner[1], "second_gemm": inner[0]}
    if grouped_seen is not None:
        tensors, where = _grouped(hidden, gather, top_k, grouped_seen, watched.order)
        pieces = {name: [(where, tensor)] for name, tensor in tensors.items()}
    else:
        pieces = _by_expert(_expert_products(block, watched), hidden, gather, counts, top_k, widths)
    moved = any((np.diff(where) != 1).any() for where, _ in pieces["permuted"])
    add = result.derived if moved else result.captured
    for name, width in widths.items():
        if name != "permuted":
            value = _assemble(pieces[name], len(gather), width, hidden, lambda v: _side_by_side(v, torch.Tensor.detach))
            add(**{name: value})
        if backward:
            value = _assemble(pieces[name], len(gather), width, hidden, lambda v: _side_by_side(v, _gradient))
            add(**{GRADIENT_OF[name]: value})


def expert_width(block):
    """I, moe_intermediate_size."""
    return block.experts.down_proj.shape[2] if is_fused(block) else block.experts[0].down_proj.weight.shape[1]


def _router(seen, watched):
    """(logits, weights, selected): the router module's three outputs, or what the older block computes inline."""
    output = seen["router"]
    if isinstance(output, tuple):
        return output
    if watched.weights is None:
        raise InputError("the routing weights were not seen: this release of transformers is not supported")
    return output, watched.weights, watched.selected


class _hooks:
    """While it lasts: the router's outputs and, for grouped products, their operands and results are recorded in `seen`."""

    def __init__(self, block, seen, grouped):
        self.block, self.seen, self.grouped = block, seen, grouped

    def __enter__(self):
        self.handle = self.block.gate.register_forward_hook(self._router)
        if self.grouped:
            from transformers.integrations import moe

            self.module, self.linear = moe, moe._grouped_linear
            moe._grouped_linear = self._linear
            self.block.experts._apply_gate = self._apply_gate
        # The input serves the router and the experts. A view of their own lets the experts' part be seen before the router's is added.
        self.input_handle = self.block.experts.register_forward_pre_hook(self._experts_input) if is_fused(self.block) else None

    def __exit__(self, *_):
        self.handle.remove()
        if self.input_handle is not None:
            self.input_handle.remove()
        if self.grouped:
            self.module._grouped_linear = self.linear
            del self.block.experts._apply_gate

    def _router(self, module, inputs, output):
        self.seen["router"] = output
        for tensor in output[:2] if isinstance(output, tuple) else (output,):
            keep_gradient(tensor)

    def _experts_input(self, module, inputs):
        self.seen["experts_input"] = keep_gradient(inputs[0].view_as(inputs[0]))
        return self.seen["experts_input"], *inputs[1:]

    def _linear(self, rows, *args, **kwargs):
        out = self.linear(rows, *args, **kwargs)
        self.seen["linear"].append((keep_gradient(rows), keep_gradient(out)))
        return out

    def _apply_gate(self, gate_up):
        out = type(self.block.experts)._apply_gate(self.block.experts, gate_up)
        self.seen["gate_up"], self.seen["activated"] = keep_gradient(gate_up), keep_gradient(out)
        return out
