"""The schema's page, golden/SCHEMA.md: its tables are the program's, as tests hold, and Python reads them there."""

import pathlib
import re


def version_of(page):
    """That of the title."""
    return re.search(r"^# The file schema, version (\d+\.\d+)$", page, re.M).group(1)


def contracts_of(page):
    """The names that the attribute `contract` may have."""
    row = next(line for line in page.splitlines() if line.startswith("| `contract` |"))
    return tuple(re.findall(r"`(\w+)`", row)[1:])  # the first one is the attribute's own name


def fields_of(page):
    """(name, group, shape, dtype) of every field, in the table's order; a shape is its symbols."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| \[([^\]]*)\] \| (\w+) \|", page, re.M)
    return [(name, group, tuple(shape.split(", ")), dtype) for name, group, shape, dtype in rows]


_PLACES = (pathlib.Path(__file__).with_name("SCHEMA.md"), pathlib.Path(__file__).resolve().parents[2] / "SCHEMA.md")  # of a wheel, of the source tree
PAGE = next(place for place in _PLACES if place.is_file()).read_text(encoding="utf-8")
