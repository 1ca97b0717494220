"""The times of the fused layer as README.md and gpu/PERFORMANCE.md state them, from bench_layer.json: without a word, rewrites both; --check tells
what differs. Standard library only."""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = {"qwen3_30b_a3b": "Qwen3-30B-A3B", "qwen3_235b_a22b": "Qwen3-235B-A22B", "qwen3_next_80b": "Qwen3-Next-80B-A3B"}
TABLE = ("gpu/PERFORMANCE.md", r"(?:^\| Qwen3-[^\n]* \|\n)+")  # the first such rows of the page
SENTENCE = ("README.md", r"takes [\d, ]+ and [\d,]+ µs at T = 1, 16, 128, 1,024, 4,096 and 16,384")


def short(microseconds):
    return f"{microseconds:.1f}" if microseconds < 100 else f"{microseconds:,.0f}"


def row(case):
    times = {one["what"]: one for one in case["timings"]}
    layer = times["layer"]
    median = lambda what: short(times[what]["median_us"]) if what in times else "–"
    name = MODELS[case["fixture"]] + ("" if case["routing"] == "natural" else ", one expert takes all tokens")
    batched = ", ".join(median(f"cuBLAS batched, equal counts, {product}") for product in ("gate_up", "down"))
    return (
        f"| {name} | {case['tokens']:,} | {short(layer['median_us'])} ({layer['fastest_us']:,.0f} to {layer['slowest_us']:,.0f}) | {layer['limit_us']:,.0f} | "
        f"{100 * layer['share_of_limit']:.0f} % | {median('gate_up with gather and swiglu')} | {median('down')} | {batched} |\n"
    )


def stated(cases):
    """(file, pattern, text) of what the pages must say."""
    shown = [case for case in cases if case["routing"] == "natural" or case["tokens"] >= 4096]
    order = lambda case: (list(MODELS).index(case["fixture"]), case["routing"] != "natural", case["tokens"])
    yield *TABLE, "".join(row(case) for case in sorted(shown, key=order))
    layer = {case["tokens"]: f"{case['timings'][0]['median_us']:,.0f}" for case in cases if (case["fixture"], case["routing"]) == ("qwen3_30b_a3b", "natural")}
    *most, last = (layer[tokens] for tokens in (1, 16, 128, 1024, 4096, 16384))
    yield *SENTENCE, f"takes {', '.join(most)} and {last} µs at T = 1, 16, 128, 1,024, 4,096 and 16,384"


def main(check):
    differing = []
    for file, pattern, text in stated(json.loads((ROOT / "golden/recorded/bench_layer.json").read_text(encoding="utf-8"))["cases"]):
        page = (ROOT / file).read_text(encoding="utf-8")
        found = re.search(pattern, page, re.M)
        if found is None:
            sys.exit(f"{file}: expected a place like {pattern!r}, found none")
        if found[0] != text:
            differing.append(file)
            if not check:
                (ROOT / file).write_text(page[: found.start()] + text + page[found.end() :], encoding="utf-8")
    if check and differing:
        sys.exit(f"{' and '.join(differing)}: other times than those recorded; python3 golden/recorded/bench_table.py rewrites them")


if __name__ == "__main__":
    main("--check" in sys.argv[1:])
