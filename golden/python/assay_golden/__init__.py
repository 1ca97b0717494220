"""Goldens of the Qwen3 MoE layer in Python: the exporter, the portable generator, and the writer of candidates."""

from .errors import AssayError, InputError, UsageError

__all__ = ["AssayError", "Candidate", "InputError", "UsageError"]


def __getattr__(name):
    if name == "Candidate":  # loaded when it is used, so that the program can say what Python lacks
        try:
            from .writer import Candidate
        except ModuleNotFoundError as error:
            raise ImportError(f"assay_golden needs numpy and h5py, found no {error.name}: python3 -m pip install numpy h5py") from error
        return Candidate
    raise AttributeError(f"module {__name__} has no attribute {name}")
