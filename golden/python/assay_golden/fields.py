"""The field table in Python, as golden/SCHEMA.md lists it."""

from dataclasses import dataclass

from .errors import UsageError
from .page import PAGE, fields_of


@dataclass(frozen=True)
class Field:
    name: str
    group: str  # "inputs", "weights", "forward", "backward"
    shape: tuple  # symbols, e.g. ("E", "2I", "H")
    dtype: str  # "bfloat16" or "int32"


FIELDS = {row[0]: Field(*row) for row in fields_of(PAGE)}

# A pass may add them to those of before, and keep them in float32.
WEIGHT_GRADIENTS = ("d_gate", "d_gate_up_proj", "d_down_proj")
# Contracts under which a field stays float32 (`dtype_of` in harness/contract/layer.h).
MAIN_GRADIENTS = ("hf_main_grads", "hf_added_main_grads")
FP32_LOGITS = ("fp32_logits", "vllm_fp32_logits", "sglang_fp32_logits")
FP32_WEIGHTS = ("vllm", "vllm_fp32_logits", "sglang", "sglang_fp32_logits")
KEPT_IN_FLOAT32 = {
    **dict.fromkeys(WEIGHT_GRADIENTS, MAIN_GRADIENTS), "router_logits": FP32_LOGITS, "d_router_logits": FP32_LOGITS, "topk_weights": FP32_WEIGHTS,
}  # fmt: skip

# These two stand in files as [B, L, H], as the layer takes and returns them.
BATCHED = ("input_hidden_states", "hidden_states")


def is_by_expert(name):
    """Whether a field's first axis is the expert: its parts are hashed one by one."""
    return FIELDS[name].shape[0] == "E"


def find_field(name):
    if name not in FIELDS:
        raise UsageError(f"unknown field '{name}'; valid: {', '.join(FIELDS)}")
    return FIELDS[name]


def dtypes_of(name, contract):
    """The dtypes in which a candidate of the contract may store a field; with `auto` the data say which contract is meant."""
    if name not in KEPT_IN_FLOAT32:
        return (FIELDS[name].dtype,)
    return ("float32",) if contract in KEPT_IN_FLOAT32[name] else ("bfloat16", "float32") if contract == "auto" else ("bfloat16",)


def is_padded(name):
    """Whether a kernel may pad every expert's rows of the field to a multiple of some number: it is in expert order."""
    return FIELDS[name].shape[0] == "S" and name != "hidden_states_unpermute"


def extents(config, tokens):
    """Extent of every symbolic axis in a problem of these sizes."""
    return {
        "T": tokens,
        "H": config.hidden_size,
        "E": config.num_experts,
        "K": config.top_k,
        "S": tokens * config.top_k,
        "I": config.moe_intermediate_size,
        "2I": 2 * config.moe_intermediate_size,
    }


def file_shape(name, problem):
    """The shape a field has in a file of this problem (`config`, `batch`, `sequence`)."""
    field = find_field(name)
    if name in BATCHED:
        return (problem.batch, problem.sequence, problem.config.hidden_size)
    sizes = extents(problem.config, problem.batch * problem.sequence)
    return tuple(sizes[symbol] for symbol in field.shape)
