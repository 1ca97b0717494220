"""Counts tests: Meson's from testlog.json, Python's from unittest's words. Standard library only.

  count.py --meson TESTLOG STATUS --add PASSED FAILED SKIPPED   prints "N passed, N failed, N skipped"; exit 1 on a failure
  count.py --unittest LOG STATUS                                prints "PASSED FAILED SKIPPED"
  count.py --names FOLDER...                                    prints "SKIPPED module.Class.test" for each test there that needs torch
"""

import argparse
import ast
import json
import pathlib
import re
import sys

PASSED = {"OK", "EXPECTEDFAIL"}
SKIPPED = {"SKIP", "IGNORED"}


def count_meson(path, status):
    """Meson writes one JSON object a line. A run that leaves no line, or fails without a failing one, is a failure."""
    counts = [0, 0, 0]
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            result = json.loads(line)["result"]
            counts[0 if result in PASSED else 2 if result in SKIPPED else 1] += 1
    if sum(counts) == 0 or (status != 0 and counts[1] == 0):
        counts[1] += 1
    return counts


def count_unittest(text, status):
    """From "Ran 12 tests in 1.2s" and "OK (skipped=3)" or "FAILED (failures=1, errors=2, skipped=3)"."""
    ran = re.findall(r"^Ran (\d+) tests? in ", text, re.MULTILINE)
    last = re.findall(r"^(?:OK|FAILED|NO TESTS RAN)(?: \((.*)\))?$", text, re.MULTILINE)
    if not ran or not last:
        return [0, 1, 0]
    parts = dict(re.findall(r"([a-z ]+)=(\d+)", last[-1]))
    number = {key.strip(): int(value) for key, value in parts.items()}
    failed = number.get("failures", 0) + number.get("errors", 0) + number.get("unexpected successes", 0)
    skipped = number.get("skipped", 0)
    if failed == 0 and (status != 0 or int(ran[-1]) == 0):
        failed = 1
    return [max(0, int(ran[-1]) - failed - skipped), failed, skipped]


def needs_torch(node):
    """Whether a test module's statement, or the class that it defines, cannot be without torch: an import, or a decorator that names it."""
    if isinstance(node, ast.Import):
        return any(name.name.split(".")[0] == "torch" for name in node.names)
    if isinstance(node, ast.ImportFrom):
        return (node.module or "") == "tests.exporting" or (node.module or "").split(".")[0] == "torch"
    return isinstance(node, ast.ClassDef) and any("torch" in ast.unparse(one) for one in node.decorator_list)


def test_names(folder):
    for path in sorted(folder.glob("test*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        whole = any(needs_torch(node) for node in body if not isinstance(node, ast.ClassDef))
        for node in body:
            if isinstance(node, ast.ClassDef) and (whole or needs_torch(node)):
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and method.name.startswith("test"):
                        yield f"{path.stem}.{node.name}.{method.name}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meson", nargs=2, metavar=("TESTLOG", "STATUS"))
    parser.add_argument("--add", nargs=3, type=int, default=[0, 0, 0], metavar=("PASSED", "FAILED", "SKIPPED"))
    parser.add_argument("--unittest", nargs=2, metavar=("LOG", "STATUS"))
    parser.add_argument("--names", nargs="+", metavar="FOLDER")
    arguments = parser.parse_args()
    if arguments.names:
        for folder in arguments.names:
            for name in test_names(pathlib.Path(folder)):
                print("SKIPPED", name)
        return 0
    if arguments.unittest:
        path, status = arguments.unittest
        print(*count_unittest(pathlib.Path(path).read_text(encoding="utf-8", errors="replace"), int(status)))
        return 0
    path, status = arguments.meson
    passed, failed, skipped = map(sum, zip(count_meson(pathlib.Path(path), int(status)), arguments.add))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
