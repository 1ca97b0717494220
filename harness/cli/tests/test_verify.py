"""verify: the committed goldens, contracts, stages, borderline problems, dumps, and every form of output."""

import json
import re
import unittest
import xml.etree.ElementTree

from program import BACKWARD, COULD_NOT_JUDGE, FAILED, FORWARD, NOTHING_COMPARED, PASSED, SUSPECT, USAGE, ProgramTest, golden

SMALL = ("tiny.grouped_mm", "tiny.eager", "odd.grouped_mm", "odd.eager")


class Goldens(ProgramTest):
    def test_every_small_golden_passes_and_every_bit_is_as_predicted(self):
        report = self.report("verify", "--golden", *map(golden, SMALL))
        self.assertEqual([case["verdict"] for case in report["cases"]], ["Passed"] * len(SMALL))
        for case in report["cases"]:
            self.assertEqual([field["field"] for field in case["fields"]], [*FORWARD, *BACKWARD])
            self.assertIn("bits as predicted from the inputs alone", case["headline"])
            for field in case["fields"]:
                self.assertEqual(field["verdict"], "Passed")
                self.assertEqual(field["isolated"]["rejected"], 0)
                for bits in (field["isolated_bits"], field["chained_bits"]):
                    if field["field"] in ("token_counts_by_expert", "gather_indices"):
                        continue  # they follow from the selection
                    self.assertTrue(bits["available"] and bits["binding"], field["field"])
                    self.assertEqual((bits["as_predicted"], bits["undetermined"], bits["differing"]), (bits["elements"], 0, 0), field["field"])

    def test_the_other_implementation_s_contract_fails_at_the_merge_with_a_count(self):
        for name, contract in (("odd.grouped_mm", "hf_eager"), ("odd.eager", "hf"), ("tiny.grouped_mm", "hf_eager"), ("tiny.eager", "hf"), ("odd.grouped_mm", "hf_fp32_merge")):
            with self.subTest(name):
                case = self.report("verify", "--golden", golden(name), "--contract", contract, code=FAILED)["cases"][0]
                self.assertEqual(case["first_own_error"], "hidden_states")
                bad = [field["field"] for field in case["fields"] if field["verdict"] != "Passed"]
                # Contracts of merges differ in how the input's gradient is added up, too; hf_fp32_merge rounds no products in either pass.
                slots = ["d_experts_hidden_states", "d_input_hidden_states"]
                dots = ["d_topk_weights", "d_router_logits", "d_gate"] if contract == "hf_fp32_merge" else []
                self.assertEqual(bad, ["hidden_states", *dots, *slots])
                merged = case["fields"][len(FORWARD) - 1]["isolated"]
                self.assertGreater(merged["rejected"], 0)
                says = {
                    "hf": "slots are added in bf16, in ascending expert order",
                    "hf_eager": "slots are summed in fp32 and rounded once",
                    "hf_fp32_merge": "weight times value is rounded to bf16 before the sum",
                }[contract]
                headline = f"hidden_states is the first stage with an error of its own: {says} (explains every bit)"
                self.assertTrue(case["headline"].startswith(headline), case["headline"])
                done = self.expect(FAILED, "verify", "--golden", golden(name), "--contract", contract, says=["FAILED"])
                self.assertIn(headline, " ".join(done.stdout.split()))

    def test_contract_auto_finds_the_contract_the_data_follow(self):
        for name, contract in (("odd.grouped_mm", "hf"), ("odd.eager", "hf_eager")):
            case = self.report("verify", "--golden", golden(name), "--contract", "auto")["cases"][0]
            self.assertEqual((case["verdict"], case["contract"]), ("Passed", contract))
            self.assertTrue(any("contract auto" in remark for remark in case["remarks"]))
            self.assertFalse(any("differs from contract" in remark for remark in case["remarks"]))
        # SwiGLU's rounding is a point of its own: no named contract leaves out just that one.
        dump = self.folder / "silu.h5"
        self.expect(PASSED, "mutate", "silu_unrounded", "--fixture", "odd", "--dump", dump)
        case = self.report("verify", "--golden", golden("odd.grouped_mm"), "--pipeline", f"dump:{dump}", "--contract", "auto", code=FAILED)["cases"][0]
        self.assertEqual(case["contract"], "hf")
        self.assertIn("the candidate differs from contract hf: silu is not rounded to bf16, which hf does", case["remarks"])

    def test_a_stage_alone(self):
        case = self.report("verify", "--golden", golden("odd.eager"), "--stage", "Merge")["cases"][0]
        compared = [field["field"] for field in case["fields"] if field["verdict"] != "NotMaterialised"]
        self.assertEqual(compared, ["hidden_states"])
        self.assertIn("--stage Merge", case["replay"])
        # The stage before the faulty one is not blamed.
        self.expect(PASSED, "verify", "--golden", golden("odd.eager"), "--contract", "hf", "--stage", "Down")
        self.expect(FAILED, "verify", "--golden", golden("odd.eager"), "--contract", "hf", "--stage", "Merge")

    def test_an_accumulator_that_was_not_used_is_noticed(self):
        """Sums whose terms cancel keep what the accumulator did to their last bits; within the bound that is suspect, no failure."""
        command = ("verify", "--fixture", "cancellation", "--pipeline", "predicted")
        self.expect(PASSED, *command, "--accumulator", "hopper")
        case = self.report(*command, "--accumulator", "fp32_sequential", code=SUSPECT)["cases"][0]
        differing = {field["field"] for field in case["fields"] if field["isolated_bits"]["differing"]}
        self.assertTrue(differing and differing <= {"router_logits", "first_gemm", "second_gemm"}, differing)


class Replay(ProgramTest):
    def test_the_replay_line_repeats_the_case(self):
        command = ("verify", "--golden", golden("odd.eager"), "--contract", "hf", "--stage", "Merge")
        first = self.report(*command, code=FAILED)["cases"][0]
        words = first["replay"].split()
        self.assertEqual(words[0], "assay")
        again = self.report(*words[1:], code=FAILED)["cases"][0]
        for case in (first, again):
            case.pop("seconds")
        self.assertEqual(first, again)


class Borders(ProgramTest):
    PROBLEMS = ("no_tokens", "one_token", "all_experts", "one_expert", "saturated", "zeros", "ties", "all_tied", "hot_expert", "empty_experts",
                "integers", "exact", "wide", "one_sign", "cancellation", "no_renormalisation")  # fmt: skip

    def test_every_borderline_problem_passes_in_both_cpu_pipelines(self):
        report = self.report("verify", "--fixture", *self.PROBLEMS, "--pipeline", "predicted", "reference_cpu")
        found = {(case["problem"], case["candidate"]): case["verdict"] for case in report["cases"]}
        self.assertEqual(found, {(problem, pipeline): "Passed" for problem in self.PROBLEMS for pipeline in ("predicted", "reference_cpu")})

    def test_without_a_token_shapes_and_zero_counts_are_compared(self):
        case = self.report("verify", "--fixture", "no_tokens", "--pipeline", "predicted")["cases"][0]
        self.assertEqual(case["tokens"], 0)
        elements = {field["field"]: field["isolated"]["elements"] for field in case["fields"]}
        self.assertEqual(elements.pop("token_counts_by_expert"), case["config"]["num_experts"])
        self.assertEqual(set(elements.values()), {0})

    def test_the_contracts_of_other_kernels_pass_on_their_own_terms(self):
        for contract in ("hf", "hf_eager", "hf_fp32_merge", "fused_fp32"):
            self.expect(PASSED, "verify", "--fixture", "odd", "--pipeline", "reference_cpu", "--contract", contract)


class Gpu(ProgramTest):
    def test_without_a_gpu_the_reason_is_told_and_nothing_counts_as_passed(self):
        done = self.run_assay("verify", "--fixture", "odd", "--pipeline", "gpu_cublas", "gpu_fused")
        if done.returncode == PASSED:
            self.skipTest("this machine has a GPU, and both pipelines pass")
        self.assertEqual(done.returncode, NOTHING_COMPARED, done.stdout + done.stderr)
        self.assertIn("NOTHING COMPARED", done.stdout)
        self.assertRegex(" ".join(done.stdout.split()), r"GPU")
        quiet = self.expect(NOTHING_COMPARED, "verify", "--fixture", "odd", "--pipeline", "gpu_fused", "-q", says="GPU")
        self.assertTrue(quiet.stderr.startswith("assay: odd, gpu_fused: "))

    def test_beside_a_compared_pipeline_it_does_not_count(self):
        report = self.report("verify", "--fixture", "odd", "--pipeline", "predicted", "gpu_fused")
        self.assertEqual(report["cases"][0]["verdict"], "Passed")
        self.assertIn(report["cases"][1]["verdict"], ("Passed", "Unsupported"))


class Outputs(ProgramTest):
    def test_json_alone_is_on_stdout_and_the_text_on_stderr(self):
        done = self.expect(PASSED, "verify", "--golden", golden("odd.eager"), "--json", "-")
        report = json.loads(done.stdout)
        self.assertEqual((report["schema"], report["version"], report["verdict"]), ("assay-report", 1, "Passed"))
        self.assertIn("hidden_states", done.stderr)
        self.assertEqual(json.loads(self.expect(PASSED, "verify", "--golden", golden("odd.eager"), "--json", "-", "-q").stdout)["verdict"], "Passed")

    def test_quiet_says_nothing_of_a_pass(self):
        done = self.expect(PASSED, "verify", "--golden", golden("odd.eager"), "-q")
        self.assertEqual((done.stdout, done.stderr), ("", ""))

    def test_no_colour_in_a_file_unless_asked_for(self):
        self.assertNotIn("\x1b", self.expect(PASSED, "verify", "--golden", golden("odd.eager")).stdout)
        self.assertIn("\x1b[", self.expect(PASSED, "verify", "--golden", golden("odd.eager"), "--color", "always").stdout)
        self.assertIn("\x1b[", self.expect(PASSED, "verify", "--golden", golden("odd.eager"), environment={"FORCE_COLOR": "1"}).stdout)
        self.assertNotIn("\x1b", self.expect(PASSED, "verify", "--golden", golden("odd.eager"), environment={"FORCE_COLOR": "1", "NO_COLOR": "1"}).stdout)

    def test_junit_counts_fields_and_failures(self):
        self.expect(FAILED, "verify", "--golden", golden("odd.eager"), "--contract", "hf", "-q", "--junit", "r.xml")
        root = xml.etree.ElementTree.parse(self.folder / "r.xml").getroot()
        cases = list(root.iter("testcase"))
        failed = [case.get("name") for case in cases if case.find("failure") is not None]
        self.assertEqual(([case.get("name") for case in cases if case.get("name") in FORWARD], failed), (list(FORWARD), ["hidden_states", "d_experts_hidden_states", "d_input_hidden_states"]))
        self.assertEqual(int(root.get("failures")), 3)

    def test_the_page_fetches_nothing(self):
        self.expect(FAILED, "verify", "--golden", golden("odd.eager"), "--contract", "hf", "--html", "r.html", says="Report: r.html")
        page = (self.folder / "r.html").read_text(encoding="utf-8")
        policy = re.search(r'http-equiv="Content-Security-Policy"\s+content="([^"]*)"', page)
        self.assertIsNotNone(policy)
        self.assertIn("default-src 'none'", policy.group(1))
        self.assertNotRegex(page, r"""(?i)(?:src|href|action)\s*=\s*["']?(?:https?:|//)""")
        self.assertNotRegex(page, r"(?i)url\(\s*[\"']?(?:https?:|//)|@import")
        for field in FORWARD:
            self.assertIn(field, page)

    def test_a_report_replaces_the_older_one(self):
        self.write("r.json", "older")
        self.expect(PASSED, "verify", "--golden", golden("odd.eager"), "-q", "--json", "r.json")
        self.assertEqual(json.loads((self.folder / "r.json").read_text(encoding="utf-8"))["verdict"], "Passed")
        self.assertEqual(list(self.listing()), ["r.json"])


class Engines(ProgramTest):
    def test_timings_name_the_phases_on_stderr(self):
        done = self.expect(PASSED, "verify", "--golden", golden("odd.eager"), "--engine", "cpu", "--timings")
        self.assertRegex(done.stderr, r"[0-9.]+ s  bounded products\n")
        self.assertNotIn("bounded products", done.stdout)

    def test_a_gpu_asked_for_by_name_is_used_or_missed(self):
        done = self.run_assay("verify", "--golden", golden("odd.eager"), "--engine", "gpu")
        if done.returncode == PASSED:
            self.assertIn("comparisons ran on gpu: ", self.run_assay("verify", "--golden", golden("odd.eager"), "--engine", "gpu", "-v").stdout)
        else:
            self.assertEqual(done.returncode, COULD_NOT_JUDGE)
            self.assertIn("no GPU can be used here", done.stderr)

    def test_an_unknown_engine_is_refused_with_the_valid_ones(self):
        self.expect(USAGE, "verify", "--golden", golden("odd.eager"), "--engine", "tpu", says="{auto,cpu,gpu}")


class Dumps(ProgramTest):
    def test_a_dump_is_judged_like_the_pipeline_that_wrote_it(self):
        self.dump("a.h5")
        for problem in (("--fixture", "odd"), ("--golden", golden("odd.grouped_mm"))):
            case = self.report("verify", *problem, "--pipeline", "dump:a.h5")["cases"][0]
            self.assertEqual((case["candidate"], case["verdict"], case["contract"]), ("dump:a.h5", "Passed", "hf"))
        self.expect(PASSED, "verify", "--golden", "a.h5")  # it names its inputs
        self.expect(FAILED, "verify", "--golden", golden("odd.eager"), "--pipeline", "dump:a.h5", "--contract", "hf_eager",
                    says="hidden_states is the first stage with an error of its own")  # fmt: skip

    def test_the_same_run_gives_the_same_bytes(self):
        self.dump("a.h5")
        self.dump("b.h5")
        files = self.listing()
        self.assertEqual(files["a.h5"], files["b.h5"])

    def test_a_faulty_dump_fails_in_the_stage_of_the_fault(self):
        faults = {"second_gemm_bit_flipped": "second_gemm", "gate_and_up_swapped": "intermediate", "no_renormalisation": "topk_weights",
                  "gate_up_drops_k_element": "first_gemm", "weight_applied_twice": "hidden_states"}  # fmt: skip
        for fault, field in faults.items():
            with self.subTest(fault):
                self.expect(PASSED, "mutate", fault, "--fixture", "odd", "--dump", "bad.h5")
                case = self.report("verify", "--fixture", "odd", "--pipeline", "dump:bad.h5", code=FAILED)["cases"][0]
                self.assertEqual(case["first_own_error"], field)

    def test_a_golden_s_file_is_no_candidate_of_another_fixture(self):
        self.expect(COULD_NOT_JUDGE, "verify", "--fixture", "tiny", "--pipeline", "dump:" + golden("odd.eager"), says="was computed on another problem than tiny")


if __name__ == "__main__":
    unittest.main()
