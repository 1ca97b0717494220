"""`meson install` as its user finds it: the example builds against the installed tree alone, and pages say what the commands say."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from program import ASSAY, ROOT

BUILD = os.environ.get("ASSAY_BUILD", "")


def said(*words, **options):
    return subprocess.run(list(map(str, words)), capture_output=True, encoding="utf-8", check=True, **options).stdout


def commands_of(words=()):
    """{command: options} as --help prints them, from the program itself."""
    text = said(ASSAY, *words, "--help")
    found = {" ".join(words): set(re.findall(r"^\s+(?:-\w,)?(--[\w-]+)", text, re.MULTILINE))}
    below = text.split("Subcommands:\n")[1].split("\n\n")[0] if "Subcommands:\n" in text else ""
    for name in re.findall(r"^  (\w+)", below, re.MULTILINE):
        found |= commands_of((*words, name))
    return found


class Pages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.commands = commands_of()

    def test_every_command_and_option_is_in_each_page(self):
        self.assertGreater(len(self.commands), 25)
        self.assertIn("--golden", self.commands["verify"])
        pages = {"manual": said(ASSAY, "manual")} | {shell: said(ASSAY, "completion", shell) for shell in ("bash", "zsh", "fish")}
        for command, options in self.commands.items():
            for kind, text in pages.items():
                plain = text.replace("\\-", "-")
                self.assertIn(command.split(" ")[-1], plain, kind)
                for option in options:
                    self.assertIn(f"-l {option[2:]} " if kind == "fish" else option, plain, f"{kind}: {command} {option}")

    @unittest.skipUnless(shutil.which("groff"), "needs groff")
    def test_the_manual_page_is_roff_without_a_warning(self):
        done = subprocess.run(["groff", "-man", "-ww", "-Tutf8", "-z"], input=said(ASSAY, "manual"), capture_output=True, encoding="utf-8", check=True)
        self.assertEqual([line for line in done.stderr.splitlines() if "break" not in line and "hyphen" not in line], [])

    def complete(self, *words):
        """What bash offers after these words; the last one is being typed."""
        script = 'eval "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _assay; printf "%s\\n" "${COMPREPLY[@]}"'
        path = os.pathsep.join((str(pathlib.Path(ASSAY).parent), os.environ["PATH"]))
        return said("bash", "--norc", "-c", script, "bash", said(ASSAY, "completion", "bash"), "assay", *words, cwd=ROOT, env={**os.environ, "PATH": path}).split()

    def test_bash_completes_commands_options_and_values(self):
        self.assertEqual(self.complete("ver"), ["verify"])
        self.assertEqual(set(self.complete("golden", "")), {"make", "check", "list", "-h", "--help"})
        self.assertIn("--golden", self.complete("verify", "--gol"))
        self.assertEqual(self.complete("verify", "--color", "a"), ["auto", "always"])
        self.assertEqual(self.complete("verify", "--fixture", "one_t"), ["one_token"])  # asked of the program
        self.assertEqual(self.complete("verify", "--fixture", "odd", "tin"), ["tiny"])
        self.assertIn("README.md", self.complete("verify", "--html", "READ"))


@unittest.skipUnless(BUILD and shutil.which("meson"), "needs $ASSAY_BUILD, the folder that Meson configured")
class Installed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = pathlib.Path(temporary.name)
        said("meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", cls.folder)
        (header,) = cls.folder.rglob("assay/plugin.h")
        cls.prefix = header.parents[2]

    def test_the_example_builds_against_the_installed_tree_and_the_installed_program_judges_it(self):
        (description,) = self.folder.rglob("assay.pc")
        environment = {**os.environ, "PKG_CONFIG_PATH": str(description.parent), "PKG_CONFIG_SYSROOT_DIR": str(self.folder)}
        flags = said("pkg-config", "--cflags", "assay", env=environment).split()
        examples = pathlib.Path(str(self.folder) + said("pkg-config", "--variable=examples", "assay", env={**environment, "PKG_CONFIG_SYSROOT_DIR": ""}).strip())
        example = examples / "plugin_example.c"
        self.assertIn("#include <assay/plugin.h>", example.read_text())
        self.assertIn("#include <assay/plugin.h>", (examples / "plugin_example.cu").read_text())
        library = self.folder / "libmine.so"
        said("cc", "-O2", "-shared", "-fPIC", *flags, example, "-o", library, "-lm", cwd=self.folder)
        report = said(self.prefix / "bin" / "assay", "verify", "--fixture", "tiny", "--pipeline", f"plugin:{library}", "--backward", "--json", "-", cwd=self.folder)
        self.assertEqual(json.loads(report)["verdict"], "Passed")

    def test_pages_lie_where_man_and_the_shells_look(self):
        for place, start in (
            ("share/man/man1/assay.1", ".TH ASSAY 1"), ("share/bash-completion/completions/assay.bash", "# bash completion for assay"),
            ("share/zsh/site-functions/_assay", "#compdef assay"), ("share/fish/vendor_completions.d/assay.fish", "# fish completion for assay"),
        ):  # fmt: skip
            self.assertTrue((self.prefix / place).read_text().startswith(start), place)


if __name__ == "__main__":
    unittest.main()
