"""Files that are not what they should be: code 3 and one sentence with what was expected, what was found and where."""

import json
import os
import shutil
import unittest

from program import COULD_NOT_JUDGE, FAILED, PASSED, USAGE, ProgramTest, golden, limit_file_size, pack_safetensors, safetensors

ODD = ("verify", "--fixture", "odd", "--pipeline", "predicted", "-q")


class Goldens(ProgramTest):
    def refuse_file(self, name, says):
        """Every command that reads goldens refuses the file with the same sentence."""
        self.refuse(COULD_NOT_JUDGE, "verify", "--golden", name, "-q", says=[name, *says])
        self.refuse(COULD_NOT_JUDGE, "golden", "check", name, "-q", says=[name, *says])
        self.refuse(COULD_NOT_JUDGE, "regress", "--baseline", golden("odd.eager"), "--candidate", name, says=[name, *says])
        self.refuse(COULD_NOT_JUDGE, "verify", "--fixture", "odd", "--pipeline", f"dump:{name}", "-q", says=[name, *says])

    def setUp(self):
        super().setUp()
        with open(golden("odd.eager"), "rb") as file:
            self.good = file.read()

    def test_truncated(self):
        self.refuse_file(self.write("cut.h5", self.good[:100000]), ["truncated file", "stored_eof = "])
        self.refuse(COULD_NOT_JUDGE, "inspect", "cut.h5", says=["cut.h5", "truncated file"])

    def test_empty_or_text_or_a_folder_or_not_there(self):
        self.refuse_file(self.write("empty.h5", b""), ["HDF5"])
        self.refuse_file(self.write("text.h5", "a text\n" * 1000), ["HDF5"])
        (self.folder / "folder.h5").mkdir()
        self.refuse_file("folder.h5", [])
        self.refuse_file("missing.h5", ["No such file or directory"])

    def test_one_flipped_bit_anywhere_is_never_data(self):
        """In the superblock, in metadata and in the compressed data. A byte that HDF5 leaves unused may change nothing."""
        unused = 0
        for at in range(5, len(self.good), len(self.good) // 40):
            bad = bytearray(self.good)
            bad[at] ^= 1
            done = self.run_assay("verify", "--golden", self.write("flip.h5", bytes(bad)), "-q")
            if done.returncode == PASSED:
                unused += 1
                continue
            self.assertEqual(done.returncode, COULD_NOT_JUDGE, f"byte {at}: {done.stderr}")
            self.assertTrue(done.stderr.startswith("assay: ") and "flip.h5" in done.stderr, f"byte {at}: {done.stderr}")
        self.assertLess(unused, 8)

    def test_a_flipped_bit_of_a_dataset_names_the_dataset(self):
        told = set()
        for part in range(1, 20):
            bad = bytearray(self.good)
            bad[len(bad) * part // 20] ^= 0x10
            told.add(self.run_assay("verify", "--golden", self.write("flip.h5", bytes(bad)), "-q").stderr)
        self.assertTrue(any("/backward/" in text or "/weights/" in text or "/oracle/" in text for text in told), told)

    def test_a_bad_file_among_good_ones_does_not_hide_them_nor_is_hidden(self):
        self.write("bad.h5", b"no golden")
        report = self.report("verify", "--golden", "bad.h5", golden("tiny.eager"), code=COULD_NOT_JUDGE)
        self.assertEqual([case["verdict"] for case in report["cases"]], ["MissingGolden", "Passed"])

    def test_a_failure_outranks_a_bad_file(self):
        self.write("bad.h5", b"no golden")
        self.expect(FAILED, "verify", "--golden", "bad.h5", golden("odd.grouped_mm"), "--contract", "hf_eager")

    def test_a_file_of_another_kind_is_told_by_its_schema(self):
        """Texts lie in a heap without a checksum of HDF5's: the schema's name and version can be changed in place."""
        self.refuse_file(self.write("later.h5", self.changed(b"1.1", b"9.0")), ["schema_version: this program reads major version 1 in the form 1.N, the file has '9.0'"])
        self.refuse_file(self.write("foreign.h5", self.changed(b"assay", b"essay")), ["schema", "'essay'"])
        self.refuse_file(self.write("contract.h5", self.changed(b"hf_eager", b"hf_eagle")), ["'hf_eagle'", "valid: hf, hf_eager, "])
        # Another device is a good text: only the hash of all content tells.
        self.refuse_file(self.write("changed.h5", self.changed(b"NVIDIA H200", b"NVIDIA H100")), ["the content hash of what was read is"])

    def changed(self, old, new):
        """The file with a text of its first heap replaced: length in 8 bytes, then the text padded to 8."""
        entry = len(old).to_bytes(8, "little") + old + bytes(-len(old) % 8)
        self.assertEqual(self.good[:4096].count(entry), 1, old)
        return self.good.replace(entry, len(old).to_bytes(8, "little") + new + bytes(-len(old) % 8), 1)


class Dumps(ProgramTest):
    def test_a_dump_of_another_problem_is_refused(self):
        self.dump("odd.h5")
        self.refuse(COULD_NOT_JUDGE, "verify", "--fixture", "tiny", "--pipeline", "dump:odd.h5", "-q",
                    says="odd.h5 was computed on another problem than tiny: tokens 13 (here 12), hidden_size 72 (here 64), ")  # fmt: skip

    def test_a_dump_of_other_inputs_and_weights_names_them_and_accuses_no_stage(self):
        """Two fixtures of one size: neither the router nor a product is to blame."""
        self.dump("d.h5", fixture="one_sign")
        done = self.refuse(COULD_NOT_JUDGE, "verify", "--fixture", "cancellation", "--pipeline", "dump:d.h5", "-q",
                           says="d.h5 was computed on another problem than cancellation: another input_hidden_states")  # fmt: skip
        self.assertIn("another down_proj (", done.stderr)
        self.assertNotIn("second_gemm", done.stderr)
        self.expect(PASSED, "verify", "--fixture", "one_sign", "--pipeline", "dump:d.h5", "-q")


class Outputs(ProgramTest):
    def test_a_folder_that_is_not_there(self):
        for option, name in (("--html", "no/r.html"), ("--json", "no/r.json"), ("--junit", "no/r.xml"), ("--dump", "no/d.h5")):
            self.refuse(COULD_NOT_JUDGE, *ODD, option, name, says=f"expected to write {name}, found that it cannot be written: No such file or directory")
        done = self.refuse(COULD_NOT_JUDGE, "golden", "make", "--predicted", "--fixture", "odd", "--out", "/proc/no", says="expected to create the folder /proc/no, found")
        self.assertEqual(done.stdout, "")

    def test_golden_make_makes_its_folder(self):
        self.expect(PASSED, "golden", "make", "--predicted", "--fixture", "tiny", "--implementation", "eager", "--out", "new/folder")
        self.expect(PASSED, "golden", "check", "new/folder/tiny.eager.predicted.h5")

    def test_a_folder_in_the_file_s_place(self):
        (self.folder / "r").mkdir()
        for option in ("--html", "--json", "--junit", "--dump"):
            self.refuse(COULD_NOT_JUDGE, *ODD, option, "r", says="expected to write r, found that it cannot be written: Is a directory")
        self.assertTrue((self.folder / "r").is_dir())

    def test_a_folder_that_takes_no_files(self):
        """/proc: root may write in every ordinary folder."""
        for option in ("--html", "--json", "--junit", "--dump"):
            self.refuse(COULD_NOT_JUDGE, *ODD, option, "/proc/assay-report", says="expected to write /proc/assay-report, found that it cannot be written: ")

    def test_a_full_device(self):
        """Through a link: a program that wrote a new file and renamed it would replace the link, not this machine's device."""
        link = self.folder / "full"
        link.symlink_to("/dev/full")
        for option in ("--html", "--json", "--junit", "--dump"):
            self.expect(COULD_NOT_JUDGE, *ODD, option, "full", says="expected to write /dev/full, found that it cannot be written: No space left on device")
            self.assertTrue(link.is_symlink())
            self.assertEqual(os.listdir(self.folder), ["full"])

    def test_a_full_disk_leaves_the_older_file_and_no_part(self):
        for option, name in (("--html", "r.html"), ("--json", "r.json"), ("--dump", "d.h5")):
            self.write(name, "the older file")
            self.refuse(COULD_NOT_JUDGE, *ODD, option, name, preexec_fn=limit_file_size(4096),
                        says=f"expected to write {name}, found that it cannot be written: File too large")  # fmt: skip
            self.assertEqual((self.folder / name).read_text(), "the older file")

    def test_every_command_notices_that_stdout_is_full_or_closed(self):
        good = golden("odd.eager")
        commands = (
            ("verify", "--golden", good), ("verify", "--golden", good, "--json", "-"), ("inspect", good), ("golden", "check", good),
            ("regress", "--baseline", good, "--candidate", good), ("list", "fields"), ("list", "fixtures", "--json"), ("--help",), ("--version",),
        )  # fmt: skip
        for command in commands:
            with self.subTest(command), open("/dev/full", "w", encoding="utf-8") as full:
                done = self.expect(COULD_NOT_JUDGE, *command, stdout=full, says="could not write to stdout")
                self.assertEqual(done.stderr.splitlines()[-1][:7], "assay: ")
        with self.subTest("closed"):
            self.expect(COULD_NOT_JUDGE, "list", "fields", stdout=None, preexec_fn=lambda: os.close(1), says="could not write to stdout")


class OutputsOntoInputs(ProgramTest):
    """What is read is never replaced, whatever it is called, and nothing is judged before that is seen."""

    def setUp(self):
        super().setUp()
        shutil.copy(golden("tiny.eager"), self.folder / "g.h5")
        (self.folder / "link.h5").symlink_to("g.h5")
        os.link(self.folder / "g.h5", self.folder / "hard.h5")

    def test_a_golden_or_dump(self):
        for option in ("--html", "--json", "--junit", "--markdown"):
            for name in ("g.h5", "./g.h5", "link.h5", "hard.h5"):
                self.refuse(USAGE, "verify", "--golden", "g.h5", option, name, says=f"{option} {name} would replace g.h5, which this command reads")
        beside = ("verify", "--golden", golden("tiny.eager"), "--pipeline", "dump:g.h5")
        self.refuse(USAGE, *beside, "--dump", "link.h5", says="--dump link.h5 would replace g.h5")
        self.refuse(USAGE, "golden", "check", "g.h5", "--json", "g.h5", says="would replace")
        self.refuse(USAGE, "explain", "--golden", "g.h5", "--field", "first_gemm", "--at", "row=0,col=0", "--json", "g.h5", says="would replace")
        self.refuse(USAGE, "minimize", "--golden", "g.h5", "--out", "g.h5", says="would replace")
        self.refuse(USAGE, "regress", "--baseline", "g.h5", "--candidate", "g.h5", "--json", "hard.h5", says="would replace")
        self.refuse(USAGE, "diff", golden("tiny.eager"), "g.h5", "--markdown", "hard.h5", says="would replace")
        self.refuse(USAGE, "invariance", "--golden", "g.h5", "--pipeline", "predicted", "--json", "g.h5", says="would replace")
        self.refuse(USAGE, "mutate", "relu", "--evidence", "g.h5", "--html", "g.h5", says="would replace")

    def test_a_report_or_one_of_its_history(self):
        self.expect(PASSED, "verify", "--golden", "g.h5", "-q", "--json", "r.json")
        self.refuse(USAGE, "report", "r.json", "--html", "r.json", says="would replace r.json")
        self.refuse(USAGE, "merge", "r.json", "--json", "r.json", says="would replace r.json")
        (self.folder / "earlier").mkdir()
        shutil.copy(self.folder / "r.json", self.folder / "earlier" / "a.json")
        self.refuse(USAGE, "report", "r.json", "--history", "earlier", "--html", "earlier/a.json", says="would replace earlier/a.json")
        self.expect(PASSED, "report", "r.json", "--history", "earlier", "--html", "earlier/new.html", "-q")

    def test_two_outputs_of_one_name(self):
        self.refuse(USAGE, "verify", "--golden", "g.h5", "--html", "x", "--json", "./x", says="--html x and --json ./x are one file")

    def test_a_fifo_that_nobody_reads(self):
        os.mkfifo(self.folder / "fifo")
        self.expect(COULD_NOT_JUDGE, "verify", "--golden", "g.h5", "-q", "--html", "fifo", says="expected to write fifo, found that it cannot be written: it is a FIFO that nobody reads")


class Reports(ProgramTest):
    def test_a_folder_or_fifo_or_device_is_one_sentence_at_once(self):
        (self.folder / "r.json").mkdir()
        os.mkfifo(self.folder / "f.json")
        (self.folder / "z.json").symlink_to("/dev/zero")
        for name, says in (("r.json", "it is a folder"), ("f.json", "it is not a regular file"), ("z.json", "it is not a regular file")):
            self.expect(COULD_NOT_JUDGE, "report", name, says=f"cannot read {name}: {says}")
            self.expect(COULD_NOT_JUDGE, "regress", "--baseline", name, "--candidate", name, says=f"cannot read {name}: {says}")

    def test_what_steers_a_terminal_leaves_a_report_written_out(self):
        self.expect(PASSED, "verify", "--golden", golden("tiny.eager"), "-q", "--json", "r.json")
        report = json.loads((self.folder / "r.json").read_text(encoding="utf-8"))
        steering = "a\x1b[2J\x9b1m\x7f\u202e\x85"
        report["title"] = report["cases"][0]["problem"] = report["cases"][0]["headline"] = steering
        self.write("s.json", json.dumps(report, ensure_ascii=False))
        for words in (("report", "s.json"), ("report", "s.json", "--json", "-"), ("report", "s.json", "--html", "-"),
                      ("regress", "--baseline", "r.json", "--candidate", "s.json"), ("regress", "--baseline", "r.json", "--candidate", "s.json", "--json", "-")):  # fmt: skip
            done = self.run_assay(*words)
            for text in (done.stdout, done.stderr):
                self.assertFalse(set(text) & set("\x1b\x9b\x7f\u202e\x85"), words)
        again = json.loads(self.expect(PASSED, "report", "s.json", "--json", "-").stdout)
        self.assertEqual((again["title"], again["cases"][0]["headline"]), (steering, steering))

    def test_a_foreign_json_is_refused_with_the_place(self):
        self.write("text.json", "no JSON")
        self.write("cut.json", '{"schema": "assay-report",\n "version": 1, "cases": [')
        self.write("other.json", '{"schema": "something else"}')
        self.write("empty.json", "")
        self.write("binary.json", bytes(range(256)))
        shutil.copy(golden("tiny.eager"), self.folder / "dump.json")
        self.write("later.json", '{"schema": "assay-report", "version": 2, "cases": []}')
        for name, says in (
            ("text.json", "expected JSON, found something else at byte 2 of 7"),
            ("cut.json", "expected the rest of a JSON document, found its end at byte"),
            ("other.json", 'expected a document with "schema": "assay-report", found "something else"'),
            ("later.json", "expected version 1 of the schema, found 2"),
            ("empty.json", "found an empty text"),
            ("binary.json", "expected a report as verify --json writes it, found a binary file"),
            ("dump.json", "expected a report as verify --json writes it, found an HDF5 file (assay verify judges it, and --json writes one)"),
            ("no.json", "No such file or directory"),
        ):
            self.refuse(COULD_NOT_JUDGE, "report", name, says=[name, says])
            self.refuse(COULD_NOT_JUDGE, "merge", name, says=[name, says])
            self.refuse(COULD_NOT_JUDGE, "regress", "--baseline", name, "--candidate", name, says=[name, says])


HIDDEN, INTER, EXPERTS, TOP_K = 8, 4, 3, 2


class Checkpoints(ProgramTest):
    """A Qwen3-MoE folder with one small layer, then spoiled."""

    def checkpoint(self, data=None, **config):
        values = {
            "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "hidden_size": HIDDEN, "moe_intermediate_size": INTER,
            "num_experts": EXPERTS, "num_experts_per_tok": TOP_K, "norm_topk_prob": True, "hidden_act": "silu", "num_hidden_layers": 1,
        }  # fmt: skip
        values.update(config)
        self.write("model/config.json", json.dumps(values))
        self.write("model/model.safetensors", safetensors(self.tensors()) if data is None else data)

    @staticmethod
    def tensors(layer=0):
        def bf16(rows, columns, step):
            # Small numbers of both signs; bf16 is the upper half of a float32.
            bits = [(0x3F00 + (i * step) % 61) | (0x8000 if i * step % 3 else 0) for i in range(rows * columns)]
            return "BF16", [rows, columns], b"".join(value.to_bytes(2, "little") for value in bits)

        at = f"model.layers.{layer}.mlp."
        made = {at + "gate.weight": bf16(EXPERTS, HIDDEN, 7)}
        for expert in range(EXPERTS):
            made[f"{at}experts.{expert}.gate_proj.weight"] = bf16(INTER, HIDDEN, 11 + expert)
            made[f"{at}experts.{expert}.up_proj.weight"] = bf16(INTER, HIDDEN, 17 + expert)
            made[f"{at}experts.{expert}.down_proj.weight"] = bf16(HIDDEN, INTER, 23 + expert)
        return made

    def command(self, layer=0):
        return "verify", "--checkpoint", "model", "--layer", str(layer), "--tokens", "5", "--pipeline", "predicted", "reference_cpu", "-q"

    def test_a_good_one_passes(self):
        self.checkpoint()
        self.expect(PASSED, *self.command())

    def test_not_there(self):
        self.refuse(COULD_NOT_JUDGE, *self.command(), says="model is not a folder")
        (self.folder / "model").mkdir()
        self.refuse(COULD_NOT_JUDGE, *self.command(), says="config.json")

    def test_a_layer_it_does_not_have(self):
        self.checkpoint()
        self.refuse(COULD_NOT_JUDGE, *self.command(layer=7), says=["7", "model"])

    def test_a_missing_tensor_is_named(self):
        made = self.tensors()
        del made["model.layers.0.mlp.experts.2.up_proj.weight"]
        self.checkpoint(safetensors(made))
        self.refuse(COULD_NOT_JUDGE, *self.command(), says="experts.2.up_proj.weight")

    def test_a_wrong_shape_is_named(self):
        self.checkpoint(moe_intermediate_size=INTER + 1)
        self.refuse(COULD_NOT_JUDGE, *self.command(), says=["expected", "found", "_proj"])

    def test_truncated(self):
        whole = safetensors(self.tensors())
        for size in (0, 4, 100, len(whole) - 1):
            self.checkpoint(whole[:size])
            self.refuse(COULD_NOT_JUDGE, *self.command(), says="model.safetensors")

    def test_offsets_that_overlap_or_leave_the_file(self):
        made = self.tensors()
        data = b"".join(data for _, _, data in made.values())
        for spoil in (lambda begin, end: [begin - 2, end - 2], lambda begin, end: [len(data), len(data) + end - begin], lambda begin, end: [end, begin]):
            header, at = {}, 0
            for name, (dtype, shape, raw) in made.items():
                header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(raw)]}
                at += len(raw)
            name = "model.layers.0.mlp.experts.1.down_proj.weight"
            header[name]["data_offsets"] = spoil(*header[name]["data_offsets"])
            self.checkpoint(pack_safetensors(header, data))
            self.refuse(COULD_NOT_JUDGE, *self.command(), says=["model.safetensors", "down_proj.weight"])

    def test_a_header_longer_than_the_file(self):
        whole = safetensors(self.tensors())
        self.checkpoint((2**62).to_bytes(8, "little") + whole[8:])
        self.refuse(COULD_NOT_JUDGE, *self.command(), says="model.safetensors")

    def test_a_config_that_is_no_json_or_another_model(self):
        self.checkpoint()
        self.write("model/config.json", "{ not json")
        self.refuse(COULD_NOT_JUDGE, *self.command(), says="config.json")
        self.checkpoint(num_experts_per_tok=9)
        self.refuse(COULD_NOT_JUDGE, *self.command(), says="config.json")

    def test_an_input_of_another_width_is_refused(self):
        self.checkpoint()
        seeded = self.command()
        words = seeded[: seeded.index("--tokens")] + seeded[seeded.index("--tokens") + 2 :]
        self.refuse(COULD_NOT_JUDGE, *words, "--input", golden("odd.eager"), says=["expected an input of hidden size 8, found 72"])


if __name__ == "__main__":
    unittest.main()
