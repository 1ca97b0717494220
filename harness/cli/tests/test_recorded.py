"""Results of the last GPU run (golden/recorded), judged again here."""

import json
import unittest

from program import PASSED, ROOT, ProgramTest, golden

RECORDED = ROOT / "golden" / "recorded"


class Recorded(ProgramTest):
    def test_recorded_reports_passed_with_no_bit_against_the_prediction(self):
        reports = [json.loads(path.read_text()) for path in sorted(RECORDED.glob("*.json"))]
        reports = [report for report in reports if report.get("schema") == "assay-report"]
        self.assertGreaterEqual(len(reports), 2)
        for report in reports:
            for case in report["cases"]:
                with self.subTest(problem=case["problem"], candidate=case["candidate"]):
                    self.assertEqual((case["verdict"], case["device"]), ("Passed", "NVIDIA H200"))
                    for field in case["fields"]:
                        self.assertEqual((field["isolated_bits"]["differing"], field["chained_bits"]["differing"]), (0, 0), field["field"])

    def test_the_recorded_dump_of_gpu_fused_passes(self):
        self.expect(PASSED, "verify", "--golden", golden("qwen3_30b_a3b.grouped_mm"), "--pipeline", f"dump:{RECORDED / 'gpu_fused.h5'}")


if __name__ == "__main__":
    unittest.main()
