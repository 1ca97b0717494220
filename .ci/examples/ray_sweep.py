#!/usr/bin/env python3
"""A sweep on a Ray cluster: SHARES tasks judge a share each, their results become one report.

    ray job submit --working-dir . -- python3 .ci/examples/ray_sweep.py 8 --fixture small --pipeline plugin:./libmine.so --sweep

Words behind the number are those of `assay verify`. What a task needs travels with the working folder: .ci/examples, the plug-in or
dumps; the program comes from ASSAY, else from PATH (runtime_env: {"pip": ["assay-....whl"]}). SHARE_CPUS (8) and SHARE_GPUS (0) say what a
task takes; one that is lost is run again. Ends as merge.sh does, with its files; which task judged what changes nothing in them.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

COULD_NOT_JUDGE = 3


def judged_share(index, of, words, cpus):
    """On a worker: share `index` of the run. Returns what shard.sh wrote, what it said, and how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "ASSAY_SHARD": f"{index}/{of}", "RESULTS": folder, "OMP_NUM_THREADS": str(cpus)}
        done = subprocess.run([".ci/examples/shard.sh", *words], env=environment, capture_output=True, encoding="utf-8", check=False)
        result = pathlib.Path(folder, f"{index}.json")
        return result.read_bytes() if result.exists() else None, done.stdout + done.stderr, done.returncode


def refuse(sentence):
    print(f"ray_sweep.py: {sentence}", file=sys.stderr)
    return COULD_NOT_JUDGE


def main(arguments):
    if not arguments or not arguments[0].isdecimal() or int(arguments[0]) < 1:
        return refuse("expected the number of shares, then words of assay verify: ray_sweep.py 8 --fixture small --pipeline plugin:./libmine.so --sweep")
    try:
        import ray
    except ImportError:
        return refuse("Ray is not installed here: pip install ray, or take .ci/examples/slurm.sh")
    of, words = int(arguments[0]), arguments[1:]
    cpus, gpus = int(os.environ.get("SHARE_CPUS", "8")), float(os.environ.get("SHARE_GPUS", "0"))
    ray.init()
    task = ray.remote(num_cpus=cpus, num_gpus=gpus)(judged_share)
    shares = ray.get([task.remote(index, of, words, cpus) for index in range(1, of + 1)])
    results = pathlib.Path(os.environ.get("RESULTS", "results"))
    results.mkdir(exist_ok=True)
    for index, (result, said, status) in enumerate(shares, 1):
        print(said, end="")
        if status != 0:
            return refuse(f"share {index} of {of} could not be judged (shard.sh ended with {status})")
        (results / f"{index}.json").write_bytes(result)
    sweep = ["--sweep"] if "--sweep" in words else []
    return subprocess.run([".ci/examples/merge.sh", *sweep], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
