"""Judges correct runs of 1,000 seeds by many processes of one thread each, and adds up what they count: writes false_alarms.json.

    python3 golden/recorded/correct_runs.py build/harness/cli/assay [--seeds N] [--first SEED] [--workers N] [--out FILE]

A share is eight seeds, one of each kind of problem, so that all shares take about as long. Those that are there already, whole, are kept:
run again after an interruption, it goes on. Exit code 1 where a run raised an alarm, which --out then names."""

import argparse
import concurrent.futures
import os
import pathlib
import subprocess
import sys

KINDS = 8  # of problems, by seed in turn (harness/cli/mutate/false_alarms.cpp)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("assay", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--shares", type=pathlib.Path, default=pathlib.Path("correct_runs"), help="folder of the shares' JSON")
    parser.add_argument("--out", default="golden/recorded/false_alarms.json")
    options = parser.parse_args()
    options.shares.mkdir(exist_ok=True)
    assay = str(options.assay.resolve())
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}

    def judge(first):
        out = options.shares / f"{first:06}.json"
        count = min(KINDS, options.first + options.seeds - first)
        command = [assay, "mutate", "--correct", str(count), "--seed", str(first), "--json", str(out)]
        if out.exists():
            return 0
        ran = subprocess.run(command, env=one_thread, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if ran.returncode != 0:
            print(f"seed {first}: exit code {ran.returncode}\n{ran.stdout}{ran.stderr[-2000:]}", file=sys.stderr)
        return 0 if out.exists() else 1  # an alarm is counted; a share without counts is missing

    with concurrent.futures.ThreadPoolExecutor(options.workers) as pool:
        missing = sum(pool.map(judge, range(options.first, options.first + options.seeds, KINDS)))
    if missing:
        sys.exit(f"{missing} shares could not be judged")
    sys.exit(subprocess.run([assay, "mutate", "--merge", str(options.shares), "--json", options.out]).returncode)


if __name__ == "__main__":
    main()
