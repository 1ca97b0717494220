"""Runs one test module of the Python packages: run_tests.py FOLDER MODULE. Exit 77 where this Python lacks what every test of it needs."""

import importlib.util
import pathlib
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
NEEDED = ("numpy", "h5py")


def main():
    folder, module = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"skipped: Python at {sys.executable} has no {' and no '.join(missing)}; Debian: python3-numpy python3-h5py python3-pytest")
        return 77
    # golden/python's tests are a package, named from above it.
    package = (folder / "__init__.py").exists()
    sys.path[:0] = [str(ROOT / "harness" / "python"), str(ROOT / "golden" / "python"), str(folder.parent if package else folder)]
    suite = unittest.defaultTestLoader.loadTestsFromName(f"{folder.name}.{module}" if package else module)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    if not result.wasSuccessful() or result.testsRun == 0:
        return 1
    return 77 if len(result.skipped) == result.testsRun else 0


if __name__ == "__main__":
    sys.exit(main())
