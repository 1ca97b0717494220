"""Whether the recorded GPU results are those of the present kernels: prints the SHA-256 over gpu/'s sources and compares it with
run.json. Exit code 77, a skip, when they are older."""

import hashlib
import json
import pathlib
import sys

# Tests and benchmarks change no bit of a result.
NO_KERNELS = ("_test.cpp", "bench.cpp", "bench.h", "selfcheck.cpp", "selfcheck_problem.cpp", "selfcheck_problem.h", "probe_ex2.cu", "l2_flush.cu", "plugin_example.cu", "repeat_check.cpp", "repeat_check.h")


def digest(root):
    total = hashlib.sha256()
    for path in sorted((pathlib.Path(root) / "gpu").iterdir()):
        if path.suffix in (".cu", ".cuh", ".cpp", ".h") and not path.name.endswith(NO_KERNELS):
            total.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


if __name__ == "__main__":
    here = pathlib.Path(__file__).resolve().parent
    present = digest(here.parents[1])
    print(present)
    recorded = json.loads((here / "run.json").read_text())
    if recorded["gpu_sources_sha256"] != present:
        print(f"SKIP: recorded GPU results are older than gpu/: they are of revision {recorded['revision']}, {recorded['date']}")
        sys.exit(77)
