"""A wrong command line ends with code 2 and one sentence that lists what is valid."""

import unittest

from program import NOTHING_COMPARED, PASSED, USAGE, ProgramTest, golden


class Usage(ProgramTest):
    def refuse_usage(self, *words, says):
        self.assertEqual(self.refuse(USAGE, *words, says=says).stdout, "")

    def test_an_unknown_option_is_named(self):
        self.refuse_usage("verify", "--golden", golden("odd.eager"), "--nonsense", says=["unknown option '--nonsense'", "'assay verify --help'"])
        self.refuse_usage("verify", "--golden", golden("odd.eager"), "--htlm", "x.html", says="unknown option '--htlm'; did you mean --html?")
        self.refuse_usage("verify", golden("odd.eager"), says=f"expected options, found '{golden('odd.eager')}'; a file is given as --golden ")
        self.refuse_usage("verify", "--golden", golden("odd.eager"), "--pipeline", "mine.h5", says="unknown pipeline 'mine.h5'; a file is named dump:mine.h5; valid: reference_cpu")

    def test_an_unknown_or_missing_command_lists_the_valid_ones(self):
        every = "verify, regress, diff, invariance, merge, golden, report, explain, minimize, mutate, inspect, list, bench"
        self.refuse_usage("nope", says=["unknown command 'nope'", every])
        self.refuse_usage(says=["expected a command after 'assay'", every, "Run 'assay --help'", "assay verify --golden golden/data/*.h5 --html report.html"])
        self.refuse_usage("golden", says=["expected a command after 'golden'", "make, check, list"])
        self.refuse_usage("list", "nope", says=["unknown command 'nope'", "fields, stages, fixtures, pipelines, contracts, faults"])

    def test_an_unknown_name_lists_the_valid_ones(self):
        odd = ("verify", "--fixture", "odd", "--pipeline")
        self.refuse_usage("verify", "--fixture", "nope", "--pipeline", "predicted", says=["no fixture matches 'nope'; valid: tiny, odd,", "no_renormalisation"])
        self.refuse_usage(*odd, "nope", says="unknown pipeline 'nope'; valid: reference_cpu, predicted, gpu_cublas, gpu_cublas_grouped, gpu_fused, gpu_fp64")
        self.refuse_usage(*odd, "predicted", "--contract", "nope", says="unknown contract 'nope'; valid: hf, hf_eager, ")
        self.refuse_usage(*odd, "predicted", "--stage", "nope", says="unknown stage 'nope'; valid: Router, TopK, Permute, GateUp, Swiglu, Down, Unpermute, Merge")
        forms = ("valid: unknown, fp32_sequential, fp32_pairwise, hopper, hopper_any_split, hopper_split(k1, k2, ...), "
                 "hopper_descending(block), hopper_interleaved(parts, block), ampere")
        self.refuse_usage(*odd, "predicted", "--accumulator", "nope", says=["'nope'", forms])
        for wrong in ("hopper_split(7,", "hopper_split()", "hopper_split(-1)"):
            self.refuse_usage(*odd, "predicted", "--accumulator", wrong, says=[f"'{wrong}'", "expected hopper_split(k1, k2, ...) with numbers from 1 to 1048576"])
        self.refuse_usage("mutate", "nope", says=["unknown fault 'nope'; valid: router_drops_k_element,", "output_bit_flipped"])
        self.refuse_usage("golden", "make", "--fixture", "odd", "--implementation", "foo", says=["foo not in", "grouped_mm,eager,both"])
        self.refuse_usage(*odd, "predicted", "--color", "pink", says=["pink not in", "auto,always,never"])

    def test_a_number_that_is_none_is_named(self):
        self.refuse_usage("verify", "--checkpoint", "x", "--layer", "three", "--pipeline", "predicted", says=["--layer", "three"])
        self.refuse_usage("verify", "--checkpoint", "x", "--layer", "0", "--tokens", "-1", "--pipeline", "predicted", says="--tokens: Value -1 not in range 0 to 16777216")
        self.refuse_usage("golden", "make", "--predicted", "--fixture", "odd", "--tokens", "-5", says="--tokens: Value -5 not in range")
        for wrong in ("-1", "1.5", "0x10"):
            self.refuse_usage("golden", "make", "--predicted", "--fixture", "odd", "--seed", wrong, says=f"--seed: expected 0 to 2^64 - 1, found {wrong}")
        self.refuse_usage("verify", "--checkpoint", "x", "--layer", "0", "--seed", "-1", "--pipeline", "predicted", says="--seed: expected 0 to 2^64 - 1, found -1")
        self.refuse_usage("golden", "make", "--predicted", "--fixture", "odd", "--seed", "18446744073709551616", says="--seed")
        self.refuse_usage("bench", "product", "--rows", "0", says="--rows: Value 0 not in range 1 to 1048576")

    def test_what_belongs_together_is_asked_for(self):
        self.refuse_usage("verify", says="needs --golden FILE, --fixture GLOB or --checkpoint DIR --layer N")
        self.refuse_usage("verify", "--fixture", "odd", says="--fixture and --checkpoint need --pipeline")
        self.refuse_usage("verify", "--checkpoint", "x", "--pipeline", "predicted", says="--checkpoint needs --layer N")
        self.refuse_usage("verify", "--golden", golden("odd.eager"), "--fixture", "odd", says="--fixture and --checkpoint need --pipeline")
        self.refuse_usage("verify", "--golden", golden("odd.eager"), "--layer", "0", says="--layer and --input need --checkpoint DIR")
        self.refuse_usage("golden", "make", "--fixture", "odd", "--prompt", "p.txt", says="--layer, --prompt and --input need --checkpoint DIR")
        self.refuse_usage("golden", "make", "--checkpoint", "x", "--layer", "0", "--predicted", "--prompt", "p.txt", says="--prompt is for the exporter")
        self.refuse_usage("golden", "make", "--checkpoint", "x", "--layer", "0", "--input", "i.h5", says="--input needs --predicted")
        self.refuse_usage("golden", "make", says="needs --fixture GLOB or --checkpoint DIR --layer N")
        self.refuse_usage("golden", "make", "--checkpoint", "x", says="--checkpoint needs --layer N")
        self.refuse_usage("golden", "check", says="FILE")
        self.refuse_usage("regress", "--baseline", golden("odd.eager"), says="--candidate")
        self.refuse_usage("regress", "--baseline", "a.json", "--candidate", "b.h5", says="two reports (.json) or two dumps (.h5), not one of each")
        self.refuse_usage("report", says="RESULT")
        self.refuse_usage("merge", says="RESULT")
        self.refuse_usage("diff", golden("odd.eager"), says="B")
        self.refuse_usage("inspect", says="FILE")

    def test_an_option_that_nothing_reads_is_refused_and_says_where_it_belongs(self):
        odd, file = ("verify", "--fixture", "odd", "--pipeline"), ("verify", "--golden", golden("odd.eager"))
        seeded = "belongs to --checkpoint DIR without --input FILE"
        self.refuse_usage(*odd, "predicted", "--tokens", "5", says=f"--tokens {seeded}")
        self.refuse_usage(*odd, "predicted", "--seed", "5", says=f"--seed {seeded}")
        self.refuse_usage("verify", "--checkpoint", "x", "--layer", "0", "--input", "i.h5", "--tokens", "5", "--pipeline", "predicted", says=f"--tokens {seeded}")
        self.refuse_usage("verify", "--checkpoint", "x", "--layer", "0", "--exclude", "y", "--pipeline", "predicted", says="--exclude belongs to --golden FILE and --fixture GLOB")
        self.refuse_usage(*odd, "predicted", "--backward", "--dx-only", says="--dx-only belongs to --pipeline plugin:PATH.so or one of a GPU")
        self.refuse_usage(*odd, "predicted", "reference_cpu", "--permute-y", "true", says="--permute-y belongs to --pipeline gpu_fused")
        self.refuse_usage(*odd, "gpu_cublas", "--kernel-config", "autotune", says="--kernel-config belongs to --pipeline gpu_fused")
        for command in (odd[:3], ("invariance", "--fixture", "odd"), ("explain", "--fixture", "odd", "--field", "gate", "--at", "row=0,col=0"), ("minimize", "--fixture", "odd", "-o", "m.h5")):
            self.refuse_usage(*command, "--pipeline", "predicted", "--time-limit", "5", says="--time-limit belongs to --pipeline plugin:PATH.so")
        self.refuse_usage("explain", "--fixture", "odd", "--field", "first_gemm", "--at", "row=0,col=0", "--all", "--terms", "3", says="--terms excludes --all")
        for words in (("--fixture", "odd"), ("--fixture", "odd", "--predicted")):
            self.refuse_usage("golden", "make", *words, "--tokens", "5", says="--tokens belongs to --predicted --checkpoint DIR without --input FILE")
        self.refuse_usage("mutate", "relu", "--correct", "1", says="FAULT belongs to planting, without --correct, --curves and --merge")
        self.refuse_usage("mutate", "--fixture", "odd", "--curves", "1", says="--fixture belongs to planting, without --correct, --curves and --merge")
        self.refuse_usage("mutate", "--curves", "1", "--correct", "1", says="--correct belongs to a run without --curves and --merge")
        self.refuse_usage("mutate", "relu", "--seed", "3", says="--seed belongs to --correct and --curves")
        self.refuse_usage("mutate", "relu", "--fixture", "odd", "--dump", "d.h5", "--html", "x.html", says="--html belongs to the score, without --correct, --curves, --merge and --dump")
        self.refuse_usage("mutate", "relu", "--merge", "c.json", says="FAULT belongs to planting, without --correct, --curves and --merge")
        self.refuse_usage("mutate", "--merge", "c.json", "--correct", "1", says="--correct belongs to a run without --curves and --merge")
        self.refuse_usage("mutate", "relu", "--evidence", "c.json", says="--evidence belongs to --html and --markdown")
        self.refuse_usage("bench", "layer", "--peer-limit", "3", says="--peer-limit belongs to --peers")
        self.refuse_usage("bench", "layer", "--kernel-config-bwd-dx", "autotune", says="--kernel-config-bwd-dx belongs to --backward")
        self.refuse_usage(*file, "-q", "-v", says="--quiet excludes --verbose")

    def test_a_case_replays_with_the_options_that_its_pipeline_reads(self):
        report = self.report("verify", "--fixture", "one_token", "--pipeline", "predicted", "gpu_fused", "--permute-y", "true")
        self.assertNotIn("--permute-y", report["cases"][0]["replay"])

    def test_a_dump_is_of_one_problem_and_one_pipeline(self):
        says = "--dump needs exactly one problem and one pipeline"
        self.refuse_usage("verify", "--fixture", "tiny", "odd", "--pipeline", "predicted", "--dump", "d.h5", says=says)
        self.refuse_usage("verify", "--fixture", "odd", "--pipeline", "predicted", "reference_cpu", "--dump", "d.h5", says=says)
        self.refuse_usage("verify", "--golden", golden("odd.eager"), "--dump", "d.h5", says=says)
        self.refuse_usage("verify", "--fixture", "*o*", "--pipeline", "predicted", "--dump", "d.h5", says=says)
        self.refuse_usage("mutate", "--dump", "d.h5", says="mutate --dump FILE needs exactly one FAULT and --fixture NAME")
        self.refuse_usage("mutate", "output_truncated", "--dump", "d.h5", says="--fixture NAME")


class Help(ProgramTest):
    COMMANDS = (
        (), ("verify",), ("regress",), ("diff",), ("invariance",), ("merge",), ("report",), ("explain",), ("minimize",), ("mutate",), ("inspect",),
        ("golden",), ("golden", "make"), ("golden", "check"), ("golden", "list"),
        ("list",), ("list", "fields"), ("list", "hashes"), ("bench",), ("bench", "product"), ("bench", "compare"), ("bench", "layer"),
    )  # fmt: skip

    def test_every_command_explains_itself_on_one_screen(self):
        for command in self.COMMANDS:
            done = self.expect(PASSED, *command, "--help", says="--help")
            self.assertEqual(done.stderr, "")
            self.assertLessEqual(len(done.stdout.splitlines()), 60, command)

    def test_the_help_documents_every_exit_code(self):
        self.expect(
            PASSED, "--help",
            says="Exit codes: 0 all passed, 1 a comparison failed, 2 usage error, 3 could not judge (file, schema, device), "
            "4 suspect, unstable or mistrusted only, 77 nothing was compared.",
        )  # fmt: skip
        self.expect(PASSED, "regress", "--help", says="Exit codes: 0 same or approved, 4 legal change, 1 regression, 3 different problems.")

    def test_the_help_of_one_element_and_of_a_small_problem_teaches_by_an_example(self):
        self.expect(PASSED, "explain", "--help", says=["Examples: assay explain --golden", "--at token=0,expert=3,col=59", "--field d_down_proj --at expert=0,row=7,col=3", "Exit codes: 0 accepted, 1 rejected"])
        self.expect(PASSED, "minimize", "--help", says=["Example: assay minimize --fixture odd --fault gate_up_sums_in_bf16 -o small.h5", "nothing to minimise"])

    def test_the_help_of_bench_says_what_is_timed_and_what_the_columns_mean(self):
        self.expect(PASSED, "bench", "--help", says=["Nothing is timed that has not just been verified.", "assay bench layer --peers --backward"])
        self.expect(PASSED, "bench", "layer", "--help", says=["First the judge must pass the layer at 16 tokens", "'share' is how near the median comes", "Examples: assay bench layer --fixture", "Exit codes: 0 timed, 3 no GPU"])
        for one in ("product", "compare"):
            self.expect(PASSED, "bench", one, "--help", says=f"Example: assay bench {one} --rows ")

    def test_the_version_is_one_line(self):
        self.assertRegex(self.expect(PASSED, "--version").stdout, r"^assay \d+\.\d+\.\d+ \(\S+\)\n$")

    def test_threads_sleep_while_they_wait_unless_they_are_told_otherwise(self):
        """Threads that spin keep other programs' and their own from working."""
        shown = {"OMP_DISPLAY_ENV": "true"}
        last = lambda done: [line for line in done.stderr.splitlines() if "OMP_WAIT_POLICY" in line][-1]
        self.assertIn("'PASSIVE'", last(self.run_assay("--version", environment=shown)))
        self.assertIn("'ACTIVE'", last(self.run_assay("--version", environment={**shown, "OMP_WAIT_POLICY": "active"})))

    def test_an_empty_folder_of_goldens_is_not_a_pass(self):
        self.expect(NOTHING_COMPARED, "golden", "list", self.folder, says="has no file .h5")


if __name__ == "__main__":
    unittest.main()
