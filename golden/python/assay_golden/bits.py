"""bfloat16 as raw bits in uint16: sign 15, exponent 14..7, fraction 6..0. Narrowing rounds once, to nearest even."""

import numpy as np

_DROPPED = 52 - 7  # fraction bits of a double that a bf16 does not have


def round_to_bf16(values):
    """Bits of float64 `values`, each rounded once. Going through float32 would round twice."""
    values = np.asarray(values, dtype=np.float64)
    bits = values.view(np.uint64)
    lowest_kept = (bits >> np.uint64(_DROPPED)) & np.uint64(1)
    rounded = bits + (np.uint64((1 << (_DROPPED - 1)) - 1) + lowest_kept)
    rounded &= ~np.uint64((1 << _DROPPED) - 1)
    magnitude = np.abs(values)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        kept = rounded.view(np.float64)  # eight significant bits: exact in float32 where bf16 is normal
        small = magnitude < 2.0**-126
        if small.any():
            # Below the normal range bf16 has a fixed step of 2^-133; rint rounds ties to even.
            kept = np.where(small, np.copysign(np.rint(magnitude * 2.0**133) * 2.0**-133, values), kept)
        narrow = kept.astype(np.float32)
    result = (narrow.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    special = ~np.isfinite(values)
    if special.any():
        exact = values.astype(np.float32).view(np.uint32) >> np.uint32(16)
        quiet = np.where(np.isnan(values), exact | np.uint32(0x0040), exact)
        result = np.where(special, quiet, result).astype(np.uint16)
    return result


def widen(bits):
    """float32 values of bf16 `bits`; exact."""
    return (np.asarray(bits, dtype=np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
