"""Runs another project's MoE layer on a golden's problem and writes what it computed as a candidate for `assay verify --pipeline dump:FILE`."""

import torch

from . import schema
from .block import to_tensor
from .errors import AssayError, InputError
from .fields import FIELDS
from .fills import materialise
from .generated import EXPERT_WEIGHTS, generated_experts
from .peer_layers import Problem, import_layer, installed_version
from .progress import Progress
from .writer import Candidate


LARGEST_STORED = 1 << 21  # elements of a weight's gradient; a larger one is held by its hashes


def load_problem(golden, file, device, threads=None):
    """The golden's input, weights (stored, or generated anew and checked by their hashes) and routing, on the device."""
    hidden = _small(golden, file, "inputs", "input_hidden_states", device)
    experts = _experts(golden, file, device, threads)
    routing = []
    for name in ("selected_experts", "topk_weights"):
        if ("forward", name) not in file.tensors:
            raise InputError(f"{golden} has no {name}: a peer is given the golden's routing")
        routing.append(file.tensors["forward", name].data)
    return Problem(
        file.config, hidden.reshape(file.batch, file.sequence, file.config.hidden_size), _small(golden, file, "weights", "gate", device),
        *experts, torch.from_numpy(routing[0].astype("int64")).to(device), to_tensor(routing[1]).to(device),
        _small(golden, file, "inputs", "d_hidden_states", device) if ("inputs", "d_hidden_states") in file.tensors else None,
    )  # fmt: skip


def _given(golden, file, group, name):
    tensor = file.tensors.get((group, name))
    if tensor is None:
        raise InputError(f"{golden} has no {name}: a peer needs a whole problem")
    if isinstance(tensor, schema.Regenerated) and tensor.generator.fill == "checkpoint":
        raise InputError(f"{golden}: {name} is in a checkpoint's files; expected a golden of a fixture, or one that stores its weights")
    return tensor


def _small(golden, file, group, name, device):
    tensor = _given(golden, file, group, name)
    if isinstance(tensor, schema.Stored):
        return to_tensor(tensor.data).to(device)
    bits = materialise(tensor.generator, name)
    _check_hash(golden, name, schema.array_hash(bits), tensor.hashes, 0)
    return to_tensor(bits).to(device)


def _experts(golden, file, device, threads):
    given = {name: _given(golden, file, "weights", name) for name in EXPERT_WEIGHTS}
    if all(isinstance(tensor, schema.Stored) for tensor in given.values()):
        return [to_tensor(tensor.data).to(device) for tensor in given.values()]
    generators = {name: tensor.generator for name, tensor in given.items()}
    weights = {name: torch.empty(g.shape, dtype=torch.bfloat16, device=device) for name, g in generators.items()}
    with Progress(f"{file.fixture}: generating experts", 2 * file.config.num_experts) as progress:
        for name, expert, bits, digest in generated_experts(generators, threads):
            _check_hash(golden, name, digest, given[name].hashes, expert)
            weights[name][expert].copy_(to_tensor(bits))
            progress.step()
    return [weights[name] for name in EXPERT_WEIGHTS]


def _check_hash(golden, name, found, hashes, index):
    if hashes and hashes[index] != found:
        raise InputError(f"{golden}: {name}, part {index}: the generated values have SHA-256 {found}, the file says {hashes[index]}")


def choose_peer_device(peer, name):
    """torch.device; without a name it is CUDA. The processor serves Triton's interpreter (TRITON_INTERPRET=1) and the tests."""
    if name != "cpu" and not torch.cuda.is_available():
        raise InputError(f"peer {peer.name} runs on a GPU, and torch finds none")
    return torch.device("cpu" if name == "cpu" else "cuda")


def write_peer(peer, golden, out, device, path=None, threads=None, version="", provenance=None):
    """Runs the peer's layer and writes the candidate `out`. Returns its content hash. Raises InputError.

    No accumulator is declared: how Triton's products sum is no promise of a peer. On Hopper `verify` counts predicted bits all the same.
    """
    file = schema.read(golden)
    if why := peer.unsuitable(file.config):
        c = file.config
        raise InputError(f"peer {peer.name} does not take {golden}: {why}, found {c.hidden_size} and {c.moe_intermediate_size}")
    layer = import_layer(peer, path)
    about = {**(provenance or {}), "peer": peer.name, "routing": "the peer's own" if peer.own_router else "given: the golden's"}
    version = version or ("" if path else installed_version(peer))
    candidate = Candidate.like(golden, f"{peer.name} {version}".strip(), peer.contract, provenance=about)
    problem = load_problem(golden, file, device, threads)
    try:
        with torch.set_grad_enabled(problem.d_output is not None):
            for leaf in problem.leaves() if problem.d_output is not None else ():
                leaf.requires_grad_(True)
            fields = peer.run(layer, problem)
        if device.type == "cuda":
            torch.cuda.synchronize()  # a kernel's fault is reported here
        if not peer.own_router:
            fields = {"selected_experts": problem.selected, "topk_weights": problem.weights, **fields}
        for name in (name for name in FIELDS if name in fields):
            value = fields[name]
            if value.dim() == 3 and value.numel() > LARGEST_STORED:
                candidate.hold(name, value, fields["token_counts_by_expert"])
            else:
                candidate.add(name, value.reshape(-1, value.shape[-1]) if name.endswith("hidden_states") else value)
    except AssayError as error:
        raise InputError(f"peer {peer.name} on {golden}: {error}")
    except Exception as error:  # a foreign layer may raise anything
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"peer {peer.name} does not run on {golden}: {type(error).__name__} {reason}")
    return candidate.write(out)
