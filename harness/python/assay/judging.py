"""A kernel's fields judged: a candidate's file is written, the program judges it, and its report is read back."""

import collections
import dataclasses
import difflib
import os
import pathlib
import shutil
import tempfile

from assay_golden.errors import InputError, UsageError
from assay_golden.fields import FIELDS, dtypes_of
from assay_golden.writer import Candidate

from . import program_runs
from .layer_problem import Problem
from .sources import problem as make_problem
from .tensor_bits import bf16_bits, float32_values, int32_values, is_torch, shaped

_LARGEST_KEPT = 64 << 20  # bytes: a failing candidate's file that is kept without being asked for
_LARGEST_COMPRESSED = 1 << 22  # elements of a field; compressing more takes longer than judging them

listeners = []  # called with every Result: the pytest plug-in's report
default_producer = ""  # the plug-in's: the test that runs
keep_in = None  # folder of failing candidates' files; None: a temporary folder each


class LayerFailure(AssertionError):
    """A layer that does not pass. Its text is assay's own; `result` has the rest."""

    def __init__(self, result):
        super().__init__("\n" + result.text)
        self.result = result


@dataclasses.dataclass(frozen=True)
class FieldVerdict:
    """One field's row of the report. isolated: recomputed from the candidate's own upstream fields; chained: from the inputs."""

    name: str
    verdict: str  # Passed, Suspect, Failed, NonFinite, NotMaterialised, ...
    elements: int
    isolated: float  # largest error as a share of what rounding allows there
    chained: float
    rejected: int  # elements outside their accepted interval, isolated
    as_predicted: int  # bits, isolated; of `elements` where a prediction was made
    causes: tuple  # sentences, best first
    notes: tuple
    record: dict = dataclasses.field(repr=False)  # all that the report says


@dataclasses.dataclass(frozen=True)
class Result:
    """What the program said. `passed` and `exit_code` are the program's; `record` is its JSON report."""

    passed: bool
    verdict: str
    headline: str  # one sentence: the first stage with an error of its own, and why
    fields: dict  # name -> FieldVerdict, in the report's order
    contract: str  # the one that was judged by
    remarks: tuple
    text: str  # the report as the program prints it, and remarks about what was given
    exit_code: int
    dump: str  # the candidate's file, where it was kept
    record: dict = dataclasses.field(repr=False)
    program: str = dataclasses.field(repr=False, default="")

    def __repr__(self):
        return f"<assay {self.verdict}: {self.headline}>"

    def json(self, path):
        """Writes the report as JSON: for `assay report`, `assay regress` and --assay-baseline."""
        import json

        pathlib.Path(path).write_text(json.dumps(self.record), encoding="utf-8")

    def html(self, path):
        """Writes the report as one HTML file that explains itself."""
        with tempfile.TemporaryDirectory(prefix="assay-") as folder:
            report = os.path.join(folder, "report.json")
            self.json(report)
            program_runs.run(["report", report, "--html", path, "-q"], self.program or None, accept=(program_runs.COULD_NOT_JUDGE,))
        if not os.path.isfile(path):
            raise InputError(f"the program wrote no report to {path}")


def judge(problem, fields, contract="auto", *, accumulators=None, ties="any", producer="", stage=None, dump=None):
    """Judges what a kernel computed on `problem` (a Problem, or what assay.problem takes). Returns a Result.

    fields: {name: tensor}, any subset of `assay list fields`, forward and backward; torch of any device or numpy. bf16, or wider: what is no
        bf16 is rounded once, and a remark says so. [B, L, ...] is taken for [T, ...]. What the contract keeps in float32 is taken so (gradients of
        weights under hf_main_grads, router_logits under fp32_logits, ...); under auto it is rounded. Where the problem has gradients of before (assay.problem(..., previous=...)), they are the sums.
    contract: where the kernel rounds (`assay list contracts`); auto: the one the data follow. accumulators, ties: as Candidate.like has them.
    stage: judge one stage only. dump: keep the candidate's file there; a failing one is kept in a temporary folder, for its replay line.
    Raises UsageError for a wrong name, shape or dtype, InputError where nothing could be judged. A wrong number is a result.
    """
    problem = problem if isinstance(problem, Problem) else make_problem(problem)
    program = problem.program or program_runs.find_program()
    folder = tempfile.mkdtemp(prefix="assay-", dir=keep_in)
    path = os.path.abspath(dump) if dump else os.path.join(folder, f"{problem.name}.h5")
    kept = False
    try:
        remarks = candidate_file(path, problem, fields, contract, accumulators, ties, producer)
        words = problem.words(folder) if problem.judged_as else ["verify", "--golden", path]
        words += ["--pipeline", f"dump:{path}"] if problem.judged_as else []
        words += ["--contract", contract, "--json", os.path.join(folder, "result.json"), "--color", "never"]
        result = _run(words + (["--stage", stage] if stage else []), program, folder, remarks)
        if dump or (not result.passed and os.path.getsize(path) <= _LARGEST_KEPT):
            kept, result = True, dataclasses.replace(result, dump=path)
        elif not result.passed:
            note = f"\nremark: the candidate's file was {os.path.getsize(path) >> 20} MB and is not kept: judge(..., dump=PATH) keeps it, and the replay line works\n"
            result = dataclasses.replace(result, text=result.text + note)
    finally:
        if dump or not kept:
            shutil.rmtree(folder, ignore_errors=True)
    for listener in listeners:
        listener(result)
    return result


def candidate_file(path, problem, fields, contract="auto", accumulators=None, ties="any", producer=""):
    """Writes what a kernel computed on a problem as a candidate's file. Returns remarks about what was given."""
    if not isinstance(fields, collections.abc.Mapping) or not fields:
        raise UsageError("fields: expected a dict of what the kernel computed, for example {\"hidden_states\": y}")
    candidate = Candidate.on(problem.given(), producer or default_producer or "python", contract, accumulators, ties=ties, where=problem.name)
    remarks, largest = [], 0
    for name, value in fields.items():
        _check_name(name)
        if value is None:
            raise UsageError(f"{name} is None: leave out what the kernel does not write")
        if is_torch(value):
            if value.is_meta:
                raise UsageError(f"{name} is a meta tensor and has no values: run the layer on a real device")
            candidate.note_device(value)
        if FIELDS[name].dtype == "int32":
            data = int32_values(name, value)
        elif dtypes_of(name, contract) == ("float32",):
            data = float32_values(name, value)
        else:
            data, remark = bf16_bits(name, value)
            remarks += [remark] if remark else []
        largest = max(largest, data.size)
        candidate.add(name, shaped(name, data, problem))
    candidate.write(path, compress=0 if largest > _LARGEST_COMPRESSED else 1)
    return remarks


def _check_name(name):
    computed = [field for field, row in FIELDS.items() if row.group in ("forward", "backward")]
    if name in computed:
        return
    if name in FIELDS:
        raise UsageError(f"{name} is given by the problem; judge what the kernel computed: {', '.join(computed)}")
    close = difflib.get_close_matches(str(name), computed, n=3, cutoff=0.5)
    raise UsageError(f"unknown field '{name}'" + (f"; did you mean {' or '.join(close)}?" if close else f"; valid: {', '.join(computed)}"))


def _run(words, program, folder, remarks):
    done = program_runs.run(words, program, accept=(program_runs.COULD_NOT_JUDGE,))
    path = os.path.join(folder, "result.json")
    if not os.path.isfile(path):
        raise InputError(done.stderr.strip().removeprefix("assay: ") or f"assay ended with {done.returncode} and wrote no report")
    record = program_runs.read_report(path)
    case = record["cases"][0]
    if done.returncode == program_runs.COULD_NOT_JUDGE and not case["fields"]:
        raise InputError(case["headline"])
    text = done.stdout + "".join(f"remark: {remark}\n" for remark in remarks)
    fields = {row["field"]: _field(row) for row in case["fields"]}
    return Result(
        done.returncode == 0, case["verdict"], case["headline"], fields, case["contract"], (*remarks, *case["remarks"]), text, done.returncode, "", record, program,
    )  # fmt: skip


def _field(row):
    isolated, chained = row["isolated"], row["chained"]
    return FieldVerdict(
        row["field"], row["verdict"], isolated["elements"], isolated["max_ratio"], chained["max_ratio"], isolated["rejected"],
        row["isolated_bits"]["as_predicted"], tuple(cause.get("sentence", "") for cause in row["causes"]), tuple(row["notes"]), row,
    )  # fmt: skip


def assert_layer(fn, problem, contract="auto", *, backward=None, accumulators=None, ties="any", producer=None, stage=None, dump=None):
    """Runs a layer on a problem and raises LayerFailure, with assay's text, unless it passes. Returns the Result.

    fn: a function of the Problem; or a torch module, called with the input [B, L, H]. It returns hidden_states, or {field: tensor}.
    backward: run the backward pass as well and judge its gradients; default: where the problem was made with requires_grad and has d_hidden_states.
    """
    problem = problem if isinstance(problem, Problem) else make_problem(problem)
    fields = outputs_of(fn, problem)
    if backward or (backward is None and problem.requires_grad and "d_hidden_states" in {name for _, name in problem.file.tensors}):
        if "hidden_states" not in fields:
            raise UsageError("the backward pass starts at hidden_states, which the layer did not return")
        fields = {**fields, **problem.gradients(fields["hidden_states"])}
    name = producer or default_producer or getattr(fn, "__qualname__", type(fn).__name__)
    result = judge(problem, fields, contract, accumulators=accumulators, ties=ties, producer=name, stage=stage, dump=dump)
    if not result.passed:
        raise LayerFailure(result)
    return result


def outputs_of(fn, problem):
    """What a layer computes on a problem, as {field: tensor}. Says what to do where its tensors lie on several devices."""
    is_module = hasattr(fn, "named_parameters")
    if is_module and problem.device is None:
        raise UsageError(f"a torch module needs torch tensors: assay.problem({problem.name!r}, device=...)")
    try:
        output = fn(problem.input_hidden_states.reshape(problem.batch, problem.sequence, -1)) if is_module else fn(problem)
    except RuntimeError as error:
        if "same device" in str(error) or "device" in str(error) and "cpu" in str(error):
            where = "numpy arrays" if problem.device is None else f"on {problem.device}"
            raise InputError(f"the layer mixes devices: the problem's tensors are {where}; assay.problem(..., device=) chooses where. torch says: {str(error).splitlines()[0]}") from error
        raise
    if output is None:
        raise UsageError("the layer returned nothing; expected hidden_states, or a dict of fields")
    if isinstance(output, tuple):  # transformers 4: (hidden_states, router_logits)
        output = dict(zip(("hidden_states", "router_logits"), output))
    return dict(output) if isinstance(output, collections.abc.Mapping) else {"hidden_states": output}
