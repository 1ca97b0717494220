"""Where a problem comes from: a fixture, a golden, a checkpoint's layer, a module of the caller's, or his own tensors."""

import difflib
import os
import pathlib

from assay_golden import schema
from assay_golden.errors import InputError, UsageError
from assay_golden.fields import FIELDS, WEIGHT_GRADIENTS
from assay_golden.fixture import config_from

from . import program_runs
from .layer_problem import WEIGHTS, Problem
from .tensor_bits import bf16_bits, check_device, float32_values, is_torch, shaped

_REQUIRED = ("input_hidden_states", *WEIGHTS)


def problem(source, *, layer=None, input=None, d_hidden_states=None, top_k=None, norm_topk_prob=None, device=None, requires_grad=False, name=None, program=None, previous=None):
    """A Problem.

    source: a fixture's name (`assay list fixtures`); a golden's, `odd.grouped_mm`, or its file; a HuggingFace checkpoint's folder with `layer`
        and `input`; a torch module like Qwen3MoeSparseMoeBlock with `input`; or weights {"gate": [E, H], "gate_up_proj": [E, 2I, H],
        "down_proj": [E, H, I]} with `input` and `top_k`.
    input: [T, H] or [B, L, H]; d_hidden_states: the output's gradient, the same shape. device: torch tensors there; none: numpy arrays.
    previous: {"d_gate": [E, H], "d_gate_up_proj": ..., "d_down_proj": ...}, some or all, bf16 or float32: the weights' gradients of before, to
        which the layer adds its own; of your own tensors or a module.
    requires_grad: the tensors are leaves, for Problem.gradients. norm_topk_prob: whether a token's weights are divided by their sum (default: yes).
    Raises UsageError for a call that is wrong, InputError for what cannot be read or is not there.
    """
    options = {"device": device, "requires_grad": requires_grad, "program": program}
    if isinstance(source, Problem):
        return source
    if isinstance(source, dict):
        _refuse(layer=layer)
        return _with_previous(_of_tensors(source, input, d_hidden_states, top_k, norm_topk_prob, name or "mine", options), previous)
    if isinstance(source, (str, os.PathLike)):
        _refuse(previous=previous)
        if os.path.isdir(source):
            _refuse(top_k=top_k, norm_topk_prob=norm_topk_prob)
            return _of_checkpoint(os.fspath(source), layer, input, d_hidden_states, name, options)
        _refuse(layer=layer, input=input, d_hidden_states=d_hidden_states, top_k=top_k, norm_topk_prob=norm_topk_prob)
        return _of_name(os.fspath(source), options)
    if hasattr(source, "gate") and hasattr(source, "experts"):
        from .torch_module import ModuleLayer

        _refuse(layer=layer)
        module = ModuleLayer(source, top_k, norm_topk_prob)
        weights = {weight: module.bits(weight) for weight in WEIGHTS}
        made = _of_tensors(weights, input, d_hidden_states, module.top_k, module.norm_topk_prob, name or type(source).__name__, options, module)
        return _with_previous(made, previous)
    raise UsageError(
        f"a problem is made of a fixture's or golden's name, a file, a checkpoint's folder, a module with .gate and .experts, or a dict of "
        f"{', '.join(WEIGHTS)}; found {type(source).__name__}"
    )


def problem_names(pattern="*"):
    """Names of problems: the fixtures' by glob, or of a group: "small" (every fixture that is judged in about a second),
    "large" (the others), "goldens"."""
    known = program_runs.fixtures()
    if pattern == "goldens":
        return sorted(path.stem for path in program_runs.golden_folder().glob("*.h5"))
    if pattern in ("small", "large"):
        return [name for name, fixture in known.items() if _is_small(fixture) == (pattern == "small")]
    import fnmatch

    found = fnmatch.filter(known, pattern)
    if not found:
        raise UsageError(f"no fixture matches {pattern!r}{_nearest(pattern, known)}; or a group: small, large, goldens; all: assay list fixtures")
    return found


def _is_small(fixture):
    """The program has the same groups (harness/cli/problems.cpp)."""
    c = fixture.config
    return c.num_experts * c.moe_intermediate_size * c.hidden_size <= 1 << 18 and fixture.tokens <= 256


def _refuse(**given):
    for name, value in given.items():
        if value is not None:
            raise UsageError(f"{name}= does not belong to this kind of problem; a fixture or golden brings its own, `layer` is a checkpoint's")


def _nearest(name, known):
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _of_name(name, options):
    fixtures = program_runs.fixtures(options["program"]) if not name.endswith(".h5") else {}
    if name in fixtures:
        return _of_fixture(fixtures[name], options)
    folder = program_runs.golden_folder()
    committed = folder / f"{name}.h5"
    path = pathlib.Path(name) if name.endswith(".h5") else committed
    if path.is_file():
        return _of_golden(path, options)
    if name.endswith(".h5"):
        raise InputError(f"there is no file {name}; the committed goldens are in {folder}, and problem() takes their names: odd.grouped_mm")
    goldens = [file.stem for file in folder.glob("*.h5")]
    missing = "" if goldens else f"; no goldens are in {folder}: $ASSAY_GOLDENS names another folder"
    raise UsageError(f"unknown problem {name!r}{_nearest(name, [*fixtures, *goldens])}; fixtures: {', '.join(fixtures)}; goldens: {', '.join(sorted(goldens)) or 'none'}{missing}")


def _of_fixture(fixture, options):
    file = schema.File(fixture.config, fixture.batch, fixture.sequence, fixture=fixture.name, seed=fixture.seed)
    for name, generator in fixture.generators.items():
        file.tensors[FIELDS[name].group, name] = schema.Regenerated(generator, [])
    for name, generator in fixture.previous.items():
        file.tensors["previous", name] = schema.Regenerated(generator, [])
    return Problem(fixture.name, file, ["--fixture", fixture.name], **options)


def _of_golden(path, options):
    file = schema.read(path)
    for name in _REQUIRED:
        if (FIELDS[name].group, name) not in file.tensors:
            raise InputError(f"{path} holds no {name}: it is no whole problem")
    return Problem(path.stem, file, ["--golden", str(path)], **options)


def _given_tensor(name, value, file):
    """A Stored of the caller's tensor: bf16, or exactly bf16; no NaN."""
    bits, remark = bf16_bits(name, value)
    if remark:
        raise UsageError(f"{name}: the layer's inputs and weights are bf16, and these are not: round them first, for example {name}.bfloat16()")
    data = shaped(name, bits, file)
    nan = int(((data & 0x7FFF) > 0x7F80).sum())
    if nan:
        raise InputError(f"{name}: {nan:,} of {data.size:,} values are NaN; no layer can be judged on them: fill the tensor")
    return schema.Stored(data, "bfloat16", "computed")


def _with_previous(made, previous):
    """The problem with weight gradients of before."""
    for name, value in (previous or {}).items():
        if name not in WEIGHT_GRADIENTS:
            raise UsageError(f"previous: {name!r} is no gradient of a weight; valid: {', '.join(WEIGHT_GRADIENTS)}")
        wide = str(getattr(value, "dtype", "")).removeprefix("torch.") == "float32"
        data = float32_values(name, value) if wide else bf16_bits(name, value)[0]
        made.file.tensors["previous", name] = schema.Stored(shaped(name, data, made.file), "float32" if wide else "bfloat16", "computed")
    return made


def _batch_of(value):
    shape = tuple(value.shape)
    if len(shape) not in (2, 3):
        raise UsageError(f"input: expected [T, H] or [B, L, H], found {list(shape)}")
    return shape if len(shape) == 3 else (1, *shape)


def _one_device(tensors):
    places = {name: str(value.device) for name, value in tensors.items() if is_torch(value)}
    if len(set(places.values())) > 1:
        raise UsageError(f"the tensors lie on several devices ({', '.join(f'{name}: {place}' for name, place in places.items())}): move them to one")


def _of_tensors(weights, input, d_hidden_states, top_k, norm_topk_prob, name, options, module=None):
    missing = [weight for weight in WEIGHTS if weight not in weights]
    unknown = [weight for weight in weights if weight not in WEIGHTS]
    if missing or unknown:
        raise UsageError(f"weights are gate [E, H], gate_up_proj [E, 2I, H] (gate rows first) and down_proj [E, H, I]; missing {missing}, unknown {unknown}")
    if input is None or top_k is None:
        raise UsageError("a problem of your own needs input=hidden_states [T, H] or [B, L, H], and top_k=")
    given = {"input_hidden_states": input, **weights} | ({} if d_hidden_states is None else {"d_hidden_states": d_hidden_states})
    _one_device({key: value for key, value in given.items() if module is None or key not in WEIGHTS})
    batch, sequence, hidden = _batch_of(input)
    if len(weights["down_proj"].shape) != 3:
        raise UsageError(f"down_proj: expected [E, H, I], found {list(weights['down_proj'].shape)}")
    experts, _, inner = weights["down_proj"].shape
    sizes = {"hidden_size": hidden, "moe_intermediate_size": inner, "num_experts": experts, "top_k": top_k}
    config = config_from({**sizes, "norm_topk_prob": True if norm_topk_prob is None else norm_topk_prob}, name)
    file = schema.File(config, batch, sequence, fixture=name)
    for key, value in given.items():
        file.tensors[FIELDS[key].group, key] = _given_tensor(key, value, file)
    return Problem(name, file, (), module=module, **options)


def _of_checkpoint(folder, layer, input, d_hidden_states, name, options):
    from .checkpoint_layer import CheckpointLayer

    if layer is None or input is None:
        raise UsageError(f"a problem of the checkpoint {folder} needs layer=N and input=hidden_states [T, H] or [B, L, H]")
    if options["device"] is not None:
        check_device(options["device"])
    if d_hidden_states is not None:
        raise UsageError("the program takes no gradient with a checkpoint's layer; load the layer as a module, and give that")
    weights = CheckpointLayer(folder, layer)
    batch, sequence, _ = _batch_of(input)
    file = schema.File(weights.config, batch, sequence, fixture=name or f"{os.path.basename(os.path.abspath(folder))}.layer{layer}")
    file.tensors["inputs", "input_hidden_states"] = _given_tensor("input_hidden_states", input, file)
    file.tensors["weights", "gate"] = schema.Stored(weights.gate(), "bfloat16", "computed")
    words = ["--checkpoint", os.path.abspath(folder), "--layer", layer, "--input", "{input}"]
    return Problem(file.fixture, file, [str(word) for word in words], expert_reader=weights.expert, **options)
