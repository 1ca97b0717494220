"""Results stream: a case is printed when it is judged, and reports are there whatever ends the run."""

import json
import os
import pathlib
import pty
import signal
import subprocess
import unittest

from program import ASSAY, COULD_NOT_JUDGE, FAILED, PASSED, ProgramTest

FAULTY = pathlib.Path(os.environ["ASSAY_PLUGINS"]) / "plugin_faulty.so"
REPORTS = ("--json", "r.json", "--html", "r.html", "--junit", "r.xml")


class Stream(ProgramTest):
    def start(self, *words, fault="hang", **options):
        """Runs beside the test. A plugin that hangs keeps it from its end."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "2", "ASSAY_PLUGIN_FAULT": fault}
        program = subprocess.Popen([str(ASSAY), *words], cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   encoding="utf-8", **options)  # fmt: skip
        self.addCleanup(program.stdout.close)
        self.addCleanup(program.wait)
        self.addCleanup(program.kill)
        return program

    def read_until(self, program, words):
        text = ""
        for line in program.stdout:
            text += line
            if words in line:
                return text
        self.fail(f"ended with {program.wait()} before it printed '{words}':\n{text}")

    def interrupted(self, number):
        program = self.start("verify", "--fixture", "tiny", "--pipeline", "predicted", f"plugin:{FAULTY}", *REPORTS)
        self.read_until(program, "replay: assay verify --fixture tiny --pipeline predicted")  # printed while the run goes on
        self.assertIsNone(program.poll())
        self.read_until(program, "the plugin hangs")
        program.send_signal(number)
        code = program.wait(60)
        cases = json.loads((self.folder / "r.json").read_text())["cases"]
        self.assertEqual((cases[0]["candidate"], cases[0]["verdict"]), ("predicted", "Passed"))
        for name in ("r.html", "r.xml"):
            self.assertIn("1 of 2 cases were judged before", (self.folder / name).read_text())
        return code, cases[-1]

    def test_ctrl_c_and_sigterm_leave_what_is_there(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number):
                code, last = self.interrupted(number)
                self.assertEqual((code, last["verdict"]), (-number, "NotJudged"))
                self.assertIn(f"interrupted ({number.name}) while running plugin:", last["headline"])

    def test_a_crash_inside_a_pipeline_leaves_what_is_there(self):
        code, last = self.interrupted(signal.SIGSEGV)
        self.assertEqual((code, last["verdict"]), (FAILED, "Crashed"))
        self.assertIn("crashed (SIGSEGV) while running plugin:", last["headline"])

    def test_what_the_plugin_s_process_started_ends_too(self):
        program = self.start("verify", "--fixture", "tiny", "--pipeline", f"plugin:{FAULTY}", fault="hang")
        children = pathlib.Path(f"/proc/{program.pid}/task/{program.pid}/children")
        while program.poll() is None and not (child := children.read_text().split()):
            pass
        program.kill()
        program.wait()
        for _ in range(500):
            try:
                state = pathlib.Path(f"/proc/{child[0]}/stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                return
            if state == "Z":
                return
            signal.sigtimedwait([], 0.02)
        self.fail("the plugin's process outlived the program")

    def test_large_problems_come_last(self):
        cases = self.report("verify", "--fixture", "odd", "one_token", "tiny", "--pipeline", "predicted")["cases"]
        self.assertEqual(cases[0]["problem"], "one_token")

    def test_a_stderr_that_takes_nothing_ends_nothing(self):
        with open("/dev/full", "w") as full:
            environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LC_ALL": "C.UTF-8"}
            for words, code in ((("verify", "--fixture", "tiny", "--pipeline", "predicted", "--json", "-"), PASSED),
                                (("verify", "--golden", "none.h5"), COULD_NOT_JUDGE), (("verify", "--timings", "--fixture", "tiny", "--pipeline", "predicted"), PASSED)):  # fmt: skip
                done = subprocess.run([str(ASSAY), *words], cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=full, check=False, timeout=120)
                self.assertEqual(done.returncode, code)

    def test_a_closed_stderr_is_no_file_s_number(self):
        self.expect(PASSED, "verify", "--fixture", "tiny", "--pipeline", "predicted", "--dump", "d.h5", "--json", "r.json", preexec_fn=lambda: os.close(2))
        self.expect(PASSED, "verify", "--golden", "d.h5")

    def test_a_dumb_terminal_has_no_colour(self):
        for terminal, coloured in (("xterm", True), ("dumb", False)):
            ours, theirs = pty.openpty()
            environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LC_ALL": "C.UTF-8", "TERM": terminal}
            done = subprocess.run([str(ASSAY), "verify", "--golden", "none.h5"], cwd=self.folder, env=environment, stdout=theirs, stderr=subprocess.DEVNULL, check=False, timeout=60)
            os.close(theirs)
            text = os.read(ours, 65536).decode()
            os.close(ours)
            self.assertEqual(done.returncode, COULD_NOT_JUDGE)
            self.assertEqual("\x1b[" in text, coloured, text)

    def test_html_goes_to_stdout_too(self):
        done = self.expect(PASSED, "verify", "--fixture", "tiny", "--pipeline", "predicted", "--html", "-")
        self.assertTrue(done.stdout.lower().startswith("<!doctype html>"))
        self.assertIn("passed", done.stderr)
        self.expect(2, "verify", "--fixture", "tiny", "--pipeline", "predicted", "--html", "-", "--json", "-", says="one report at a time")
        for option, begins in (("--junit", "<?xml"), ("--markdown", "#")):
            done = self.expect(0, "verify", "--fixture", "tiny", "--pipeline", "predicted", option, "-")
            self.assertTrue(done.stdout.startswith(begins), done.stdout[:80])
            self.expect(2, "verify", "--fixture", "tiny", "--pipeline", "predicted", option, "-", "--json", "-", says=f"--json - and {option} - all go to stdout")
        self.expect(2, "verify", "--fixture", "tiny", "--pipeline", "predicted", "--dump", "-", says="--dump - : expected a file")
        self.assertFalse((self.folder / "-").exists())

    def test_no_threads_to_be_had_is_no_failed_comparison(self):
        self.expect(COULD_NOT_JUDGE, "verify", "--fixture", "qwen3_next*", "--pipeline", "predicted", environment={"OMP_NUM_THREADS": "4", "OMP_STACKSIZE": "100000G"},
                    says="Thread creation failed")  # fmt: skip


if __name__ == "__main__":
    unittest.main()
