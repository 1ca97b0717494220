"""Tensors too large to store: held by a hash of every part, with some rows stored for the judge to look at."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from .block import to_bits
from .fields import FIELDS, file_shape, is_by_expert
from .schema import Held, array_hash

# The gradients of the weights are as large as the weights.
OF_WEIGHTS = ("d_gate", "d_gate_up_proj", "d_down_proj")


@dataclass(frozen=True)
class Policy:
    """What a file holds by hash, and how many rows of it are stored."""

    fields: frozenset  # held whatever their size
    largest: int  # bytes; a larger field of forward or backward is held, too
    rows: int


def policy(implementation, stores_weights, largest):
    """Small problems store everything. Of a full-width one grouped_mm stores what has a row per slot or token, eager nothing of backward."""
    if stores_weights:
        return Policy(frozenset(), 1 << 62, 0)
    if implementation == "eager":
        return Policy(frozenset(name for name, field in FIELDS.items() if field.group == "backward"), largest, 8)
    return Policy(frozenset(OF_WEIGHTS), largest, 32)


def is_held(rule, name, tensor):
    """Whether a field is held. Index fields are always stored: later stages replay the routing."""
    if FIELDS[name].dtype != "bfloat16":
        return False
    return name in rule.fields or tensor.numel() * tensor.element_size() > rule.largest


def stored_rows(name, shape, counts, rows):
    """(first, count) of the stored rows of a tensor seen as [rows, columns]: of an expert's matrix, the fullest expert's and one's without rows."""
    if len(shape) < 3:
        return [(0, min(rows, shape[0]))] if shape[0] else []
    fullest, empty = int(np.argmax(counts)), np.flatnonzero(counts == 0)[:1].tolist()
    return [(expert * shape[1], min(rows, shape[1])) for expert in sorted({fullest, *empty})]


@torch.no_grad()
def hold(name, tensor, origin, counts, rows, problem, threads=None):
    """The Held of a bfloat16 field, whose parts are brought to the host one by one. counts [E]: rows of every expert."""
    shape = file_shape(name, problem)
    tensor = tensor.detach().reshape(shape)
    parts = list(tensor) if is_by_expert(name) else [tensor]
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        hashes = list(pool.map(lambda part: array_hash(to_bits(part)), parts))
    flat = tensor.reshape(-1, shape[-1])
    chosen = stored_rows(name, tuple(tensor.shape) if name != "hidden_states" else tuple(flat.shape), counts, rows)
    kept = [to_bits(flat[first : first + count]) for first, count in chosen]
    data = np.concatenate(kept) if kept else np.empty((0, shape[-1]), dtype="<u2")
    return Held("bfloat16", shape, hashes, chosen, data, origin)
