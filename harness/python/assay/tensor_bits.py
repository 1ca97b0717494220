"""Between tensors and the bits of a file: numpy and torch, bf16 and wider, whatever the device."""

import math
import sys

import numpy as np

from assay_golden.bits import round_to_bf16, widen
from assay_golden.errors import InputError, UsageError
from assay_golden.fields import FIELDS, extents, file_shape

WORDS = {
    "S": "rows of (token, expert), S = tokens · top_k", "T": "tokens", "E": "experts", "K": "top_k", "H": "hidden_size",
    "I": "moe_intermediate_size", "2I": "gate rows, then up rows",
}  # fmt: skip


def is_torch(value):
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def import_torch(why):
    try:
        import torch
    except ImportError as error:
        raise InputError(f"{why} needs torch, and Python at {sys.executable} has no usable one: {error}; leave device out to get numpy arrays")
    return torch


def check_device(name):
    """The torch.device of that name. Raises InputError when there is none."""
    torch = import_torch(f"device={name!r}")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise UsageError(f"unknown device {name!r}: {str(error).splitlines()[0]}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device={str(name)!r}: torch finds no CUDA device here; device=\"cpu\", or none for numpy arrays, works everywhere")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device={str(name)!r}: torch finds {torch.cuda.device_count()} CUDA devices, counted from 0")
    return device


def to_torch(array, dtype, device):
    """A torch tensor on `device` of the raw elements: bfloat16 of uint16 bits, int32 as it is."""
    torch = import_torch("a tensor")
    if dtype == "bfloat16":
        return torch.from_numpy(np.ascontiguousarray(array).view(np.int16)).view(torch.bfloat16).to(device)
    if dtype == "float32":
        return torch.from_numpy(np.array(array, dtype=np.float32)).to(device)
    return torch.from_numpy(np.array(array, dtype=np.int32)).to(device)


def _numpy_of(value):
    """numpy's view of any array; torch's bfloat16 as float32, which is exact."""
    if not is_torch(value):
        return np.asarray(value)
    value = value.detach().cpu()
    torch = sys.modules["torch"]
    return value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()


def bf16_bits(name, value):
    """(uint16 bits, remark) of a bfloat16 field. The remark is empty where the value is bf16 already: torch.bfloat16, numpy's uint16 bits, or
    wider floating-point numbers that are bf16. Others are rounded once, to nearest even. Raises UsageError."""
    torch = sys.modules.get("torch")
    if is_torch(value) and value.dtype == torch.bfloat16:
        return value.detach().contiguous().cpu().view(torch.int16).numpy().view("<u2"), ""
    array = _numpy_of(value)
    if array.dtype == np.uint16:
        return array.astype("<u2", copy=False), ""
    if array.dtype.name == "bfloat16":  # ml_dtypes
        return np.ascontiguousarray(array).view("<u2"), ""
    if array.dtype.kind != "f":
        raise UsageError(f"{name}: expected bf16 (torch.bfloat16, or uint16 bits) or wider floating-point numbers, found {array.dtype}")
    bits = round_to_bf16(array)
    with np.errstate(invalid="ignore"):
        exact = (widen(bits).astype(np.float64) == array) | np.isnan(array)
    if exact.all():
        return bits, ""
    return bits, f"{name} was given as {array.dtype} and {np.count_nonzero(~exact):,} of {array.size:,} elements are no bf16: rounded once, to nearest even, where the contract stores it"


def float32_values(name, value):
    """float32 array of a gradient that is kept so. Raises UsageError where it is of another type: bf16 has lost what float32 keeps."""
    array = _numpy_of(value)
    if array.dtype != np.float32 or (is_torch(value) and str(value.dtype) != "torch.float32"):
        raise UsageError(f"{name}: expected float32, which the contract keeps, found {value.dtype if is_torch(value) else array.dtype}")
    return array.astype("<f4", copy=False)


def int32_values(name, value):
    """int32 array of an index field. Raises UsageError."""
    array = _numpy_of(value)
    if array.dtype.kind not in "iu":
        raise UsageError(f"{name}: expected integers, found {array.dtype}")
    limits = np.iinfo(np.int32)
    if array.size and (array.min() < limits.min or array.max() > limits.max):
        raise UsageError(f"{name}: expected values that fit int32, found {array.min()}..{array.max()}")
    return array.astype("<i4", copy=False)


def _shape_words(name):
    return ", ".join(f"{symbol}: {WORDS[symbol]}" for symbol in FIELDS[name].shape)


def shaped(name, array, problem):
    """`array` in its field's shape in a file. A leading T may be [B, L], a leading S of rows in slot order [T, K]. Raises UsageError."""
    sizes = extents(problem.config, problem.batch * problem.sequence)
    shape = tuple(sizes[symbol] for symbol in FIELDS[name].shape)
    allowed = [shape]
    if FIELDS[name].shape[0] == "T":
        allowed.append((problem.batch, problem.sequence, *shape[1:]))
    if name == "hidden_states_unpermute":
        allowed.append((sizes["T"], sizes["K"], *shape[1:]))
    if array.shape not in allowed:
        raise UsageError(f"{name}: expected shape {list(shape)} ({_shape_words(name)}), found {list(array.shape)}{_shape_hint(name, array, shape, sizes)}")
    return array.reshape(file_shape(name, problem))


def _shape_hint(name, array, shape, sizes):
    if array.ndim == 2 and len(shape) == 2 and array.shape == shape[::-1]:
        return "; it is transposed"
    if array.ndim == len(shape) == 3 and array.shape == (shape[0], shape[2], shape[1]):
        return "; each expert's matrix is transposed"
    others = [other for other, row in FIELDS.items() if other != name and tuple(sizes[s] for s in row.shape) == array.shape and row.group == FIELDS[name].group]
    if others:
        return f"; that is the shape of {' or '.join(others[:3])}"
    return "; the elements are as many, reshape it" if array.size == math.prod(shape) else ""
