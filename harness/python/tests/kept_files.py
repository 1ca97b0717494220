"""Where a test's failing candidates leave their files: in a folder that goes with it."""

import tempfile
from pathlib import Path

from assay import judging


class KeptFiles:
    """For a TestCase: `folder` is there during each of its tests."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        self.addCleanup(setattr, judging, "keep_in", judging.keep_in)
        judging.keep_in = temporary.name
