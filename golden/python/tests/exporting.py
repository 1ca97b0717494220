"""What tests of the exporter share: a folder that vanishes, and one fixture exported on the CPU."""

import tempfile
import unittest
from pathlib import Path

import torch

from assay_golden import schema
from assay_golden.export import Options, export_fixture

CPU = torch.device("cpu")


def has_grouped():
    import transformers

    return int(transformers.__version__.split(".")[0]) >= 5


def export(fixture, folder, **changes):
    return [schema.read(path) for path, _ in export_fixture(fixture, Options(str(folder), CPU, threads=1, **changes))]


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
