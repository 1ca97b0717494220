"""Checks an installed wheel: run by the Python that it is installed in, with no PATH and from an empty folder. `./dev wheel --check` does.

Every line that is printed is a thing seen; a failed assertion ends it.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import assay
from assay import program_runs

# What a Linux with glibc has, and what auditwheel puts into the wheel itself.
SYSTEM = ("linux-vdso", "ld-linux", "libc.so", "libm.so", "libdl.so", "libpthread.so", "librt.so", "libstdc++.so", "libgcc_s.so")

TESTS = """
import assay

@assay.layer_problems("tiny")
def test_predicted(problem):
    assay.assert_layer(lambda p: p.predicted, problem)
"""


def loaded_libraries(program):
    """Names of the shared libraries that the program loads, as the loader tells it, and where from."""
    loader = next(path for path in ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1") if os.path.exists(path))
    text = subprocess.run([loader, "--list", program], capture_output=True, encoding="utf-8", check=True).stdout
    return [line.split()[0] if "=>" not in line else (line.split()[0], line.split()[2]) for line in text.splitlines()]


def main():
    assert os.environ.get("PATH", "") == "", "the check runs without a PATH"
    package = pathlib.Path(assay.__file__).resolve().parent
    assert program_runs.find_program() == str(package / "bin" / "assay"), program_runs.find_program()
    for library in loaded_libraries(package / "bin" / "assay"):
        name, place = library if isinstance(library, tuple) else (os.path.basename(library), "")
        assert name.startswith(SYSTEM) or str(package.parent) in place, f"the program needs {name} from {place}"
    print("the program lies in the package and loads nothing but glibc's, gcc's and the wheel's own libraries")

    for name in ("odd", "odd.grouped_mm"):
        problem = assay.problem(name)
        assert assay.judge(problem, problem.predicted).passed
    assert len(assay.problem_names("goldens")) == 14 and len(assay.problem_names("small")) > 15
    print(f"fixtures and {len(assay.problem_names('goldens'))} goldens are there, and a layer on each kind passes")

    command = pathlib.Path(sys.executable).parent / "assay"
    with tempfile.TemporaryDirectory() as folder:
        page = os.path.join(folder, "report.html")
        golden = program_runs.golden_folder() / "tiny.grouped_mm.h5"
        subprocess.run([command, "verify", "--golden", golden, "--html", page, "-q"], check=True)
        assert os.path.getsize(page) > 10000
        print("the command assay judges a golden and writes its page")
        made = subprocess.run([command, "golden", "make", "--fixture", "tiny", "--out", folder], capture_output=True, encoding="utf-8", check=False)
        assert "lacks torch" in made.stderr or made.returncode == 0, made.stderr
        print("without torch the exporter says what it lacks" if made.returncode else "the exporter runs")
        if importlib_has("pytest"):
            pathlib.Path(folder, "test_layer.py").write_text(TESTS)
            ran = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "--assay-junit", "all.xml"], cwd=folder, capture_output=True, encoding="utf-8", check=False,
            )  # fmt: skip
            assert ran.returncode == 0 and "1 judged" in ran.stdout, ran.stdout + ran.stderr
            print("pytest finds the plug-in by itself")


def importlib_has(name):
    import importlib.util

    return importlib.util.find_spec(name) is not None


if __name__ == "__main__":
    main()
