"""Times other projects' layers on one problem, for `assay bench layer --peers`: each in a process of its own, which may crash or hang.

    python3 -m assay_golden.peer_times --spec SPEC.json --out TIMES.json

SPEC: config, tokens, backward, seconds (a peer's limit), scale (of the experts' weights), and raw bf16 files input [T, H], gate [E, H],
d_output [T, H] or null. TIMES: a row for each peer, number of tokens and pass that ran, and one with `why` for each that did not.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile

NAMES = ("huggingface", "unsloth", "liger", "scattermoe", "sonicmoe")


def run_peer(name, spec, seconds, command=None):
    """The rows of one peer, as far as it came within its seconds; where it did not come to its end, one that says why."""
    command = command or [sys.executable, "-m", "assay_golden.peer_times", "--spec", spec, "--peer", name]
    with tempfile.TemporaryFile("w+") as rows, tempfile.TemporaryFile("w+") as told:
        child = subprocess.Popen(command, stdout=rows, stderr=told, stdin=subprocess.DEVNULL, start_new_session=True)
        why = ""
        try:
            code = child.wait(seconds)
            if code != 0:
                told.seek(0)
                last = (told.read().strip().splitlines() or [""])[-1][:300]
                why = f"it was ended by signal {-code}" if code < 0 else last or f"it ended with exit code {code}"
        except subprocess.TimeoutExpired:
            why = f"it took longer than {seconds:g} s"
        try:
            os.killpg(child.pid, signal.SIGKILL)  # whatever it started
        except ProcessLookupError:
            pass
        child.wait()
        rows.seek(0)
        lines = [json.loads(line) for line in rows if line.startswith("{") and line.endswith("}\n")]
    return [{"peer": name, **line} for line in lines] + ([{"peer": name, "why": why}] if why else [])


def measure(name, spec):
    """In the peer's own process: prints its rows as they are measured."""
    from .errors import AssayError

    try:
        from .peer_calls import rows_of
    except ImportError as error:
        sys.exit(f"{sys.executable} cannot import {error.name or error}")
    # What a layer prints goes elsewhere: rows alone are read.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        for row in rows_of(name, spec):
            print(json.dumps(row), file=out, flush=True)
    except AssayError as error:
        sys.exit(" ".join(str(error).split()))


def main(argv=None):
    parser = argparse.ArgumentParser(prog="assay_golden.peer_times")
    parser.add_argument("--spec", required=True)
    parser.add_argument("--out")
    parser.add_argument("--peer", choices=NAMES)
    arguments = parser.parse_args(argv)
    with open(arguments.spec, encoding="utf-8") as file:
        spec = json.load(file)
    if arguments.peer:
        return measure(arguments.peer, spec)
    rows = []
    for name in spec.get("peers") or NAMES:
        print(f"assay_golden: timing {name}", file=sys.stderr, flush=True)
        rows += run_peer(name, arguments.spec, spec["seconds"])
    with open(arguments.out, "w", encoding="utf-8") as file:
        json.dump(rows, file)


if __name__ == "__main__":
    main()
