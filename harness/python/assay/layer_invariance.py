"""Whether a token's bits depend on the run, its batch, its place or its neighbours: a Python layer on changed batches, as `assay invariance` runs
pipelines and plug-ins. The program judges; here bits are compared."""

import contextlib
import copy
import dataclasses

import numpy as np

from assay_golden import schema
from assay_golden.errors import UsageError
from assay_golden.fields import FIELDS

from .judging import judge, outputs_of
from .layer_problem import LEAVES, Problem
from .sources import problem as make_problem
from .tensor_bits import is_torch

BATCHES = (1, 2, 4, 16, 64, 257, 1024, 4096)
PROMISES = ("run", "batch", "order")
_MOST_PIECES = 16  # runs of one change: small batches of a large problem take some of its tokens only
_NEIGHBOUR = -1


@dataclasses.dataclass
class Change:
    """What was changed beside the tokens, and what came of it."""

    name: str  # "run to run", "a batch of 16", "reverse"
    promise: str  # run, batch or order
    runs: int = 0
    differing_runs: int = 0
    fields: dict = dataclasses.field(default_factory=dict)  # name -> [tokens compared, tokens with any other bit]
    judged: object = None  # Result of the first run that differs

    @property
    def differs(self):
        return self.differing_runs > 0

    @property
    def first(self):
        """The first field that differs, in the table's order."""
        return next((name for name in FIELDS if self.fields.get(name, (0, 0))[1] > 0), None)


@dataclasses.dataclass(frozen=True)
class Invariance:
    """verdict: Passed; Unstable: other bits run to run; Failed: a promise broken, or a run that is not legal."""

    verdict: str
    headline: str
    changes: tuple
    text: str

    @property
    def passed(self):
        return self.verdict == "Passed"

    def __repr__(self):
        return f"<assay invariance {self.verdict}: {self.headline}>"


def invariance(fn, problem, *, batches=BATCHES, runs=20, promise=(), contract="auto"):
    """Runs a layer again, in batches, elsewhere and beside others, and compares each token's bits. Returns an Invariance.

    fn, problem: as assert_layer takes them; the forward pass. batches: tokens at a time; larger ones repeat the problem's. runs: on the same input.
    promise: of "run", "batch", "order", what the layer promises; other bits by batch or order are information where they are not promised.
    """
    promise = (promise,) if isinstance(promise, str) else tuple(promise)
    for word in promise:
        if word not in PROMISES:
            raise UsageError(f"promise: {word!r} is none of {', '.join(PROMISES)}")
    if runs < 2 or any(batch < 1 for batch in batches):
        raise UsageError("invariance needs runs of 2 or more, and batches of 1 token or more")
    problem = problem if isinstance(problem, Problem) else make_problem(problem)
    whole = list(range(problem.tokens))
    base = _by_token(outputs_of(fn, problem), problem)
    changes = [Change("run to run", "run")]

    def run(change, tokens, stream=contextlib.nullcontext):
        same = tokens == whole
        other = problem if same else on_tokens(problem, tokens, change.name)
        with stream():
            fields = outputs_of(fn, other)
        if _add(change, base, _by_token(fields, other), tokens) and change.judged is None:
            change.judged = judge(other, fields, contract)

    for _ in range(runs - runs // 2):
        run(changes[0], whole)
    for name, kind, pieces in token_batches(problem.tokens, batches):
        changes.append(Change(name, kind))
        for tokens in pieces:
            run(changes[-1], tokens)
    for _ in range(runs // 2 - 1):
        run(changes[0], whole)
    if problem.device is not None and problem.device.type == "cuda":
        changes.insert(1, Change("another stream", "run"))
        run(changes[1], whole, _another_stream)
    return _told(changes, promise)


def token_batches(tokens, batches):
    """(name, promise, lists of tokens): the same as the program's (harness/cli/token_batches.cpp)."""
    stretch = lambda first, count: [(first + i) % tokens for i in range(count)]
    for batch in batches:
        if batch == tokens or tokens == 0:
            continue
        pieces = min(_MOST_PIECES, -(-tokens // batch))
        yield "alone" if batch == 1 else f"a batch of {batch}", "batch", [stretch(0 if batch >= tokens else i * tokens // pieces, batch) for i in range(pieces)]
    if tokens < 2:
        return
    yield "other neighbours", "batch", [[token if token % 2 == parity else _NEIGHBOUR for token in range(tokens)] for parity in (0, 1)]
    yield "reverse", "order", [list(reversed(range(tokens)))]
    yield "other places", "order", [stretch(by, tokens) for by in sorted({1, max(1, tokens // 2), tokens - 1})]


def on_tokens(problem, tokens, what):
    """The problem on these of its tokens, batch 1, with the same weights. A neighbour is a token with its columns moved by one."""
    known = problem.bits("input_hidden_states").reshape(problem.tokens, -1)
    rows = [np.roll(known[i % problem.tokens], -1) if token < 0 else known[token] for i, token in enumerate(tokens)]
    other = copy.copy(problem)
    given = {key: tensor for key, tensor in problem.file.tensors.items() if key[0] == "weights"}
    given["inputs", "input_hidden_states"] = schema.Stored(np.stack(rows)[None], "bfloat16", "computed")
    other.name = f"{problem.name}, {what}"
    other.batch, other.sequence, other.tokens = 1, len(tokens), len(tokens)
    other.file = schema.File(problem.config, 1, len(tokens), given, "candidate", other.name, problem.file.seed, "hf", {}, "assay.Problem")
    other.judged_as, other._predicted = (), None
    other._made = {name: tensor for name, tensor in problem._made.items() if name in LEAVES and FIELDS[name].group == "weights"}
    return other


def _raw(value):
    """The bits of a tensor, as numpy integers: NaN equals itself, -0 is not 0."""
    if is_torch(value):
        import torch

        value = value.detach().contiguous().cpu()
        value = (value.view(torch.int16) if value.dtype == torch.bfloat16 else value).numpy()
    value = np.ascontiguousarray(value)
    return value.view(f"u{value.dtype.itemsize}")


def _by_token(fields, problem):
    """{field: [T, ...] bits} of what belongs to a token: rows in expert order are brought back by the chosen experts, where those were written."""
    tokens, top_k = problem.tokens, problem.config.top_k
    raw = {name: _raw(value) for name, value in fields.items() if value is not None and name in FIELDS}
    chosen = raw.get("selected_experts")
    found = {}
    for name, bits in raw.items():
        rows = FIELDS[name].shape[0]
        if rows == "T":
            found[name] = bits.reshape(tokens, -1)
        elif rows == "S" and name == "hidden_states_unpermute":
            found[name] = bits.reshape(tokens, -1)
        elif rows == "S" and name != "gather_indices" and chosen is not None:
            order = np.argsort(chosen.reshape(-1), kind="stable")
            slots = np.empty_like(bits.reshape(len(order), -1))
            slots[order] = bits.reshape(len(order), -1)
            found[name] = slots.reshape(tokens, top_k, -1).reshape(tokens, -1)
    return found


def _add(change, base, run, tokens):
    """Counts one run. Whether any token has other bits."""
    own = np.array([i for i, token in enumerate(tokens) if token >= 0])
    of_base = np.array([token for token in tokens if token >= 0])
    differs = False
    for name in base.keys() & run.keys():
        wrong = int((base[name][of_base] != run[name][own]).any(axis=1).sum())
        counts = change.fields.setdefault(name, [0, 0])
        counts[0] += len(own)
        counts[1] += wrong
        differs = differs or wrong > 0
    change.runs += 1
    change.differing_runs += differs
    return differs


@contextlib.contextmanager
def _another_stream():
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


def _told(changes, promise):
    verdict, told = "Passed", []
    for change in changes:
        if not change.differs:
            continue
        broken, legal = change.promise in promise, change.judged.passed
        compared, differing = change.fields[change.first]
        meaning = "was promised" if broken else "unstable" if change.promise == "run" else "information, nothing was promised" if legal else "that run is wrong"
        told.append(f"{change.first} of {differing:,} of {compared:,} tokens, {change.name} ({'legal' if legal else 'not legal: ' + change.judged.headline}): {meaning}")
        mine = "Failed" if broken or not legal else "Unstable" if change.promise == "run" else "Passed"
        verdict = max(verdict, mine, key=("Passed", "Unstable", "Failed").index)
    runs = sum(change.runs for change in changes)
    headline = "other bits: " + "; ".join(told) if told else f"the same bits run to run, in every batch and order: {len(changes)} changes, {runs} runs"
    names = [name for name in FIELDS if any(name in change.fields for change in changes)]
    rows = [["change", "runs", *names]]
    for change in changes:
        cells = ["" if name not in change.fields else "=" if change.fields[name][1] == 0 else f"{change.fields[name][1]:,} of {change.fields[name][0]:,}" for name in names]
        rows.append([change.name, str(change.runs), *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = "".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() + "\n" for row in rows)
    return Invariance(verdict, headline, tuple(changes), f"{headline}\n\n{table}")
