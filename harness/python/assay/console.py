"""The command `assay` of an installed wheel: the program that lies in this package, told where its exporter is."""

import os
import sys

from .program_runs import PACKAGE, with_surroundings


def main():
    program = PACKAGE / "bin" / "assay"
    if not program.is_file():
        print(f"assay: {program} is missing; install the wheel again", file=sys.stderr)
        return 3
    os.execve(program, ["assay", *sys.argv[1:]], with_surroundings(os.environ))


if __name__ == "__main__":
    sys.exit(main())
