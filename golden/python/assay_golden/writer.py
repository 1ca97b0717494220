"""Lets a PyTorch or numpy user write what a kernel computed, to be judged by `assay verify --pipeline dump:FILE`.

    from assay_golden import Candidate
    candidate = Candidate.like("golden.h5", producer="my kernel", contract="hf")
    candidate.add("hidden_states", output)   # torch.bfloat16, or numpy uint16 with the bits
    candidate.write("mine.h5")
"""

import re
import sys

import numpy as np

from . import schema
from .errors import InputError, UsageError
from .fields import BATCHED, WEIGHT_GRADIENTS, dtypes_of, file_shape, find_field, is_padded

PRODUCTS = schema.PRODUCTS
CONTRACTS = (*schema.CONTRACTS, "auto")  # auto: the judge says which one the data follow
_ACCUMULATOR = re.compile(
    r"unknown|fp32_sequential|fp32_pairwise|ampere|hopper|hopper_any_split|hopper_split\(\d+(, ?\d+)*\)|hopper_descending\(\d+\)|hopper_interleaved\(\d+, ?\d+\)"
)


def _shape(extents):
    return "[" + ", ".join(map(str, extents)) + "]"


class Candidate:
    """Results of one kernel on a golden's problem. The inputs and weights, or the generators' attributes, are the golden's."""

    def __init__(self, file):
        self._file = file

    @classmethod
    def like(cls, golden, producer, contract="hf", accumulators=None, provenance=None, ties="any", row_order="ascending", row_alignment=1):
        """A candidate of the problem of the file `golden`. Raises InputError when it cannot be read, UsageError on unknown names.

        accumulators: {"router"|"gate_up"|"down"|"down_dx"|...: "hopper", ...}, only what the kernel is known to do; absent means unknown.
            "rest": "torch" promises that softmax, expf and the sums over slots are bit for bit those of torch's CUDA kernels.
        ties: "lowest_index" for a kernel that takes the lowest index among equal probabilities; "any" otherwise.
        row_order: "any" for a kernel that writes an expert's rows in the order in which they come; "ascending" slots otherwise.
        row_alignment: n for a kernel that pads every expert's rows to a multiple of n; fields in expert order are added with their padding.
        """
        return cls.on(schema.read(golden), producer, contract, accumulators, provenance, ties, golden, row_order, row_alignment)

    @classmethod
    def on(cls, source, producer, contract="hf", accumulators=None, provenance=None, ties="any", where="the problem", row_order="ascending", row_alignment=1):
        """The same on a problem that has been read: a schema.File. `where` names it in errors."""
        if contract not in CONTRACTS:
            raise UsageError(f"unknown contract '{contract}'; valid: {', '.join(CONTRACTS)}")
        for product, accumulator in (accumulators or {}).items():
            if (product, accumulator) == ("rest", "torch"):
                continue
            if product not in PRODUCTS or not _ACCUMULATOR.fullmatch(accumulator):
                raise UsageError(
                    f"unknown accumulator '{accumulator}' of '{product}'; valid products: {', '.join(PRODUCTS)}; valid forms: unknown, "
                    "fp32_sequential, fp32_pairwise, ampere, hopper, hopper_any_split, hopper_split(k1, k2, ...), hopper_descending(b), hopper_interleaved(p, b)"
                )
        if ties not in ("any", "lowest_index"):
            raise UsageError(f"unknown tie rule '{ties}'; valid: any, lowest_index")
        if row_order not in ("ascending", "any"):
            raise UsageError(f"unknown row order '{row_order}'; valid: ascending, any")
        if not 1 <= row_alignment <= 65536:
            raise UsageError(f"row_alignment: expected 1 to 65536, found {row_alignment}")
        given = {key: tensor for key, tensor in source.tensors.items() if key[0] in ("inputs", "weights", "previous")}
        if ("inputs", "input_hidden_states") not in given:
            raise InputError(f"{where} has no input_hidden_states: a candidate needs a problem")
        return cls(schema.File(
            source.config, source.batch, source.sequence, given, "candidate", source.fixture, source.seed, contract,
            dict(accumulators or {}), producer, provenance={key: str(value) for key, value in (provenance or {}).items()}, ties=ties, row_order=row_order,
            row_alignment=row_alignment,
        ))  # fmt: skip

    def add(self, name, tensor):
        """One field: torch.bfloat16 or numpy uint16 bits for bfloat16 fields, integers for index fields. Returns self.

        Float32 where the contract keeps the field so (gradients of weights under hf_main_grads, topk_weights under vllm, ...), either under auto."""
        field = find_field(name)
        if field.group not in ("forward", "backward"):
            raise UsageError(f"{name} is given by the golden; add what the kernel computed")
        dtype, data = self._elements(name, dtypes_of(name, self._file.contract), tensor)
        return self._keep(field.group, name, dtype, data)

    def add_previous(self, name, tensor):
        """A weight's gradient of before, to which the kernel added its own: torch.bfloat16 or float32, or numpy's. Replaces the problem's. Returns self."""
        if name not in WEIGHT_GRADIENTS:
            raise UsageError(f"{name} is no gradient of a weight; valid: {', '.join(WEIGHT_GRADIENTS)}")
        dtype, data = self._elements(name, ("bfloat16", "float32"), tensor)
        return self._keep("previous", name, dtype, data)

    def _keep(self, group, name, dtype, data):
        expected = file_shape(name, self._file)
        if self._file.row_alignment > 1 and is_padded(name) and data.shape[:1] >= expected[:1]:
            expected = (data.shape[0], *expected[1:])
        flat = (self._file.batch * self._file.sequence, *expected[2:]) if name in BATCHED else expected
        if data.shape not in (expected, flat):
            alternative = f" or {_shape(expected)}" if expected != flat else ""
            raise UsageError(f"{name}: expected shape {_shape(flat)}{alternative}, found {_shape(data.shape)}")
        self._file.tensors[group, name] = schema.Stored(data.reshape(expected), dtype, "computed")
        return self

    def hold(self, name, tensor, counts, rows=32):
        """A gradient too large to store, torch.bfloat16: a hash of every expert's part, and the first rows of the fullest expert and of one
        without rows. counts [E]: rows of every expert. Returns self."""
        from .held import hold  # needs torch

        field = find_field(name)
        expected = file_shape(name, self._file)
        if field.group != "backward" or tuple(tensor.shape) != expected:
            raise UsageError(f"{name}: expected a gradient of shape {_shape(expected)}, found {_shape(tensor.shape)}")
        self.note_device(tensor)
        counts = counts.cpu().numpy() if hasattr(counts, "cpu") else np.asarray(counts)
        self._file.tensors[field.group, name] = hold(name, tensor, "computed", counts, rows, self._file)
        return self

    def write(self, path, compress=4):
        """Writes the file whole or not at all. Returns its content hash."""
        if not any(group in ("forward", "backward") for group, _ in self._file.tensors):
            raise UsageError("the candidate has no field: add at least one")
        return schema.write(path, self._file, compress)

    def _elements(self, name, dtypes, tensor):
        """(dtype, raw elements) of a tensor that may have any of the dtypes."""
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(tensor, torch.Tensor):
            return self._from_torch(torch, name, dtypes, tensor.detach())
        array = np.asarray(tensor)
        if "int32" in dtypes:
            return "int32", _as_int32(name, array)
        if "float32" in dtypes and array.dtype == np.float32:
            return "float32", array.astype("<f4")
        if "bfloat16" not in dtypes:
            raise UsageError(f"{name}: expected float32, which the contract {self._file.contract} keeps, found {array.dtype}")
        if array.dtype != np.uint16:
            raise UsageError(f"{name}: expected bfloat16 bits as numpy uint16 (or a torch.bfloat16 tensor), found {array.dtype}")
        return "bfloat16", array.astype("<u2")

    def note_device(self, tensor):
        """Records the GPU that a torch tensor lies on, the first time: predicted bits are those of a device."""
        torch = sys.modules["torch"]
        if tensor.is_cuda and not self._file.device:
            self._file.device = torch.cuda.get_device_name(tensor.device)
            self._file.compute_capability = "{}.{}".format(*torch.cuda.get_device_capability(tensor.device))

    def _from_torch(self, torch, name, dtypes, tensor):
        self.note_device(tensor)
        if "int32" in dtypes:
            return "int32", _as_int32(name, tensor.cpu().numpy() if not tensor.is_floating_point() else np.empty(0, np.float32))
        if "float32" in dtypes and tensor.dtype == torch.float32:
            return "float32", tensor.contiguous().cpu().numpy().astype("<f4", copy=False)
        if "bfloat16" not in dtypes:
            raise UsageError(f"{name}: expected torch.float32, which the contract {self._file.contract} keeps, found {tensor.dtype}")
        if tensor.dtype != torch.bfloat16:
            raise UsageError(f"{name}: expected torch.bfloat16, found {tensor.dtype}; round it where the kernel rounds it")
        return "bfloat16", tensor.contiguous().cpu().view(torch.int16).numpy().view("<u2")


def _as_int32(name, array):
    if array.dtype.kind not in "iu":
        raise UsageError(f"{name}: expected integers, found {array.dtype}")
    limits = np.iinfo(np.int32)
    if array.size and (array.min() < limits.min or array.max() > limits.max):
        raise UsageError(f"{name}: expected values that fit int32, found {array.min()}..{array.max()}")
    return array.astype("<i4")
