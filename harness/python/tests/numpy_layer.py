"""The layer in numpy as HuggingFace rounds it: double sums, one rounding to bf16 where the model stores a tensor. For the tests: an honest kernel."""

import numpy as np

from assay_golden.bits import round_to_bf16, widen


def bf16(values):
    return widen(round_to_bf16(values)).astype(np.float64)


def forward(problem):
    """{field: array} of the ten fields of the forward pass."""
    x, top_k = problem.input_hidden_states.astype(np.float64), problem.config.top_k
    logits = bf16(x @ problem.gate.astype(np.float64).T)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    chosen = np.argsort(-p, axis=1, kind="stable")[:, :top_k]
    weights = np.take_along_axis(p, chosen, axis=1)
    if problem.config.norm_topk_prob:
        weights = weights / weights.sum(axis=1, keepdims=True)
    weights = bf16(weights)
    slots = chosen.reshape(-1)
    order = np.argsort(slots, kind="stable")
    counts = np.bincount(slots, minlength=problem.config.num_experts)
    ends = np.cumsum(counts)
    rows = x[order // top_k]
    first, inner, second = [], [], []
    for expert, (end, count) in enumerate(zip(ends, counts)):
        mine = rows[end - count : end]
        product = bf16(mine @ problem.gate_up_proj[expert].astype(np.float64).T)
        gate, up = np.split(product, 2, axis=1)
        first.append(product)
        inner.append(bf16(bf16(gate / (1 + np.exp(-gate))) * up))
        second.append(bf16(inner[-1] @ problem.down_proj[expert].astype(np.float64).T))
    first, inner, second = map(np.concatenate, (first, inner, second))
    unpermuted = np.empty_like(second)
    unpermuted[order] = second
    weighted = bf16(unpermuted * weights.reshape(-1, 1)).reshape(len(x), top_k, -1)
    return {
        "router_logits": logits, "selected_experts": chosen, "topk_weights": weights, "token_counts_by_expert": counts, "gather_indices": order,
        "first_gemm": first, "intermediate": inner, "second_gemm": second, "hidden_states_unpermute": unpermuted,
        "hidden_states": bf16(weighted.sum(axis=1)),
    }  # fmt: skip
