"""Finds the program `assay` and runs it. It is told everything through files and options, and answers with text and JSON."""

import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys

from assay_golden.errors import InputError, UsageError
from assay_golden.fixture import parse_fixtures

PACKAGE = pathlib.Path(__file__).resolve().parent
SOURCE_TREE = PACKAGE.parents[2]  # harness/python/assay, where this is the source tree
USAGE, COULD_NOT_JUDGE, NOTHING_COMPARED = 2, 3, 77  # harness/contract/exit_code.h


def find_program():
    """Path of the program: $ASSAY, beside this package (a wheel), the source tree's build, or on PATH. Raises InputError."""
    named = os.environ.get("ASSAY")
    if named:
        if not (os.path.isfile(named) and os.access(named, os.X_OK)):
            raise InputError(f"ASSAY names {named}, which is no program; unset it, or let it name the built assay")
        return named
    places = [PACKAGE / "bin" / "assay", SOURCE_TREE / "build" / "harness" / "cli" / "assay"]
    for place in places:
        if place.is_file() and os.access(place, os.X_OK):
            return str(place)
    found = shutil.which("assay")
    if found:
        return found
    raise InputError(
        f"the program assay was not found: not in $ASSAY, at {' or '.join(map(str, places))}, or on PATH; "
        "pip install the wheel, or build the source tree (./dev verify)"
    )


def with_surroundings(environment):
    """The environment in which the program finds this Python and, in a wheel, its exporter."""
    surroundings = {"ASSAY_PYTHON": sys.executable}
    if (PACKAGE.parent / "assay_golden").is_dir():
        surroundings["ASSAY_EXPORTER"] = str(PACKAGE.parent)
    return {**surroundings, **environment}


def run(words, program=None, accept=()):
    """Runs `assay WORDS`. Returns the finished process. Raises UsageError or InputError with the program's own sentence on any exit
    code that judges nothing, but for those in `accept`."""
    command = [program or find_program(), *map(str, words)]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=False, env=with_surroundings(os.environ), stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        raise InputError(f"cannot run {command[0]}: {error.strerror}; is it built for this machine?")
    if done.returncode < 0:
        raise InputError(f"{' '.join(command)} was ended by signal {-done.returncode}")
    said = done.stderr.strip().removeprefix("assay: ") or f"{' '.join(command)} ended with {done.returncode}"
    if done.returncode == USAGE and USAGE not in accept:
        raise UsageError(said)
    if done.returncode == COULD_NOT_JUDGE and COULD_NOT_JUDGE not in accept:
        raise InputError(said)
    return done


@functools.lru_cache(maxsize=8)
def fixtures(program=None):
    """{name: Fixture} of the program's fixtures, in its order."""
    where = program or find_program()
    return {fixture.name: fixture for fixture in parse_fixtures(run(["list", "fixtures", "--json"], where).stdout, where)}


def read_report(path):
    """A JSON report as the program wrote it. Raises InputError."""
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the report {path}: {error}")


def golden_folder():
    """Folder of the committed goldens: $ASSAY_GOLDENS, beside this package (a wheel), or the source tree's."""
    named = os.environ.get("ASSAY_GOLDENS")
    beside, in_tree = PACKAGE / "goldens", SOURCE_TREE / "golden" / "data"
    return pathlib.Path(named) if named else beside if beside.is_dir() else in_tree
