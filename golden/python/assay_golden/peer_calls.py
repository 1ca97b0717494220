"""Other projects' layers as one call each, with nothing watched and nothing kept, and how long a call takes on a GPU."""

import os
import statistics
import types

import torch

from .errors import InputError
from .peer_layers import PEERS, Problem, _unsloth_settings, import_layer, installed_version

REPETITIONS = 21
WARM_UPS = 3
FLUSHED = 256 << 20  # bytes, several times the L2


def _raw(path, columns, device):
    """A file of bf16 bits as rows."""
    bits = torch.frombuffer(bytearray(open(path, "rb").read()), dtype=torch.int16)
    return bits.view(torch.bfloat16).reshape(-1, columns).to(device)


def _drawn(experts, rows, columns, scale, device):
    """Weights of the fixtures' distribution, drawn anew: their values are not those that assay had, and no time depends on that."""
    generator = torch.Generator(device).manual_seed(1)
    weights = torch.empty(experts, rows, columns, dtype=torch.bfloat16, device=device)
    for expert in range(experts):
        lanes = torch.randint(0, 1 << 16, (4, rows, columns), generator=generator, dtype=torch.int32, device=device)
        weights[expert] = ((lanes.sum(0) - 131070).double() * scale).bfloat16()
    return weights


def route(hidden, gate, config):
    """HuggingFace's router: weights [T, K] in bf16 and experts [T, K]."""
    shares = torch.nn.functional.softmax(torch.nn.functional.linear(hidden, gate), dim=-1, dtype=torch.float)
    weights, selected = torch.topk(shares, config.top_k, dim=-1)
    if config.norm_topk_prob:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return weights.to(hidden.dtype), selected


def _flat(problem):
    return problem.hidden.reshape(-1, problem.config.hidden_size)


# Each: (module of the layer, problem) -> (call that returns the output, the tensors that gradients are wanted of). Router included.


def _huggingface(_, problem):
    from .block import is_fused, new_block

    block = new_block(problem.config, problem.hidden.device)
    if not is_fused(block):
        raise InputError("this release of transformers has no grouped_mm")
    with torch.no_grad():
        block.gate.weight.copy_(problem.gate)
        block.experts.gate_up_proj.copy_(problem.gate_up_proj)
        block.experts.down_proj.copy_(problem.down_proj)
    block.experts.config._experts_implementation = "grouped_mm"

    def call():
        output = block(problem.hidden)
        return output[0] if isinstance(output, tuple) else output

    return call, (problem.hidden, *block.parameters())


def _unsloth(layer, problem):
    block = layer.Qwen3MoeFusedGroupedGEMMBlock(
        _unsloth_settings(problem.config), problem.gate, problem.gate_up_proj, problem.down_proj, permute_x=True, permute_y=True, autotune=True)  # fmt: skip
    return lambda: block(problem.hidden)[0], (problem.hidden, *block.parameters())


def _liger(layer, problem):
    def call():
        weights, selected = route(_flat(problem), problem.gate, problem.config)
        return layer.LigerFusedMoEFunction.apply(_flat(problem), problem.gate_up_proj, problem.down_proj, selected.int(), weights)

    return call, problem.leaves()[:4]


def _scattermoe(layer, problem):
    config = problem.config
    with torch.device("meta"):
        mlp = layer.GLUMLP(config.hidden_size, config.moe_intermediate_size, config.num_experts, config.top_k, activation=torch.nn.SiLU())
    gate, up = problem.gate_up_proj.detach().chunk(2, dim=1)
    mlp.experts.weight = torch.nn.Parameter(torch.cat([up, gate], dim=1).contiguous())
    mlp.output_experts.weight = torch.nn.Parameter(problem.down_proj)

    def call():
        weights, selected = route(_flat(problem), problem.gate, config)
        return mlp(_flat(problem), weights, selected)

    return call, (problem.hidden, problem.gate, mlp.experts.weight, mlp.output_experts.weight)


def _sonicmoe(layer, problem):
    config = problem.config
    gate, up = problem.gate_up_proj.detach().chunk(2, dim=1)
    first = torch.stack([gate, up], dim=2).reshape(problem.gate_up_proj.shape).contiguous().requires_grad_(problem.d_output is not None)
    tokens = _flat(problem).shape[0]
    token = torch.arange(tokens, dtype=torch.int32, device=first.device).repeat_interleave(config.top_k)

    def call():
        weights, selected = route(_flat(problem), problem.gate, config)
        return layer.moe_general_routing_inputs(
            _flat(problem), weights.reshape(-1).float(), token, selected.reshape(-1).int(), first.permute(1, 2, 0), None,
            problem.down_proj.permute(1, 2, 0), None, config.num_experts, torch.cuda.current_stream().cuda_stream, layer.ActivationType.SWIGLU)[0]  # fmt: skip

    return call, (problem.hidden, problem.gate, first, problem.down_proj)


CALLS = {"huggingface": _huggingface, "unsloth": _unsloth, "liger": _liger, "scattermoe": _scattermoe, "sonicmoe": _sonicmoe}


def _captured(work):
    """The work as a CUDA graph's replay, or None where it cannot be captured: it waits for the GPU, or copies from the host."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            work()
    except Exception:  # whatever ends a capture
        torch.cuda.synchronize()
        return None
    return graph.replay


def time_on_gpu(work):
    """Microseconds, each after the L2 was filled with foreign lines: median, fastest, slowest; and how the work was launched."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            work()
    torch.cuda.synchronize()
    replay = _captured(work)
    run = replay or work
    foreign = torch.zeros(FLUSHED // 4, dtype=torch.int32, device="cuda")
    times = []
    for repetition in range(WARM_UPS + REPETITIONS):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        foreign.max()
        begin.record()
        run()
        end.record()
        end.synchronize()
        if repetition >= WARM_UPS:
            times.append(begin.elapsed_time(end) * 1e3)
    return {"median_us": statistics.median(times), "fastest_us": min(times), "slowest_us": max(times), "launched": "CUDA graph" if replay else "by Python"}


def rows_of(name, spec, device="cuda", timed=time_on_gpu):
    """A row for each number of tokens and pass. Raises InputError where the peer cannot run at all."""
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("torch finds no GPU")
    os.environ["LIGER_FUSED_MOE_AUTOTUNE"] = "1"  # here its search for the fastest tiles is wanted
    config = types.SimpleNamespace(**spec["config"])
    layer, version = None, ""
    if name in PEERS:
        layer, version = import_layer(PEERS[name]), installed_version(PEERS[name])
        if why := PEERS[name].unsuitable(config):
            raise InputError(f"{why}, found {config.hidden_size} and {config.moe_intermediate_size}")
    else:
        import transformers

        version = transformers.__version__
    hidden, gate = _raw(spec["input"], config.hidden_size, device), _raw(spec["gate"], config.hidden_size, device)
    experts = [_drawn(config.num_experts, rows, columns, spec["scale"], device) for rows, columns in (
        (2 * config.moe_intermediate_size, config.hidden_size), (config.hidden_size, config.moe_intermediate_size))]  # fmt: skip
    d_output = _raw(spec["d_output"], config.hidden_size, device) if spec["backward"] else None
    for tokens in spec["tokens"]:
        for backward in (False, True) if spec["backward"] else (False,):
            row = {"version": version, "tokens": tokens, "pass": "forward and backward" if backward else "forward"}
            try:
                yield row | timed(_work(CALLS[name], layer, config, hidden[:tokens], gate, experts, d_output[:tokens] if backward else None))
            except Exception as error:  # a foreign layer may raise anything
                yield row | {"why": f"{type(error).__name__} {' '.join(str(error).split())[:200]}"}


def _work(make, layer, config, hidden, gate, experts, d_output):
    """One call of the layer; with d_output of its backward pass as well."""
    leaves = [tensor.detach().clone().requires_grad_(d_output is not None) for tensor in (hidden.unsqueeze(0), gate)]
    # The experts' weights are not copied: they are gigabytes.
    leaves += [tensor.detach().requires_grad_(d_output is not None) for tensor in experts]
    problem = Problem(config, *leaves, None, None, None if d_output is None else d_output.unsqueeze(0))
    call, wanted = make(layer, problem)

    def forward():
        with torch.no_grad():
            call()

    def both():
        for tensor in wanted:
            tensor.grad = None
        output = call()
        output.backward(d_output.reshape(output.shape))

    if d_output is None:
        return forward
    for tensor in wanted:
        tensor.requires_grad_(True)
    return both
