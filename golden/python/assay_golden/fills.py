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
FOUR = np.uint16(0x4080)
SIXTEEN = np.uint16(0x4180)
TO_17 = np.uint16(0x4800)  # 2^17
_GROUPS = 8  # of tokens with equal experts, in the exact problems
_COUNTED_ROWS = (33, 0, 17, 1, 16, 32, 15, 6)  # of each expert: 40 tokens with 3 experts each
_GATE_UP_STREAM = 3
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


def _units(raw, scale):
    return round_to_bf16((((raw >> np.uint64(32)) % np.uint64(3)).astype(np.float64) - 1.0) * scale)


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
    "units": _units,
    "units_lifted": _units,
}


def _lift_gate_rows(generator, begin, out):
    """Column 0 of gate_up_proj's gate rows: large enough that silu is the identity."""
    if generator.stream != _GATE_UP_STREAM or len(generator.shape) != 3:
        return
    _, rows, columns = generator.shape
    row = np.arange(-(-begin // columns), -(-(begin + len(out)) // columns))
    out[row[row % rows < rows // 2] * columns - begin] = round_to_bf16(np.array([14.0 * generator.scale]))[0]


# What changes values by their place, after the fill: of any slice [begin, begin + len(out)).
PLACES = {"units_lifted": _lift_gate_rows}


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


def _equal_logits(top_k):
    def shape(gate):
        for group in range(min(_GROUPS, gate.shape[1] - 1)):
            for j in range(min(top_k, len(gate))):
                gate[(3 * group + j) % len(gate), 1 + group] = TO_17

    return shape


def _lift_diagonal(gate):
    side = gate[: len(_COUNTED_ROWS), : len(_COUNTED_ROWS)]
    side[:] = np.where(np.arange(side.shape[0])[:, None] == np.arange(side.shape[1]), FOUR, np.uint16(0))


def _first_column_one(tokens):
    tokens[:, 0] = ONE


def _name_groups(tokens):
    groups = min(_GROUPS, tokens.shape[1] - 1)
    tokens[:, 0] = SIXTEEN
    tokens[:, 1 : 1 + groups] = np.where(np.arange(len(tokens))[:, None] % _GROUPS == np.arange(groups), ONE, np.uint16(0))


def _name_counted_experts(tokens):
    """Rows are dealt to the tokens in turn, one expert after the other: column e is 1 where the token takes expert e."""
    begin = 0
    for expert, rows in enumerate(_COUNTED_ROWS[: tokens.shape[1]]):
        tokens[:, expert] = np.where((np.arange(len(tokens)) - begin) % len(tokens) < rows, ONE, np.uint16(0))
        begin += rows


# Routing: what happens to gate [E, H], and to the input as [T, H].
ROUTINGS = {
    "natural": (None, None),
    "hot_expert": (_prefer_expert_0, _first_column_one),
    "empty_experts": (_shun_odd_experts, _first_column_one),
    "tied": (_equal_threes, None),
    "all_tied": (_all_zero, _first_column_one),
    "saturated": (_times_256, None),
    "equal_4": (_equal_logits(4), _name_groups),
    "equal_8": (_equal_logits(8), _name_groups),
    "counted": (_lift_diagonal, _name_counted_experts),
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
    if generator.fill in PLACES:
        PLACES[generator.fill](generator, begin, out)
    return out


def materialise(generator, role):
    """The whole tensor as bf16 bits with its routing. `role` is the field's name: only the gate and the input are steered."""
    shape_gate, shape_input = _find(ROUTINGS, "routing", generator.routing)
    tensor = generate(generator, 0, int(np.prod(generator.shape, dtype=np.int64))).reshape(generator.shape)
    if role == "gate" and shape_gate is not None and tensor.size:
        shape_gate(tensor)
    if role == "input_hidden_states" and shape_input is not None:
        shape_input(tensor.reshape(-1, generator.shape[-1]))
    return tensor


def generate_expert(generator, expert):
    """One expert's matrix [rows, columns] of a generator of shape [E, rows, columns]."""
    _, rows, columns = generator.shape
    return generate(generator, expert * rows * columns, rows * columns).reshape(rows, columns)
