"""The pytest plug-in: `@assay.layer_problems("small")` runs a test for every problem, a failure prints assay's own text, and the run writes one
report of everything it judged.

    --assay-html F    one page         --assay-junit F   JUnit XML         --assay-json F   for a later --assay-baseline
    --assay-baseline F   compares with an earlier run's --assay-json; a regression fails the run
    --assay-device D     where the problems' tensors are, for marks that name no device
"""

import os
import pathlib
import shutil
import tempfile

import pytest

import assay
from assay import judging, program_runs

_FILES = ("html", "junit", "json")
_OF_XDIST = "assay_folder"


def pytest_addoption(parser):
    group = parser.getgroup("assay", "layers judged by assay")
    for kind, what in zip(_FILES, ("one HTML page", "JUnit XML", "JSON, for a later --assay-baseline")):
        group.addoption(f"--assay-{kind}", metavar="FILE", help=f"write all that was judged as {what}")
        parser.addini(f"assay_{kind}", f"default of --assay-{kind}", default="")
    group.addoption("--assay-baseline", metavar="FILE", help="compare with an earlier run's --assay-json; a regression fails the run")
    group.addoption("--assay-device", metavar="DEVICE", help="torch device of the problems' tensors; default: numpy arrays")


def pytest_configure(config):
    config.addinivalue_line("markers", "assay_problems(*patterns, device, requires_grad): runs the test for every problem; written by assay.layer_problems")
    config.pluginmanager.register(_Run(config), "assay_run")


def pytest_generate_tests(metafunc):
    mark = metafunc.definition.get_closest_marker("assay_problems")
    if mark is None:
        return
    try:
        names = list(dict.fromkeys(name for pattern in mark.args for name in assay.problem_names(pattern)))
    except assay.AssayError as error:
        pytest.fail(f"layer_problems: {error}", pytrace=False)
    if "problem" not in metafunc.fixturenames:
        pytest.fail(f"{metafunc.function.__name__} is marked with assay.layer_problems: it needs an argument named problem", pytrace=False)
    metafunc.parametrize("problem", names, indirect=True)


@pytest.fixture
def problem(request):
    """The problem that a test marked with assay.layer_problems is run for."""
    mark = request.node.get_closest_marker("assay_problems")
    if mark is None or not hasattr(request, "param"):
        pytest.fail("the fixture `problem` belongs to @assay.layer_problems(...)", pytrace=False)
    asked = request.config.getoption("--assay-device")
    device = mark.kwargs.get("device") or asked or ("cpu" if mark.kwargs.get("requires_grad") else None)
    try:
        return assay.problem(request.param, device=device, requires_grad=mark.kwargs.get("requires_grad", False))
    except assay.InputError as error:
        # A mark's GPU that is not there skips, as other GPU tests do; one asked for by --assay-device must be there.
        if device == mark.kwargs.get("device"):
            pytest.skip(str(error))
        pytest.fail(str(error), pytrace=False)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if call.excinfo is not None and call.excinfo.errisinstance(assay.LayerFailure):
        result = call.excinfo.value.result
        outcome.get_result().longrepr = f"{result.headline}\n\n{result.text.removeprefix('assay verify').lstrip()}"  # pytest's summary shows the first line


class _Run:
    """Every report of a run, in one folder; pytest-xdist's workers write into the controller's."""

    def __init__(self, config):
        self.config = config
        worker = getattr(config, "workerinput", None)
        self.is_worker = worker is not None
        self.folder = pathlib.Path(worker[_OF_XDIST] if self.is_worker else tempfile.mkdtemp(prefix="assay-pytest-"))
        self.failing = self.folder / "failing"
        self.failing.mkdir(exist_ok=True)
        self.count = 0
        self.said = []
        judging.listeners.append(self.keep)
        self.before, judging.keep_in = judging.keep_in, str(self.failing)

    def path_of(self, kind):
        return self.config.getoption(f"--assay-{kind}") or self.config.getini(f"assay_{kind}")

    def keep(self, result):
        self.count += 1
        result.json(self.folder / f"{os.getpid()}-{self.count:06}.json")

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node):
        node.workerinput[_OF_XDIST] = str(self.folder)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item):
        judging.default_producer = item.nodeid.split("[")[0]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session):
        if self.is_worker:
            return
        reports = sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        wanted = {kind: os.path.abspath(self.path_of(kind)) for kind in _FILES if self.path_of(kind)}
        baseline = self.config.getoption("--assay-baseline")
        if not reports:
            if wanted or baseline:
                self.said.append("nothing was judged: no report is written, and nothing is compared")
            return
        try:
            merged = self.folder / "all" / "report.json"
            merged.parent.mkdir()
            words = [word for kind, path in ({"json": merged} | {kind: path for kind, path in wanted.items() if kind != "json"}).items() for word in (f"--{kind}", path)]
            program_runs.run(["report", *reports, *words, "-q"], accept=(program_runs.COULD_NOT_JUDGE,))
            if "json" in wanted:
                shutil.copyfile(merged, wanted["json"])
            self.said.append(f"{len(reports)} judged" + "".join(f"; {path}" for path in wanted.values()))
            if baseline:
                self.compare(session, baseline, merged)
        except (assay.AssayError, OSError) as error:
            self.said.append(f"error: {error}")
            session.exitstatus = max(int(session.exitstatus), 1)

    def compare(self, session, baseline, merged):
        done = program_runs.run(["regress", "--baseline", baseline, "--candidate", merged])
        self.said.append(done.stdout.strip())
        if done.returncode == 1:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED if int(session.exitstatus) == 0 else session.exitstatus

    def pytest_terminal_summary(self, terminalreporter):
        if self.said:
            terminalreporter.section("assay")
            for text in self.said:
                terminalreporter.write_line(text)
        if any(self.failing.iterdir()):
            terminalreporter.write_line(f"candidates of failing layers, for their replay lines: {self.failing}")

    def pytest_unconfigure(self):
        judging.listeners.remove(self.keep)
        judging.keep_in = self.before
        judging.default_producer = ""
        if not self.is_worker:
            for path in self.folder.iterdir():
                if path != self.failing or not any(self.failing.iterdir()):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            if not any(self.folder.iterdir()):
                self.folder.rmdir()
