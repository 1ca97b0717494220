"""From a fixture to golden files: the block is built and filled once, run in every implementation, and written."""

import copy
import os
import sys
from dataclasses import dataclass, field

import numpy as np
import torch

from . import capture
from .block import expert_matrix, fill, is_fused, new_block, to_bits, to_tensor
from .errors import InputError
from .fields import FIELDS, file_shape
from .fills import materialise
from .generated import EXPERT_WEIGHTS
from .held import hold, is_held, policy
from .provenance import compute_capability, device_name
from .schema import FORWARD_PRODUCTS, PRODUCTS, File, Regenerated, Stored, array_hash, write

CONTRACT = {"grouped_mm": "hf", "eager": "hf_eager"}


@dataclass(frozen=True)
class Options:
    out: str
    device: torch.device
    implementation: str = "both"
    compress: int = 4
    threads: int | None = None
    provenance: dict = field(default_factory=dict)
    largest: int = 1 << 62  # bytes of a field; a larger one of a problem whose weights are not stored is held by its hashes


def chosen(implementation, block):
    """The implementations to run; "both" is all that this release of transformers has."""
    if implementation != "both":
        return (implementation,)
    if is_fused(block):
        return capture.IMPLEMENTATIONS
    print("assay_golden: this release of transformers has no grouped_mm; only eager is exported", file=sys.stderr)
    return ("eager",)


def grouped_kernel(block):
    """What transformers' grouped_mm calls here: torch's kernel, or a loop of ordinary products."""
    from transformers.integrations import moe

    weight = block.experts.gate_up_proj
    rows = torch.empty(1, weight.shape[2], dtype=weight.dtype, device=weight.device)
    usable = getattr(moe, "_can_use_grouped_mm", None)
    offsets = torch.zeros(weight.shape[0], dtype=torch.int32, device=weight.device)
    if usable is not None and not usable(rows, weight.transpose(-2, -1), offsets):
        return "fallback loop"
    return "torch.nn.functional.grouped_mm" if hasattr(torch.nn.functional, "grouped_mm") else "torch._grouped_mm"


def grouped_backend(kernel):
    """Whose kernels torch runs for a grouped product on a GPU: "cutlass", "cublaslt", or "" where that is not known.

    cuBLASLt came with a switch, in a release after 2.12; before it there was only CUTLASS.
    """
    if kernel == "fallback loop" or not torch.cuda.is_available():
        return ""
    switch = getattr(torch.backends.cuda.matmul, "prefer_cublaslt_grouped_gemm", None)
    if switch is not None:
        return "cublaslt" if switch else "cutlass"
    release = tuple(int(part) for part in torch.__version__.split(".")[:2])
    return "cutlass" if release <= (2, 12) else ""


def accumulators(implementation, device, kernel, backend):
    """Declared only where it was measured: Hopper's tensor cores; cuBLAS may split K, CUTLASS's grouped kernels do not."""
    if not compute_capability(device).startswith("9."):
        return dict.fromkeys(FORWARD_PRODUCTS, "unknown")
    experts = "hopper_any_split"
    if implementation == "grouped_mm" and kernel != "fallback loop":
        experts = "hopper" if backend == "cutlass" else "unknown"
    return {product: "hopper_any_split" if product.startswith("router") else experts for product in PRODUCTS}


def stored(name, tensor, origin, problem):
    """A field's tensor as the file holds it."""
    if isinstance(tensor, np.ndarray):
        data, dtype = tensor, "int32"
    elif tensor.dtype == torch.float64:
        data, dtype = tensor.detach().cpu().contiguous().numpy(), "float64"
    elif tensor.dtype == torch.bfloat16:
        data, dtype = to_bits(tensor), "bfloat16"
    else:
        raise InputError(f"{name}: expected bfloat16 from the layer, found {tensor.dtype}")
    return Stored(data.reshape(file_shape(name, problem)), dtype, origin)


def _add_run(file, run, rule, threads):
    for name, tensor in run.fields.items():
        key, origin = (FIELDS[name].group, name), run.origins[name]
        if is_held(rule, name, tensor):
            file.tensors[key] = hold(name, tensor, origin, run.fields["token_counts_by_expert"], rule.rows, file, threads)
        else:
            file.tensors[key] = stored(name, tensor, origin, file)


def add_oracle(file, block, hidden, d_output, run):
    """The same layer once more in float64, with the run's experts replayed, so that it differs by rounding alone."""
    replayed = torch.from_numpy(run.fields["selected_experts"].astype(np.int64)).to(hidden.device)
    exact = copy.deepcopy(block).double()
    d_output = None if d_output is None else d_output.double()
    oracle = capture.run(exact, hidden.double(), "eager", file.config.top_k, d_output, replayed)
    for name, tensor in oracle.fields.items():
        if FIELDS[name].dtype == "bfloat16":
            file.tensors["oracle", name] = stored(name, tensor, oracle.origins[name], file)


def run_and_write(options, file, block, hidden, d_output, name, with_oracle):
    """Runs every implementation on the filled block and writes `<name>.<implementation>.h5`. `file` holds inputs and weights.

    Yields (path, content hash). Raises InputError.
    """
    given, about = dict(file.tensors), dict(file.provenance)
    for implementation in chosen(options.implementation, block):
        file.tensors = dict(given)
        grouped = implementation == "grouped_mm" and is_fused(block)
        kernel = grouped_kernel(block) if grouped else "torch.nn.functional.linear"
        backend = grouped_backend(kernel) if grouped and options.device.type == "cuda" else ""
        try:
            run = capture.run(block, hidden, implementation, file.config.top_k, d_output)
            if with_oracle:
                add_oracle(file, block, hidden, d_output, run)
        except RuntimeError as error:  # torch's word for unsupported sizes and a full device
            raise InputError(f"{name}: {implementation} does not run on {options.device.type}: {' '.join(str(error).split())}")
        stores_weights = isinstance(given["weights", "down_proj"], Stored)
        _add_run(file, run, policy(implementation, stores_weights, options.largest), options.threads)
        file.contract = CONTRACT[implementation]
        file.producer = f"huggingface {implementation}"
        file.device, file.compute_capability = device_name(options.device), compute_capability(options.device)
        file.accumulators = accumulators(implementation, options.device, kernel, backend)
        kernels = {"experts_implementation": implementation, "experts_kernel": kernel, "grouped_backend": backend}
        file.provenance = {**options.provenance, **about, **run.notes, **{key: value for key, value in kernels.items() if value}}
        del run
        block.zero_grad(set_to_none=True)  # as large as the weights
        path = os.path.join(options.out, f"{name}.{implementation}.h5")
        yield path, write(path, file, options.compress)


def export_fixture(fixture, options):
    """Writes the fixture's goldens, forward and backward. Small fixtures store everything, also float64; others name their weights and hold
    the largest gradients by their hashes.

    Yields (path, content hash) as files are finished. Raises InputError.
    """
    if fixture.previous:
        raise InputError(f"fixture {fixture.name} has gradients of before, to which no exported layer adds")
    block = new_block(fixture.config, options.device)
    hashes = fill(block, fixture, options.threads)
    file = File(fixture.config, fixture.batch, fixture.sequence, fixture=fixture.name, seed=fixture.seed)
    inputs = {}
    for name in ("input_hidden_states", "d_hidden_states"):
        if name in fixture.generators:
            inputs[name] = materialise(fixture.generators[name], name)
            _add_given(file, fixture, name, inputs[name], [array_hash(inputs[name])])
    for name in ("gate", *EXPERT_WEIGHTS):
        bits = None
        if fixture.store_weights:
            bits = to_bits(block.gate.weight) if name == "gate" else all_experts(block, name)
        _add_given(file, fixture, name, bits, hashes[name])
    shape = (fixture.batch, fixture.sequence, fixture.config.hidden_size)
    on_device = {name: to_tensor(bits).reshape(shape).to(options.device) for name, bits in inputs.items()}
    yield from run_and_write(
        options, file, block, on_device["input_hidden_states"], on_device.get("d_hidden_states"), fixture.name, fixture.store_weights
    )


def all_experts(block, name):
    return np.stack([to_bits(expert_matrix(block, name, expert)) for expert in range(block.gate.weight.shape[0])])


def _add_given(file, fixture, name, bits, hashes):
    key = (FIELDS[name].group, name)
    if fixture.store_weights:
        file.tensors[key] = Stored(bits.reshape(file_shape(name, file)), "bfloat16", "regenerated")
    else:
        file.tensors[key] = Regenerated(fixture.generators[name], hashes)
