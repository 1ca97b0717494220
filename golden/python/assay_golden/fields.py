"""The field table in Python: the rows of harness/contract/field.h that the writer and the exporter need. Tests hold both to golden/SCHEMA.md."""

from dataclasses import dataclass

from .errors import UsageError


@dataclass(frozen=True)
class Field:
    name: str
    group: str  # "inputs", "weights", "forward", "backward"
    shape: tuple  # symbols, e.g. ("E", "2I", "H")
    dtype: str  # "bfloat16" or "int32"


FIELDS = {
    field.name: field
    for field in (
        Field("input_hidden_states", "inputs", ("T", "H"), "bfloat16"),
        Field("d_hidden_states", "inputs", ("T", "H"), "bfloat16"),
        Field("gate", "weights", ("E", "H"), "bfloat16"),
        Field("gate_up_proj", "weights", ("E", "2I", "H"), "bfloat16"),
        Field("down_proj", "weights", ("E", "H", "I"), "bfloat16"),
        Field("router_logits", "forward", ("T", "E"), "bfloat16"),
        Field("selected_experts", "forward", ("T", "K"), "int32"),
        Field("topk_weights", "forward", ("T", "K"), "bfloat16"),
        Field("token_counts_by_expert", "forward", ("E",), "int32"),
        Field("gather_indices", "forward", ("S",), "int32"),
        Field("first_gemm", "forward", ("S", "2I"), "bfloat16"),
        Field("intermediate", "forward", ("S", "I"), "bfloat16"),
        Field("second_gemm", "forward", ("S", "H"), "bfloat16"),
        Field("hidden_states_unpermute", "forward", ("S", "H"), "bfloat16"),
        Field("hidden_states", "forward", ("T", "H"), "bfloat16"),
        Field("d_second_gemm", "backward", ("S", "H"), "bfloat16"),
        Field("d_topk_weights", "backward", ("T", "K"), "bfloat16"),
        Field("d_intermediate", "backward", ("S", "I"), "bfloat16"),
        Field("d_down_proj", "backward", ("E", "H", "I"), "bfloat16"),
        Field("d_first_gemm", "backward", ("S", "2I"), "bfloat16"),
        Field("d_permuted_hidden_states", "backward", ("S", "H"), "bfloat16"),
        Field("d_gate_up_proj", "backward", ("E", "2I", "H"), "bfloat16"),
        Field("d_router_logits", "backward", ("T", "E"), "bfloat16"),
        Field("d_gate", "backward", ("E", "H"), "bfloat16"),
        Field("d_experts_hidden_states", "backward", ("T", "H"), "bfloat16"),
        Field("d_input_hidden_states", "backward", ("T", "H"), "bfloat16"),
    )
}

# Implementations that never form them leave them out.
OPTIONAL = ("d_experts_hidden_states",)

# These two stand in files as [B, L, H], as the layer takes and returns them.
BATCHED = ("input_hidden_states", "hidden_states")


def is_by_expert(name):
    """Whether a field's first axis is the expert: its parts are hashed one by one."""
    return FIELDS[name].shape[0] == "E"


def find_field(name):
    if name not in FIELDS:
        raise UsageError(f"unknown field '{name}'; valid: {', '.join(FIELDS)}")
    return FIELDS[name]


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
