"""Where a file comes from: versions, switches, revision, command. And the switches themselves."""

import os
import platform
import shutil
import subprocess
import sys
from datetime import datetime, timezone

import h5py
import numpy as np
import torch

from .errors import InputError
from .hdf5 import library_version


def set_switches():
    """One way to compute: no reduced precision inside products, no TF32, deterministic algorithms where there are any."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # also Hopper's default size
    matmul = torch.backends.cuda.matmul
    matmul.allow_bf16_reduced_precision_reduction = False
    matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    return {
        "allow_bf16_reduced_precision_reduction": "false",
        "allow_tf32": "false",
        "deterministic_algorithms": "true, warn_only",
        "cublas_workspace_config": os.environ["CUBLAS_WORKSPACE_CONFIG"],
    }


def choose_device(name):
    """torch.device of "auto", "cpu" or "cuda". Raises InputError when CUDA is asked for by name and not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda was asked for, but torch finds none")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def device_name(device):
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def compute_capability(device):
    return "{}.{}".format(*torch.cuda.get_device_capability(device)) if device.type == "cuda" else ""


def _answer(*command, folder=None):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _driver():
    if not torch.cuda.is_available() or shutil.which("nvidia-smi") is None:
        return ""
    return _answer("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").split("\n")[0]


def _revision():
    folder = os.path.dirname(os.path.abspath(__file__))
    revision = _answer("git", "rev-parse", "HEAD", folder=folder)
    changed = revision and _answer("git", "status", "--porcelain", "--untracked-files=no", "--", folder, folder=folder)
    return revision + ("+changes" if changed else "")


def _created():
    """Now, or the time of SOURCE_DATE_EPOCH, with which two runs write the same bytes."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(epoch), timezone.utc) if epoch else datetime.now(timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def gather(switches, revision=""):
    """All values are strings; what is not known is left out."""
    import transformers

    facts = {
        "created": _created(), "git_revision": revision or _revision(),
        "command_line": " ".join(["python -m assay_golden", *sys.argv[1:]]),
        "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
        "numpy": np.__version__, "h5py": h5py.__version__, "hdf5": library_version(),
        "cuda": (torch.version.cuda or "") if torch.cuda.is_available() else "", "driver": _driver(), **switches,
    }  # fmt: skip
    return {key: str(value) for key, value in facts.items() if value}
