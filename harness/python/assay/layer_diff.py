"""Where two candidates of one problem part, without a golden: `assay diff` from Python."""

import collections
import dataclasses
import json
import os
import pathlib
import tempfile

from assay_golden.errors import UsageError

from . import program_runs
from .judging import Result, candidate_file, outputs_of
from .layer_problem import Problem
from .sources import problem as make_problem


@dataclasses.dataclass(frozen=True)
class FieldDifference:
    """One field of both: how many elements differ in bits, and who is nearer to float64."""

    name: str
    differing: int  # of `elements`, matched by token and expert
    elements: int
    largest_ulps: int
    verdicts: tuple  # A's and B's, each judged under its best contract
    nearer: str  # "A", "B" or "equal", by root mean square over the elements that differ; "" where nothing does
    record: dict = dataclasses.field(repr=False)  # all that the program says


@dataclasses.dataclass(frozen=True)
class Difference:
    """What `assay diff` said. A is the first of the two, B the second."""

    sentence: str
    first: str  # the first field in which they part; "" where they do not
    fields: dict  # name -> FieldDifference, in the report's order
    legal_under: tuple  # (A's contracts, B's): those under which each passes
    text: str
    exit_code: int  # 0 equal and legal, 4 they part and both are legal, 1 one is not, 77 no field in common
    record: dict = dataclasses.field(repr=False)
    _page: str = dataclasses.field(repr=False, default="")
    _comment: str = dataclasses.field(repr=False, default="")

    @property
    def equal(self):
        """No bit differs in any field of both."""
        return self.first == "" and self.exit_code != program_runs.NOTHING_COMPARED

    @property
    def legal(self):
        """Each passes under some contract."""
        return all(self.legal_under)

    def __repr__(self):
        return f"<assay difference: {self.sentence}>"

    def html(self, path):
        """Writes both sides as one HTML page."""
        pathlib.Path(path).write_text(self._page, encoding="utf-8")

    def markdown(self, path):
        """Writes the comment for a pull request."""
        pathlib.Path(path).write_text(self._comment, encoding="utf-8")


def diff(a, b, problem=None, *, device=None, ties="any"):
    """Compares two candidates of one problem, field by field, without a golden. Returns a Difference; two different problems raise InputError.

    a, b: each a file (a golden or a dump), a Result whose file was kept, {field: tensor}, or a layer as assert_layer takes it.
    problem: what tensors and layers belong to: a Problem, or what assay.problem takes, with `device` for torch layers. ties: of these, as judge has it.
    """
    if problem is not None and not isinstance(problem, Problem):
        problem = make_problem(problem, device=device)
    elif device is not None:
        raise UsageError("device= belongs to a problem that is named, not to one that is made or to files alone")
    program = (problem.program if problem is not None else None) or program_runs.find_program()
    with tempfile.TemporaryDirectory(prefix="assay-") as folder:
        files = [_file_of(one, name, problem, ties, folder) for one, name in ((a, "A"), (b, "B"))]
        made = {kind: os.path.join(folder, f"difference.{kind}") for kind in ("json", "html", "markdown")}
        words = [word for kind, path in made.items() for word in (f"--{kind}", path)]
        done = program_runs.run(["diff", *files, *words, "--color", "never"], program)
        # A file that is gone when this returns has no path.
        named = lambda text: text.replace(os.path.join(folder, ""), "")
        said, page, comment = (named(pathlib.Path(made[kind]).read_text(encoding="utf-8")) for kind in ("json", "html", "markdown"))
    record = json.loads(said)
    return Difference(
        record["sentence"], record["first"] or "", {row["field"]: _field(row) for row in record["fields"]},
        tuple(tuple(record[side]["legal_under"]) for side in "ab"), named(done.stdout).partition("Report: ")[0], done.returncode, record, page, comment,
    )  # fmt: skip


def _file_of(one, name, problem, ties, folder):
    if isinstance(one, (str, os.PathLike)):
        return os.path.abspath(one)
    if isinstance(one, Result):
        if not one.dump:
            raise UsageError(f"{name}: the result keeps no file: assay.judge(..., dump=PATH) keeps it")
        return one.dump
    if not isinstance(one, collections.abc.Mapping) and not callable(one):
        raise UsageError(f"{name}: expected a file, a Result, a dict of fields or a layer, found {type(one).__name__}")
    if problem is None:
        raise UsageError(f"{name} is no file: name the problem it belongs to, assay.diff(a, b, problem)")
    fields = one if isinstance(one, collections.abc.Mapping) else outputs_of(one, problem)
    producer = "" if fields is one else getattr(one, "__qualname__", type(one).__name__)
    path = os.path.join(folder, f"{name}.h5")
    candidate_file(path, problem, fields, ties=ties, producer=producer)
    return path


def _field(row):
    off = [row["rms_a"], row["rms_b"]]
    nearer = "" if None in off else "equal" if off[0] == off[1] else "A" if off[0] < off[1] else "B"
    return FieldDifference(row["field"], row["differing"], row["elements"], row["largest_ulps"], (row["verdict_a"], row["verdict_b"]), nearer, row)
