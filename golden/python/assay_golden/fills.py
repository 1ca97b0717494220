"""From a generator to bf16 bits: the table of fills and the table of routings.

Element i comes from word i, in double, rounded once. `fixtures/fill_values.cpp` holds the same formulas; golden/SCHEMA.md specifies them.
"""

from functools import lru_cache

import numpy as np

from .bits import round_to_bf16, widen
from .errors import InputError
from .philox import centred_lane_sums, words

_CHUNK = 1 << 16  # words at a time: half a MiB, inside the second-level cache
_LARGEST_SUM = 131070
ONE = np.uint16(0x3F80)
PLUS_64 = np.uint16(0x4280)
MINUS_64 = np.uint16(0xC280)


@lru_cache(maxsize=8)
def _gaussian_table(scale):
    """Every value n * scale can take; looking up is several times faster than rounding."""
    sums = np.arange(-_LARGEST_SUM, _LARGEST_SUM + 1, dtype=np.float64)
    return round_to_bf16(sums * scale)


def _gaussian(raw, scale):
    return np.take(_gaussian_table(scale), centred_lane_sums(raw) + _LARGEST_SUM)


def _integers(raw, scale):
    return round_to_bf16((((raw >> np.uint64(32)) % np.uint64(7)).astype(np.float64) - 3.0) * scale)


def _wide(raw, scale):
    power = ((raw & np.uint64(0xFFFF)) % np.uint64(17)).astype(np.int32) - 8
    return round_to_bf16(np.ldexp(centred_lane_sums(raw) * scale, power))


def _one_sign(raw, scale):
    return round_to_bf16(np.abs(centred_lane_sums(raw)) * scale)


def _pairs_negated(raw, scale):
    sums = centred_lane_sums(raw).astype(np.float64)
    sums[1::2] = -sums[: 2 * (len(sums) // 2) : 2]  # in double: the negative of 0 is -0
    return round_to_bf16(sums * scale)


def _pairs_near(raw, scale):
    sums = centred_lane_sums(raw).astype(np.float64)
    sums[1::2] = sums[: 2 * (len(sums) // 2) : 2] + sums[1::2] / 64.0
    return round_to_bf16(sums * scale)


def _zeros(raw, scale):
    return np.zeros(len(raw), dtype=np.uint16)


def _ones(raw, scale):
    return np.full(len(raw), round_to_bf16(np.array([scale]))[0], dtype=np.uint16)


# Each takes words that start at an even element, so that pairs are never cut.
FILLS = {
    "gaussian": _gaussian,
    "integers": _integers,
    "wide": _wide,
    "one_sign": _one_sign,
    "pairs_negated": _pairs_negated,
    "pairs_near": _pairs_near,
    "zeros": _zeros,
    "ones": _ones,
}


def _prefer_expert_0(gate):
    gate[0, 0] = PLUS_64


def _shun_odd_experts(gate):
    gate[1::2, 0] = MINUS_64


def _equal_threes(gate):
    rows = np.arange(len(gate))
    gate[:] = gate[rows - rows % 3]


def _all_zero(gate):
    gate[:] = 0


def _times_256(gate):
    gate[:] = round_to_bf16(widen(gate).astype(np.float64) * 256.0)  # a power of two: exact


# Routing: (what happens to gate [E, H], whether column 0 of the input becomes 1).
ROUTINGS = {
    "natural": (None, False),
    "hot_expert": (_prefer_expert_0, True),
    "empty_experts": (_shun_odd_experts, True),
    "tied": (_equal_threes, False),
    "all_tied": (_all_zero, True),
    "saturated": (_times_256, False),
}


def _find(table, what, name):
    if name not in table:
        raise InputError(f"unknown {what} '{name}'; valid: {', '.join(table)}")
    return table[name]


def generate(generator, begin, count):
    """Elements [begin, begin + count) of the flat tensor as bf16 bits, before any routing."""
    fill = _find(FILLS, "fill", generator.fill)
    out = np.empty(count, dtype=np.uint16)
    end = begin + count
    at = begin
    while at < end:
        start = at - at % 2  # a pair's second element needs its first
        stop = min(start + _CHUNK, end)
        raw = words(generator.seed, generator.stream, start, stop - start)
        out[at - begin : stop - begin] = fill(raw, generator.scale)[at - start :]
        at = stop
    return out


def materialise(generator, role):
    """The whole tensor as bf16 bits with its routing. `role` is the field's name: only the gate and the input are steered."""
    shape_gate, first_column_is_one = _find(ROUTINGS, "routing", generator.routing)
    tensor = generate(generator, 0, int(np.prod(generator.shape, dtype=np.int64))).reshape(generator.shape)
    if role == "gate" and shape_gate is not None and tensor.size:
        shape_gate(tensor)
    if role == "input_hidden_states" and first_column_is_one:
        tensor[..., 0] = ONE
    return tensor


def generate_expert(generator, expert):
    """One expert's matrix [rows, columns] of a generator of shape [E, rows, columns]."""
    _, rows, columns = generator.shape
    return generate(generator, expert * rows * columns, rows * columns).reshape(rows, columns)
