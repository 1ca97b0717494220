"""assay from Python: problems as tensors, a kernel's fields judged by the program `assay`, and a pytest plug-in.

    import assay
    problem = assay.problem("odd", device="cuda")
    result = assay.judge(problem, {"hidden_states": my_layer(problem)})
    print(result.text)

Needs numpy and h5py; torch only where a device is named. Nothing is judged in Python: the program reads a file and answers with JSON.
"""

import importlib.util
import pathlib
import sys

if importlib.util.find_spec("assay_golden") is None:  # in the source tree it lies beside its exporter
    sys.path.append(str(pathlib.Path(__file__).resolve().parents[3] / "golden" / "python"))

from assay_golden.errors import AssayError, InputError, UsageError

from .layer_diff import Difference, diff
from .layer_invariance import Invariance, invariance
from .judging import FieldVerdict, LayerFailure, Result, assert_layer, judge
from .layer_problem import Problem
from .marking import layer_problems
from .sources import problem, problem_names

__all__ = [
    "AssayError", "Difference", "FieldVerdict", "InputError", "Invariance", "LayerFailure", "Problem", "Result", "UsageError",
    "assert_layer", "diff", "invariance", "judge", "layer_problems", "problem", "problem_names",
]  # fmt: skip
