"""`@assay.layer_problems("small")`: a test that runs once for every problem. The plug-in reads the mark."""

from assay_golden.errors import UsageError


def layer_problems(*patterns, device=None, requires_grad=False):
    """A test's argument `problem` becomes each of these problems in turn.

    patterns: groups ("small", "large", "goldens"), fixtures' names or globs. device: torch tensors there (default: --assay-device, else numpy).
    """
    if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        raise UsageError("layer_problems takes names of problems: \"small\", \"goldens\", \"odd\", \"qwen3_*\"")
    import pytest

    return pytest.mark.assay_problems(*patterns, device=device, requires_grad=requires_grad)
