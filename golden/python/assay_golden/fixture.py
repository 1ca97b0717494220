"""Fixtures as `assay list fixtures --json` prints them: a problem by name, its tensors behind generators."""

import json
import subprocess
from dataclasses import dataclass, field

from .errors import InputError, UsageError
from .fields import extents, find_field


@dataclass(frozen=True)
class Config:
    hidden_size: int
    moe_intermediate_size: int
    num_experts: int
    top_k: int
    norm_topk_prob: bool


@dataclass(frozen=True)
class Generator:
    fill: str
    routing: str
    seed: int
    stream: int
    shape: tuple
    scale: float


@dataclass(frozen=True)
class Fixture:
    name: str
    config: Config
    batch: int
    sequence: int
    seed: int
    generators: dict  # field name -> Generator
    store_weights: bool
    golden: bool
    previous: dict = field(default_factory=dict)  # weight gradients of before: field name -> Generator

    @property
    def tokens(self):
        return self.batch * self.sequence


REQUIRED_TENSORS = ("input_hidden_states", "gate", "gate_up_proj", "down_proj")


def config_from(record, where):
    """Config of a JSON object. Raises InputError when a size is missing or makes no layer."""
    try:
        config = Config(
            *(int(record[key]) for key in ("hidden_size", "moe_intermediate_size", "num_experts", "top_k")),
            bool(record["norm_topk_prob"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}: config needs hidden_size, moe_intermediate_size, num_experts, top_k, norm_topk_prob; {error}")
    sizes = (config.hidden_size, config.moe_intermediate_size, config.num_experts, config.top_k)
    if min(sizes) < 1 or config.top_k > config.num_experts:
        raise InputError(f"{where}: expected positive sizes and top_k <= num_experts, found {config}")
    return config


def _generator(record, where):
    try:
        return Generator(
            str(record["generator"]), str(record["routing"]), int(record["seed"]), int(record["stream"]),
            tuple(int(extent) for extent in record["shape"]), float(record["scale"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}: a generator needs generator, routing, seed, stream, shape, scale; {error}")


def _check_shape(name, generator, fixture):
    sizes = extents(fixture.config, fixture.tokens)
    expected = tuple(sizes[symbol] for symbol in find_field(name).shape)
    batched = (fixture.batch, fixture.sequence, fixture.config.hidden_size)
    allowed = (expected, batched) if find_field(name).group == "inputs" else (expected,)
    if generator.shape not in allowed:
        raise InputError(f"fixture {fixture.name}: {name} must have shape {list(expected)}, found {list(generator.shape)}")


def parse_fixture(record):
    where = f"fixture {record.get('name', '?')}" if isinstance(record, dict) else "a fixture"
    try:
        generators, previous = (
            {name: _generator(value, f"{where}, {name}") for name, value in record.get(group, {}).items()} for group in ("generators", "previous")
        )
        fixture = Fixture(
            str(record["name"]), config_from(record["config"], where), int(record["batch"]), int(record["sequence"]),
            int(record["seed"]), generators, bool(record["store_weights"]), bool(record["golden"]), previous,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{where}: unusable record, {type(error).__name__} {error}")
    for name in REQUIRED_TENSORS:
        if name not in generators:
            raise InputError(f"{where}: no generator for {name}")
    for name, generator in (*generators.items(), *previous.items()):
        _check_shape(name, generator, fixture)
    return fixture


def parse_fixtures(text, where):
    """Every fixture of the JSON text, in its order."""
    try:
        records = json.loads(text)["fixtures"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{where}: expected JSON with a list \"fixtures\", found {error}")
    return [parse_fixture(record) for record in records]


def read_fixtures(path):
    try:
        with open(path, encoding="utf-8") as file:
            return parse_fixtures(file.read(), path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read fixtures from {path}: {error}")


def ask_program(program):
    """The fixtures of an installed `assay`."""
    command = [program, "list", "fixtures", "--json"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise InputError(f"cannot run {program}: {error}")
    if answer.returncode != 0:
        raise InputError(f"{' '.join(command)} ended with {answer.returncode}: {answer.stderr.strip()}")
    return parse_fixtures(answer.stdout, " ".join(command))


def choose(fixtures, names):
    """The named fixtures, or all with golden = true. Raises UsageError on an unknown name."""
    if not names:
        return [fixture for fixture in fixtures if fixture.golden]
    known = {fixture.name: fixture for fixture in fixtures}
    for name in names:
        if name not in known:
            raise UsageError(f"unknown fixture '{name}'; valid: {', '.join(known)}")
    return [known[name] for name in names]
