"""A problem of the layer: input, weights and routing as torch tensors on a device, or as numpy arrays; large ones expert by expert."""

import os
import tempfile

import numpy as np

from assay_golden import schema
from assay_golden.bits import widen
from assay_golden.errors import InputError, UsageError
from assay_golden.fields import FIELDS, extents, is_by_expert
from assay_golden.fills import generate_expert, materialise

from . import program_runs
from .tensor_bits import check_device, to_torch

WEIGHTS = ("gate", "gate_up_proj", "down_proj")
ROUTING = ("selected_experts", "topk_weights")
LEAVES = ("input_hidden_states", *WEIGHTS, "topk_weights")  # whose gradients have names: d_ and theirs
_ALL_AT_ONCE = 1 << 23  # elements


def _elements_of(name, tensor):
    """(raw elements, dtype) of a gradient of before."""
    return (tensor.data, tensor.dtype) if isinstance(tensor, schema.Stored) else (materialise(tensor.generator, name), "bfloat16")


def _sealed_previous(name, tensor):
    """With its hash, which a file that names a generator states."""
    if isinstance(tensor, schema.Regenerated) and not tensor.hashes:
        tensor.hashes = [schema.array_hash(materialise(tensor.generator, name))]
    return tensor


class Problem:
    """One layer's input and weights, named as in `assay list fields`.

    `input_hidden_states` [T, H], `gate` [E, H], `gate_up_proj` [E, 2I, H] (gate rows first), `down_proj` [E, H, I], `d_hidden_states` [T, H]
    where there is one, and the routing `selected_experts`, `topk_weights` [T, K]. With a device they are torch tensors, bfloat16 and int32,
    else numpy arrays, float32 (exactly bf16) and int32. Each is made when it is first asked for, and kept.
    """

    def __init__(self, name, file, judged_as, device=None, requires_grad=False, program=None, module=None, expert_reader=None):
        """file: a schema.File with /inputs and /weights, and the routing where it is known. judged_as: the program's words for this problem,
        or () where a candidate's file holds all of it. expert_reader(name, expert): bits of a weight that the file does not hold."""
        self.name, self.file, self.judged_as, self.program, self.module = name, file, tuple(judged_as), program, module
        self.config, self.batch, self.sequence = file.config, file.batch, file.sequence
        self.tokens = self.batch * self.sequence
        self.device = None if device is None else check_device(device)
        if requires_grad and device is None:
            raise UsageError("requires_grad=True needs torch tensors: name a device, for example device=\"cpu\"")
        self.requires_grad = requires_grad
        self._expert_reader = expert_reader
        self._made = {}
        self._predicted = None

    def __repr__(self):
        c = self.config
        where = "numpy" if self.device is None else str(self.device)
        return f"<assay problem {self.name}: {self.tokens} tokens, {c.top_k} of {c.num_experts} experts, H {c.hidden_size}, I {c.moe_intermediate_size}, {where}>"

    def __getattr__(self, name):
        if name.startswith("_") or name not in FIELDS or not (self._is_given(name) or name in ROUTING):
            raise AttributeError(f"a problem has no '{name}'; it has {', '.join((*LEAVES, 'selected_experts', 'd_hidden_states'))}, experts(), predicted")
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _is_given(self, name):
        return (FIELDS[name].group, name) in self.file.tensors or (self._expert_reader is not None and name in WEIGHTS)

    def shape(self, name):
        """Extents of a field of this problem, without making it."""
        sizes = extents(self.config, self.tokens)
        return tuple(sizes[symbol] for symbol in FIELDS[name].shape)

    def bits(self, name):
        """The raw elements as numpy: uint16 bits of a bfloat16 tensor, int32 of an index field. [E, ...] weights all at once."""
        tensor = self.file.tensors.get((FIELDS[name].group, name))
        if tensor is None and name in ROUTING:
            return self._predicted_file().tensors["forward", name].data
        if tensor is None or (isinstance(tensor, schema.Regenerated) and len(tensor.generator.shape) == 3 and is_by_expert(name)):
            return np.stack([self.expert_bits(name, expert) for expert in range(self.config.num_experts)])
        data = tensor.data if isinstance(tensor, schema.Stored) else materialise(tensor.generator, name)
        return data.reshape(self.shape(name))

    @property
    def previous(self):
        """{field: tensor} of the weights' gradients of before, to which those of a backward pass are added; empty where there are none."""
        found = {name: tensor for (group, name), tensor in self.file.tensors.items() if group == "previous"}
        return {name: self._present(*_elements_of(name, tensor)) for name, tensor in found.items()}

    def expert_bits(self, name, expert):
        """One expert's matrix of gate_up_proj [2I, H] or down_proj [H, I], as uint16 bits."""
        tensor = self.file.tensors.get((FIELDS[name].group, name))
        if tensor is None or (isinstance(tensor, schema.Regenerated) and tensor.generator.fill == "checkpoint"):
            if self._expert_reader is None:
                raise InputError(f"{self.name} does not hold {name}: it is in a checkpoint's files; ask for assay.problem(folder, layer=N, input=...)")
            return self._expert_reader(name, expert)
        return tensor.data[expert] if isinstance(tensor, schema.Stored) else generate_expert(tensor.generator, expert)

    def experts(self, name):
        """(expert, matrix) of gate_up_proj or down_proj, one after the other: nothing larger than one expert is held."""
        if name not in ("gate_up_proj", "down_proj"):
            raise UsageError(f"experts() gives the matrices of gate_up_proj or down_proj, not of {name!r}")
        for expert in range(self.config.num_experts):
            yield expert, self._present(self.expert_bits(name, expert), "bfloat16")

    def _present(self, data, dtype):
        if self.device is not None:
            return to_torch(data, dtype, self.device)
        return widen(data) if dtype == "bfloat16" else np.array(data)

    def _make(self, name):
        by_expert = name in ("gate_up_proj", "down_proj") and int(np.prod(self.shape(name), dtype=np.int64)) > _ALL_AT_ONCE
        if by_expert and self.device is not None:
            torch = __import__("torch")
            made = torch.empty(self.shape(name), dtype=torch.bfloat16, device=self.device)
            for expert, matrix in self.experts(name):
                made[expert].copy_(matrix)
        elif by_expert:
            made = np.empty(self.shape(name), dtype=np.float32)
            for expert, matrix in self.experts(name):
                made[expert] = matrix
        else:
            made = self._present(self.bits(name), FIELDS[name].dtype)
        if self.requires_grad and name in LEAVES:
            made.requires_grad_(True)
        return made

    def _predicted_file(self):
        """What the program predicts for this problem, as a schema.File; computed once, by `assay verify --pipeline predicted`."""
        if self._predicted is None:
            with tempfile.TemporaryDirectory(prefix="assay-") as folder:
                path = os.path.join(folder, "predicted.h5")
                backward = ["--backward"] if self._is_given("d_hidden_states") else []
                program_runs.run([*self.words(folder), "--pipeline", "predicted", *backward, "--contract", "hf", "--dump", path, "-q"], self.program)
                self._predicted = schema.read(path)
        return self._predicted

    @property
    def predicted(self):
        """{field: tensor} of what an H200 gives for HuggingFace's layer, predicted on the CPU; gradients as well where d_hidden_states is given."""
        tensors = self._predicted_file().tensors
        return {
            name: self._present(tensor.data.reshape(self.shape(name)), FIELDS[name].dtype)
            for (group, name), tensor in tensors.items() if group in ("forward", "backward") and isinstance(tensor, schema.Stored)
        }  # fmt: skip

    def words(self, folder):
        """The program's words for this problem: `verify --fixture odd`. Where no other program knows it, its file is written into `folder`."""
        if self.judged_as and "{input}" not in self.judged_as:
            return ["verify", *self.judged_as]
        path = os.path.join(folder, "problem.h5")
        schema.write(path, self.given(), compress=0)
        return ["verify", *(word.replace("{input}", path) for word in self.judged_as)] if self.judged_as else ["verify", "--golden", path]

    def given(self):
        """A candidate's file of this problem without a field."""
        given = {key: tensor for key, tensor in self.file.tensors.items() if key[0] in ("inputs", "weights", "previous")}
        tensors = {key: _sealed_previous(key[1], tensor) if key[0] == "previous" else self._sealed(key[1], tensor) for key, tensor in given.items()}
        return schema.File(self.config, self.batch, self.sequence, tensors, "candidate", self.file.fixture or self.name, self.file.seed, "hf", {}, "assay.Problem")

    def _sealed(self, name, tensor):
        """A generated tensor with its hashes, where making it is cheap: a file that states none is judged with a remark."""
        if not isinstance(tensor, schema.Regenerated) or tensor.hashes or np.prod(tensor.generator.shape, dtype=np.int64) > _ALL_AT_ONCE:
            return tensor
        bits = self.bits(name)
        by_expert = len(tensor.generator.shape) == 3 and is_by_expert(name)
        tensor.hashes = [schema.array_hash(part) for part in bits] if by_expert else [schema.array_hash(bits)]
        return tensor

    def gradients(self, output):
        """Runs backward from the layer's `output` with the problem's d_hidden_states. Returns {field: gradient} of every tensor of the problem that
        took part: d_input_hidden_states, d_gate, d_gate_up_proj, d_down_proj, d_topk_weights."""
        if not self.requires_grad:
            raise UsageError(f"gradients need leaves: assay.problem({self.name!r}, device=..., requires_grad=True)")
        if not self._is_given("d_hidden_states"):
            raise UsageError(f"{self.name} has no d_hidden_states: give one, assay.problem(..., d_hidden_states=...)")
        if not getattr(output, "requires_grad", False):
            raise UsageError("the output needs a graph: compute it from the problem's tensors with torch, not under torch.no_grad()")
        output.backward(self.d_hidden_states.reshape(output.shape))
        named = {f"d_{name}": self._made[name].grad for name in LEAVES if name in self._made}
        if self.module is not None:
            named |= self.module.gradients()
        return {name: gradient for name, gradient in named.items() if gradient is not None}
