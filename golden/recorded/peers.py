"""Gathers what `assay verify --json` said about other projects' layers (python3 -m assay_golden peer) into one small file."""

import json
import pathlib
import shutil
import sys


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


def record(folder, out):
    """peers.json, and every peer's dump of the full-width golden, which the tests judge again."""
    gathered = gather(folder)
    if not gathered["cases"]:
        sys.exit(f"refresh.py: expected reports {folder}/PEER/*.json, found none; nothing was written")
    pathlib.Path(out, "peers.json").write_text(json.dumps(gathered, separators=(",", ":")) + "\n")
    for dump in sorted(pathlib.Path(folder).glob("*/qwen3_30b_a3b.h5")):
        shutil.copyfile(dump, pathlib.Path(out, f"{dump.parent.name}_30b.h5"))
