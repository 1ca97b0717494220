"""Goldens of the Qwen3 MoE layer in Python: the exporter, the portable generator, and the writer of candidates."""

from .errors import AssayError, InputError, UsageError
from .writer import Candidate

__all__ = ["AssayError", "Candidate", "InputError", "UsageError"]
