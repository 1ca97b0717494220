"""Gathers what `assay verify --json` said about other projects' layers (python3 -m assay_golden peer) into one small file.

    python3 golden/recorded/peers.py build/harness/cli/assay     (judges the recorded dumps of both passes again: "gradients" of peers.json)"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

RECORDED = pathlib.Path(__file__).resolve().parent
# Dumps of both passes, each with the contract that it follows.
GRADIENTS = {"liger": "fused_fp32", "scattermoe": "hf_fp32_merge", "sonicmoe": "fused_fp32", "unsloth": "unsloth"}


def bits(field, kind):
    found = field[kind]
    return [found["as_predicted"], found["undetermined"], found["differing"]] if found["available"] else None


def case_of(case):
    fields = {
        field["field"]: {"verdict": field["verdict"], "isolated": bits(field, "isolated_bits"), "chained": bits(field, "chained_bits")}
        for field in case["fields"] if field["verdict"] != "NotMaterialised"
    }  # fmt: skip
    return {key: case[key] for key in ("producer", "problem", "tokens", "device", "contract", "accumulators", "verdict", "headline", "remarks")} | {"fields": fields}


def gather(folder):
    """Of FOLDER/PEER/*.json, and FOLDER/run.json, which says where and with which versions they were made."""
    folder = pathlib.Path(folder)
    reports = [json.loads(path.read_text()) for path in sorted(folder.glob("*/*.json"))]
    about = json.loads((folder / "run.json").read_text()) if (folder / "run.json").exists() else {}
    about["sources"] = [" ".join(source.split()) for source in about.get("sources", [])]
    return {
        "schema": "assay-peers", "what": "other projects' layers, judged on the goldens; bits are [as predicted, undetermined, differing]", **about,
        "cases": [case_of(case) for report in reports for case in report["cases"]],
    }  # fmt: skip


def gradient_case(assay, peer):
    """The recorded dump of a peer's both passes, judged."""
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder, "report.json")
        subprocess.run([assay, "verify", "--golden", RECORDED.parent / "data/rows.grouped_mm.h5", "--pipeline", f"dump:{RECORDED / peer}_rows.h5",
                        "--contract", GRADIENTS[peer], "--json", report, "-q"], check=False)  # fmt: skip
        (case,) = json.loads(report.read_text())["cases"]
    return case_of(case)


def record_gradients(assay, out=RECORDED):
    recorded = json.loads(pathlib.Path(out, "peers.json").read_text())
    recorded["gradients"] = [gradient_case(assay, peer) for peer in GRADIENTS]
    pathlib.Path(out, "peers.json").write_text(json.dumps(recorded, separators=(",", ":")) + "\n")


def record(folder, out):
    """peers.json, and every peer's dump of the full-width golden, which the tests judge again."""
    gathered = gather(folder)
    if not gathered["cases"]:
        sys.exit(f"refresh.py: expected reports {folder}/PEER/*.json, found none; nothing was written")
    before = json.loads((RECORDED / "peers.json").read_text())
    gathered["gradients"] = before["gradients"]  # of other dumps
    pathlib.Path(out, "peers.json").write_text(json.dumps(gathered, separators=(",", ":")) + "\n")
    for dump in sorted(pathlib.Path(folder).glob("*/qwen3_30b_a3b.h5")):
        shutil.copyfile(dump, pathlib.Path(out, f"{dump.parent.name}_30b.h5"))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    record_gradients(pathlib.Path(sys.argv[1]).resolve())
