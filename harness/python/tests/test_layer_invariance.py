"""A Python layer on changed batches: what is the same is said to be, what depends on the run, the batch or the order is named."""

import unittest

import numpy as np

import assay
from assay import layer_invariance
from numpy_layer import bf16, forward

BATCHES = (1, 2, 5, 16)


class Invariance(unittest.TestCase):
    def look(self, layer, **options):
        return assay.invariance(layer, "odd", **{"batches": BATCHES, "runs": 4} | options)

    def changed(self, found):
        return {change.name for change in found.changes if change.differs}

    def test_an_honest_layer_gives_the_same_bits_everywhere(self):
        found = self.look(forward, promise=("run", "batch", "order"))
        self.assertTrue(found.passed, found.text)
        self.assertRegex(found.headline, "the same bits run to run, in every batch and order: 8 changes, ")
        by_name = {change.name: change for change in found.changes}
        self.assertEqual((by_name["run to run"].runs, by_name["alone"].runs, by_name["a batch of 16"].runs), (3, 13, 1))
        self.assertEqual(by_name["alone"].fields["first_gemm"], [13, 0])  # rows in expert order are matched
        self.assertEqual(by_name["other neighbours"].fields["hidden_states"], [13, 0])

    def test_an_order_that_depends_on_the_batch_is_information_and_a_broken_promise_is_not(self):
        def layer(problem):
            fields = forward(problem)
            if problem.tokens > 4:
                return fields
            rows = fields["hidden_states_unpermute"].reshape(problem.tokens, 3, -1)
            weighted = bf16(rows * fields["topk_weights"][:, :, None])
            order = np.argsort(fields["selected_experts"], axis=1)
            total = np.zeros_like(weighted[:, 0])
            for slot in range(3):  # as HuggingFace's eager experts add: legal
                total = bf16(total + np.take_along_axis(weighted, order[:, slot, None, None], 1)[:, 0])
            return fields | {"hidden_states": total}

        found = self.look(layer)
        self.assertEqual((found.verdict, self.changed(found)), ("Passed", {"alone", "a batch of 2"}))
        self.assertIn("hidden_states of 13 of 13 tokens, alone (legal): information, nothing was promised", found.headline)
        self.assertEqual(self.look(layer, promise="order").verdict, "Passed")
        broken = self.look(layer, promise="batch")
        self.assertEqual(broken.verdict, "Failed")
        self.assertIn("alone (legal): was promised", broken.headline)

    def test_a_race_is_unstable(self):
        calls = []

        def layer(problem):
            calls.append(1)
            fields = forward(problem)
            if len(calls) == 3:
                fields["hidden_states"][4, 7] = np.nextafter(np.float32(fields["hidden_states"][4, 7]), np.float32(9))
            return fields

        found = self.look(layer)
        self.assertEqual(self.changed(found), {"run to run"})
        self.assertIn("hidden_states of 1 of 39 tokens, run to run", found.headline)
        self.assertEqual(found.verdict, "Unstable")  # legal: it rounds to the same bf16
        calls.clear()
        self.assertEqual(self.look(layer, promise="run").verdict, "Failed")

    def test_a_place_that_matters_is_found(self):
        def layer(problem):
            fields = forward(problem)
            fields["hidden_states"][-1] = np.roll(fields["hidden_states"][-1], 1)
            return fields

        found = self.look(layer)
        self.assertLessEqual({"reverse", "other places"}, self.changed(found))
        self.assertEqual(found.verdict, "Failed")  # and it is not legal
        self.assertIn("not legal: hidden_states is the first stage with an error of its own", found.headline)
        self.assertIn("that run is wrong", found.headline)
        self.assertNotIn("information", found.headline)

    def test_batches_are_those_of_the_program(self):
        made = list(layer_invariance.token_batches(13, (1, 13, 257)))
        self.assertEqual([(name, kind, len(pieces)) for name, kind, pieces in made],
                         [("alone", "batch", 13), ("a batch of 257", "batch", 1), ("other neighbours", "batch", 2), ("reverse", "order", 1), ("other places", "order", 3)])  # fmt: skip
        self.assertEqual(list(layer_invariance.token_batches(0, (1, 2))), [])

    def test_wrong_words_are_refused(self):
        with self.assertRaisesRegex(assay.UsageError, "promise: 'bits' is none of run, batch, order"):
            self.look(forward, promise="bits")
        with self.assertRaisesRegex(assay.UsageError, "runs of 2 or more"):
            self.look(forward, runs=1)


if __name__ == "__main__":
    unittest.main()
