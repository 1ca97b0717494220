"""Whether the recorded GPU results are those of the present kernels: prints the SHA-256 over gpu/'s sources and compares it with
run.json. Exit code 77, a skip, when they are older.

What counts is the tokens of every kernel source in gpu/ and its rooms, and of the project's headers they include: comments, blanks,
line breaks (in macros and between the parts of a string, too), include lines, names of files and folders may change, so moving or
formatting a file leaves the evidence as it is."""

import hashlib
import json
import pathlib
import re
import sys

# Tests and benchmarks change no bit of a result.
NO_KERNELS = ("_test.cpp", "bench.cpp", "bench.h", "selfcheck.cpp", "selfcheck_problem.cpp", "selfcheck_problem.h", "selfcheck_products.cpp", "selfcheck_products.h", "probe_ex2.cu", "l2_flush.cu", "plugin_example.cu", "repeat_check.cpp", "repeat_check.h")
SOURCES = (".cu", ".cuh", ".cpp", ".h")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^">]*)[">].*$', re.MULTILINE)
# Comments come first: nothing in them is a token. Strings and characters are one token each.
TOKEN = re.compile(r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[A-Za-z0-9_.]+|[^\sA-Za-z0-9_]""", re.DOTALL)


def tokens(text):
    """The tokens of a source file, its include lines left out."""
    found = []
    for token in TOKEN.findall(INCLUDE.sub("", text).replace("\\\n", "\n")):
        if token.startswith(("//", "/*")):
            continue
        if token[0] == '"' and found and found[-1][0] == '"':
            found[-1] = found[-1][:-1] + token[1:]
        else:
            found.append(token)
    return found


def sources(root):
    """The kernel sources below gpu/ and the headers of other folders they include."""
    root = pathlib.Path(root)
    kernels = [path for path in (root / "gpu").rglob("*") if path.suffix in SOURCES and not path.name.endswith(NO_KERNELS)]
    headers = {root / header for path in kernels for header in INCLUDE.findall(path.read_text()) if not header.startswith("gpu/")}
    return {*kernels, *(header for header in headers if header.is_file())}


def digest(root):
    """Of the files' digests in ascending order: no name of a file or folder matters."""
    each = sorted(hashlib.sha256(" ".join(tokens(path.read_text())).encode()).hexdigest() for path in sources(root))
    return hashlib.sha256("\n".join(each).encode()).hexdigest()


if __name__ == "__main__":
    here = pathlib.Path(__file__).resolve().parent
    present = digest(here.parents[1])
    print(present)
    recorded = json.loads((here / "run.json").read_text())
    if recorded["gpu_sources_sha256"] != present:
        print(f"SKIP: recorded GPU results are older than gpu/: they are of revision {recorded['revision']}, {recorded['date']}")
        sys.exit(77)
