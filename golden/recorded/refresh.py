"""Makes the recorded GPU results anew, on a machine with a GPU (about five minutes on an NVIDIA H200 and 16 cores):

    python3 golden/recorded/refresh.py --assay build/harness/cli/assay --selfcheck build/gpu/gpu_selfcheck \\
        [--engine-selfcheck build/harness/cli/engine_selfcheck] [--planted FOLDER [FOLDER]] [--plugin build/gpu/plugin_example.so] [--out golden/recorded]

    python3 golden/recorded/refresh.py --assay ... --parts planted [--out golden/recorded]     (a part alone)
    python3 golden/recorded/refresh.py --peers FOLDER [--out golden/recorded]     (other projects' layers, from FOLDER/PEER/*.json, *.h5)

Goldens and fixtures for every GPU pipeline, contract and permute flag, the training step's 4,096 tokens, a dump, the sanitizer's four
tools on the self-check, the planted kernel faults (after `ninja planted`: assay_planted_N in build/harness/cli, gpu_selfcheck_planted_N in
build/gpu; the eighth needs 110 GiB of memory), and times, other projects' layers' among them as far as
Python imports them. Exits 1 when anything did not come out as it must.
Without compute-sanitizer or --planted these parts are left out, and the summary says so.
"""

import argparse
import datetime
import glob
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import gpu_sources
import long_rows
import peers

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = ("integers wide one_sign cancellation ties all_tied zeros hot_expert empty_experts one_token no_tokens all_experts one_expert "
         "saturated no_renormalisation").split()
MODELS = ["qwen3_30b_a3b", "qwen3_235b_a22b", "qwen3_next_80b"]
PIPELINES = ["gpu_cublas", "gpu_cublas_grouped", "gpu_fused"]
# Fault of gpu/kernels/planted_kernels.h -> stages of which one must be named first; none: in small problems too few tiles run at once for it, and the
# self-check alone has one where it shows.
WEIGHTS = ["d_down_proj", "d_gate_up_proj"]
SANITIZER_SECONDS = 120  # beyond what is judged meanwhile
PLANTED = {1: ["first_gemm"], 2: ["first_gemm"], 3: ["first_gemm", "intermediate"], 4: ["first_gemm"], 5: ["intermediate"], 6: ["first_gemm", "intermediate"],
           7: ["first_gemm"], 8: ["first_gemm"], 9: WEIGHTS, 10: WEIGHTS, 11: ["d_intermediate", "d_permuted_hidden_states"], 12: WEIGHTS, 13: []}  # fmt: skip
SIZES = ["128", "1024", "4096", "16384"]
BENCHES = {
    "bench_layer": ["--fixture", *MODELS, "--routing", "natural", "hot_expert", "--tokens", "1", "16", *SIZES],
    "bench_backward_hf": ["--fixture", MODELS[0], "--tokens", *SIZES, "--backward"],
    "bench_backward_fused_fp32": ["--fixture", MODELS[0], "--tokens", *SIZES, "--backward", "--contract", "fused_fp32"],
    "bench_backward_hf_235b": ["--fixture", MODELS[1], "--tokens", "4096", "--backward"],
    "bench_backward_hf_80b": ["--fixture", MODELS[2], "--tokens", "1024", "4096", "--backward"],
    "bench_peers_backward": ["--fixture", MODELS[0], "--tokens", "4096", "16384", "--backward", "--peers"],
}
PARTS = ["sanitizers", "judged", "plugin", "planted", "engine", *BENCHES]
LARGE = 8  # no problem of the self-check is large enough for it


def sanitized(summaries):
    """Whether a tool came to its end and every one of its summaries counts nothing."""
    return any("LEAK" not in line for line in summaries) and all("SUMMARY: 0 " in line for line in summaries)


class Refresh:
    def __init__(self, options):
        self.options, self.summary, self.failed = options, [], False
        self.out = pathlib.Path(options.out)
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="assay-refresh-"))
        self.goldens = sorted(glob.glob("golden/data/*.grouped_mm.h5"))

    def say(self, line, good=True):
        self.failed |= not good
        self.summary.append(("ok    " if good else "FAILED") + "  " + line)
        print(self.summary[-1], flush=True)

    def verify(self, name, *arguments, accepted=("Passed",)):
        """One `assay verify` with a JSON report; its cases."""
        path = self.work / f"{name}.json"
        start = time.monotonic()
        run = subprocess.run([self.options.assay, "verify", *arguments, "--json", str(path)], capture_output=True, text=True)
        report = json.loads(path.read_text()) if path.exists() else {"cases": []}
        bad = [case for case in report["cases"] if case["verdict"] not in accepted]
        bits = [field[kind] for case in report["cases"] for field in case["fields"] for kind in ("isolated_bits", "chained_bits")]
        differing = sum(one["differing"] for one in bits if one["binding"])  # others have no declared order of sums
        self.say(f"{name}: {len(report['cases'])} cases, {len(bad)} not passed, {differing} bits beside the prediction, {time.monotonic() - start:.0f} s",
                 (run.returncode == 0 or accepted != ("Passed",)) and not bad and differing == 0 and report["cases"] != [])
        for case in bad[:3]:
            print("        ", case["problem"], case["candidate"], case["headline"], run.stderr[-300:])
        return report

    def store(self, name, report):
        """Reports of many cases go without what a reader looks up for one case only: they would be twice as long."""
        if report.get("schema") == "assay-report" and len(report["cases"]) > 10:
            for field in (field for case in report["cases"] for field in case["fields"]):
                field.pop("vacuity", None)
                for judgement in (field["isolated"], field["chained"]):
                    judgement.pop("statistics", None)
                    judgement.pop("bounds", None)
        (self.out / name).write_text(self.anywhere(json.dumps(report, separators=(",", ":"))) + "\n")

    def anywhere(self, text):
        """Without this machine's paths."""
        text = text.replace(f"{self.work}/", "")
        return text.replace(self.options.plugin, "build/gpu/plugin_example.so") if self.options.plugin else text

    def sanitizers(self):
        """The four tools side by side; processes, to be waited for."""
        tool = shutil.which("compute-sanitizer")
        if tool is None or not self.options.selfcheck:
            self.summary.append("skipped  compute-sanitizer: not on the path, or no --selfcheck")
            return {}
        return {name: subprocess.Popen([tool, "--tool", name, *extra, self.options.selfcheck, "--races" if name == "racecheck" else "--small"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
                for name, extra in {"memcheck": ["--leak-check", "full"], "racecheck": [], "synccheck": [], "initcheck": []}.items()}

    def finish(self, running):
        texts = []
        end = time.monotonic() + SANITIZER_SECONDS
        for name, process in running.items():
            try:
                text = process.communicate(timeout=max(1.0, end - time.monotonic()))[0]
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # the tool and the program it runs
                process.communicate()
                texts.append(f"{name}: did not end within {SANITIZER_SECONDS} s more than all the rest took")
                self.say(texts[-1], False)
                continue
            found = re.findall(r"=+ (?:ERROR|RACECHECK) SUMMARY: .*|LEAK SUMMARY: .*", text)
            print("\n".join(re.findall(r"=+ Error: .*\n=+ .*", text)[:5]), flush=True)
            texts += [f"{name}: {line}" for line in found]
            # Its own exit status is the program's. No summary is a tool that did not get to its end.
            self.say(f"{name}: {'; '.join(found) or text.strip()[-200:]}", process.returncode == 0 and sanitized(found))
        if running:
            (self.out / "sanitizer.txt").write_text("\n".join(texts) + "\n")

    def planted(self):
        lines = []
        for number, fields in PLANTED.items():
            if fields:
                lines += self.planted_judged(number, fields)
            if number == LARGE:
                continue
            run = subprocess.run([self.planted_program(f"gpu_selfcheck_planted_{number}"), "--gradients" if 8 < number < 13 else "--small"], capture_output=True, text=True)
            lines.append(f"planted fault {number}, self-check, exit {run.returncode}: {run.stdout.splitlines()[-1] if run.stdout else run.stderr.strip()[-200:]}")
            self.say(lines[-1], run.returncode == 1)
        (self.out / "planted_kernels.txt").write_text("\n".join(lines) + "\n")

    def planted_judged(self, number, fields):
        if number == LARGE:  # a byte offset of 32 bits wraps behind 4 GiB of input: 524,288 rows of 4,096
            rows = self.work / "long_rows"
            long_rows.write_checkpoint(rows)
            problem = ["--checkpoint", str(rows), "--layer", "0", "--tokens", str(long_rows.TOKENS), "--stage", "GateUp"]
            self.verify("long_rows", *problem, "--pipeline", "gpu_fused")
        elif number == 12:  # what a gradient is added to is lost
            problem = ["--fixture", "accumulated", "--backward", "--contract", "hf_in_place_grads"]
        elif number > 8:  # of the backward pass
            problem = ["--fixture", "empty_experts", "--golden", "golden/data/odd.grouped_mm.h5", "golden/data/rows.grouped_mm.h5", "--backward"]
        else:
            problem = ["--golden", "golden/data/odd.grouped_mm.h5", "golden/data/qwen3_30b_a3b.grouped_mm.h5"]
        run = subprocess.run([self.planted_program(f"assay_planted_{number}"), "verify", *problem, "--pipeline", "gpu_fused", "--json", str(self.work / "planted.json")],
                             capture_output=True, text=True)
        cases = json.loads((self.work / "planted.json").read_text())["cases"]
        heads = [case["headline"] for case in cases if case["verdict"] != "Passed"]
        named = bool(heads) and run.returncode == 1 and all(any(field in head for field in fields) for head in heads)
        self.say(f"planted fault {number}: {heads[0] if heads else 'not found'}", named)
        return [f"planted fault {number}, exit {run.returncode}: {head}" for head in heads or [run.stderr.strip()[-200:] or "nothing found"]]

    def planted_program(self, name):
        return next((str(path) for path in (pathlib.Path(folder) / name for folder in self.options.planted) if path.exists()), name)

    def judged_by_the_gpu(self):
        """The GPU as the reference's engine: equal to the CPU, and the training step judged in less than ten seconds."""
        if self.options.engine_selfcheck:
            run = subprocess.run([self.options.engine_selfcheck], capture_output=True, text=True)
            self.say("engine: " + "; ".join(run.stdout.splitlines()[:4]), run.returncode == 0)
        else:
            self.summary.append("skipped  engine: no --engine-selfcheck")
        report = self.verify("4,096 tokens alone", "--fixture", "qwen3_30b_a3b_t4096", "--pipeline", "gpu_fused", "--engine", "gpu")
        limit = 10.0  # seconds, every element of every field, isolated and chained
        self.say(f"4,096 tokens, every element judged: {report['seconds']:.1f} s", report["seconds"] < limit)
        self.store("gpu_t4096_alone.json", report)
        report = self.verify("4,096 tokens, both passes", "--fixture", "qwen3_30b_a3b_t4096", "--pipeline", "gpu_fused", "--engine", "gpu", "--backward")
        limit = 30.0
        self.say(f"4,096 tokens, both passes, every element judged: {report['seconds']:.1f} s", report["seconds"] < limit)
        self.store("gpu_t4096_backward.json", report)

    def backward(self):
        """Both passes: every gradient of small problems, all pipelines; the real width once; dumps of two goldens."""
        small = [f"golden/data/{name}.grouped_mm.h5" for name in ("tiny", "odd", "rows", "one_choice")]
        both = self.verify("backward, goldens", "--golden", *small, "--pipeline", *PIPELINES, "--backward")
        both["cases"] += self.verify("backward, fixtures", "--fixture", *SMALL, "long_segment", "--pipeline", *PIPELINES, "--backward")["cases"]
        for x, y in itertools.product(("true", "false"), ("true", "false")):
            for part in ("--dx-only", "--dw-only", ""):
                report = self.verify(f"backward, permute_x {x}, permute_y {y} {part}", "--golden", *small, "--pipeline", "gpu_fused", "--backward",
                                     "--permute-x", x, "--permute-y", y, *([part] if part else []))  # fmt: skip
                both["cases"] += report["cases"]
        self.store("gpu_backward.json", both)
        for name in ("odd", "rows"):
            self.verify(f"dump of {name}", "--golden", f"golden/data/{name}.grouped_mm.h5", "--pipeline", "gpu_fused", "--backward",
                        "--dump", str(self.out / f"gpu_fused_{name}.h5"))  # fmt: skip
        self.store("gpu_backward_30b.json", self.verify("backward, 30B", "--golden", "golden/data/qwen3_30b_a3b.grouped_mm.h5", "--pipeline", "gpu_fused", "--backward"))

    def backward_contracts(self):
        """Both passes where other contracts round: a late weight; weight gradients in float32, or added to those of before."""
        small = [f"golden/data/{name}.grouped_mm.h5" for name in ("tiny", "odd", "rows", "one_choice")]
        every = None
        for contract in ("fused_fp32", "hf_in_place_grads", "hf_added_main_grads", "hf_main_grads"):
            pipelines = ["gpu_fused"] if contract == "fused_fp32" else ["gpu_fused", "gpu_cublas"]
            # What `accumulated` has of before is bf16: these pipelines add to what they store, and take no other type.
            added = [] if contract.endswith("main_grads") else ["accumulated"]
            report = self.verify(f"backward, {contract}", "--golden", *small, "--fixture", *added, "empty_experts", "long_segment", "--pipeline", *pipelines,
                                 "--backward", "--contract", contract)  # fmt: skip
            if every is None:
                every = report
            else:
                every["cases"] += report["cases"]
        self.store("gpu_backward_contracts.json", every)

    def sweep(self):
        """Every kernel config of gpu_fused, twice each: both passes of small problems, and the real width."""
        odd, rows, wide = (f"golden/data/{name}.grouped_mm.h5" for name in ("odd", "rows", "qwen3_30b_a3b"))
        # A config may be one that a problem is too large for.
        report = self.verify("sweep, both passes", "--golden", odd, rows, "--pipeline", "gpu_fused", "--sweep", "--backward", accepted=("Passed", "Unsupported"))
        report["cases"] += self.verify("sweep, 30B", "--golden", wide, "--pipeline", "gpu_fused", "--sweep")["cases"]
        # A line a config: whole reports of all would be megabytes.
        lines = [f"{case['problem']:<15} {case['verdict']:<12} {case['candidate'].partition('#')[2]}: {case['headline']}" for case in report["cases"]]
        (self.out / "gpu_sweep.txt").write_text(self.anywhere("\n".join([f"{report['command']}, and on 30B-A3B's golden", "", *lines, ""])))

    def bench(self, name):
        """One row of BENCHES; every size that it times says how its bits were compared."""
        start = time.monotonic()
        path = self.work / f"{name}.json"
        run = subprocess.run([self.options.assay, "bench", "layer", *BENCHES[name], "--json", str(path)], capture_output=True, text=True)
        self.say(f"{name}: {time.monotonic() - start:.0f} s {run.stderr.strip()[-200:]}", run.returncode == 0)
        if run.returncode == 0:
            self.store(f"{name}.json", json.loads(path.read_text()))
            (self.out / f"{name}.txt").write_text(run.stdout)

    def judged(self):
        """Every pipeline, contract and flag on goldens and fixtures, forward and backward, and a dump."""
        self.store("gpu_goldens.json", self.verify("goldens", "--golden", *self.goldens, "--pipeline", *PIPELINES))
        self.store("gpu_cublas_fixtures.json", self.verify("cublas fixtures", "--fixture", *SMALL, "--pipeline", "gpu_cublas", "gpu_cublas_grouped"))
        variants = None
        for contract, x, y in itertools.product(("hf", "fused_fp32"), ("true", "false"), ("true", "false")):
            for kind, problems in (("fixtures", ["--fixture", *SMALL]), ("goldens", ["--golden", *self.goldens])):
                report = self.verify(f"gpu_fused {contract}, permute_x {x}, permute_y {y}, {kind}", *problems, "--pipeline", "gpu_fused", "--contract", contract,
                                     "--permute-x", x, "--permute-y", y)
                if variants is None:
                    variants = report
                else:
                    variants["cases"] += report["cases"]
        self.store("gpu_fused_variants.json", variants)
        self.backward()
        self.backward_contracts()
        self.sweep()
        self.store("gpu_t4096.json", self.verify("4,096 tokens", "--fixture", "qwen3_30b_a3b_t4096", "--pipeline", "gpu_fused", "gpu_cublas"))
        self.verify("dump", "--golden", "golden/data/qwen3_30b_a3b.grouped_mm.h5", "--pipeline", "gpu_fused", "--dump", str(self.out / "gpu_fused.h5"))

    def plugin(self):
        report = self.verify("plugin in device memory", "--fixture", *SMALL, "qwen3_30b_a3b", "--pipeline", f"plugin:{self.options.plugin}")
        both = self.verify("plugin in device memory, backward", "--fixture", *SMALL, "--pipeline", f"plugin:{self.options.plugin}", "--backward")
        report["cases"] += both["cases"]
        self.store("gpu_plugin.json", report)

    def run(self):
        """The parts asked for, in the order in which they leave one another alone: what is timed comes last."""
        asked = self.options.parts
        running = self.sanitizers() if "sanitizers" in asked else {}
        if "judged" in asked:
            self.judged()
        self.finish(running)  # before the planted faults: the eighth takes most of the memory there is
        for part, needed in (("plugin", self.options.plugin), ("planted", self.options.planted)):
            if part in asked and needed:
                getattr(self, part)()
            elif part in asked:
                self.summary.append(f"skipped  {part}: no --{part}")
        if "engine" in asked:
            self.judged_by_the_gpu()
        for name in BENCHES:
            if name in asked:
                self.bench(name)
        if "judged" in asked:
            gpu = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], capture_output=True, text=True).stdout.strip().split(", ")
            self.store_run(gpu, json.loads((self.out / "gpu_goldens.json").read_text())["environment"])
        print("\n".join(["", *self.summary]))
        return 1 if self.failed else 0

    def store_run(self, gpu, environment):
        described = dict(environment)
        run = {"what": "the last run of the CUDA pipelines on a GPU, judged by assay itself; times in bench_layer.txt", "device": gpu[0], "driver": gpu[1], "cuda": "13.0",
               "date": datetime.date.today().isoformat(), "revision": described["assay"].split("revision ")[-1],
               "gpu_sources_sha256": gpu_sources.digest(ROOT)}
        (self.out / "run.json").write_text(json.dumps(run, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assay")
    parser.add_argument("--selfcheck")
    parser.add_argument("--engine-selfcheck")
    parser.add_argument("--planted", nargs="+", help="folders with assay_planted_1 ... and gpu_selfcheck_planted_1 ... (ninja planted)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="these alone (default: all)")
    parser.add_argument("--plugin", help="gpu/plugin_example.so")
    parser.add_argument("--peers", help="folder with reports and dumps of other projects' layers: FOLDER/PEER/*.json, *.h5")
    parser.add_argument("--out", default="golden/recorded")
    options = parser.parse_args()
    if options.peers:
        peers.record(options.peers, options.out)
        sys.exit(0)
    refresh = Refresh(options)
    if not options.assay:
        parser.error("expected --assay, or --peers alone")
    sys.exit(refresh.run())
