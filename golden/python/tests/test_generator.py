import unittest

import numpy as np

from assay_golden.bits import round_to_bf16, widen
from assay_golden.errors import InputError
from assay_golden.fills import FILLS, ROUTINGS, generate, generate_expert, materialise
from assay_golden.fixture import Generator
from assay_golden.philox import centred_lane_sums, words


def generator(fill="gaussian", routing="natural", shape=(7, 10, 9), scale=2.0**-10):
    return Generator(fill, routing, 5, 3, shape, scale)


class Rounding(unittest.TestCase):
    def test_every_bf16_value_rounds_to_itself(self):
        bits = np.arange(1 << 16, dtype=np.uint16)
        values = widen(bits).astype(np.float64)
        numbers = ~np.isnan(values)
        np.testing.assert_array_equal(round_to_bf16(values[numbers]), bits[numbers])
        self.assertTrue(np.isnan(widen(round_to_bf16(values[~numbers]))).all())

    def test_halfway_goes_to_even_and_a_hair_beside_it_to_the_nearer(self):
        bits = np.arange(0x7F7F, dtype=np.uint16)
        middle = (widen(bits).astype(np.float64) + widen(bits + np.uint16(1)).astype(np.float64)) / 2
        np.testing.assert_array_equal(round_to_bf16(middle), bits + (bits & 1))
        np.testing.assert_array_equal(round_to_bf16(np.nextafter(middle, 0)), bits)
        np.testing.assert_array_equal(round_to_bf16(-np.nextafter(middle, np.inf)), (bits + np.uint16(1)) | np.uint16(0x8000))

    def test_beyond_the_largest_is_infinite(self):
        self.assertEqual([int(bits) for bits in round_to_bf16([1e39, -np.inf])], [0x7F80, 0xFF80])


class Stream(unittest.TestCase):
    def test_known_words(self):
        expected = [0xA2F18B514F3549B9, 0x9E9426C8DA723EBB, 0x15A64FC311742051, 0x03737EE4C8E2FDF1]  # Random123 philox4x64, counter 1
        self.assertEqual([int(word) for word in words(1, 3, 0, 4)], expected)

    def test_any_slice_alone_equals_the_whole(self):
        whole = words(9, 2, 0, 100)
        for begin, count in ((0, 1), (3, 1), (5, 90), (99, 1), (8, 0)):
            np.testing.assert_array_equal(words(9, 2, begin, count), whole[begin : begin + count])

    def test_lane_sums_are_centred(self):
        lanes = np.array([[1, 2, 3, 4], [65535] * 4, [0] * 4], dtype="<u2")
        np.testing.assert_array_equal(centred_lane_sums(lanes.view("<u8").ravel()), [10 - 131070, 131070, -131070])
        sums = centred_lane_sums(words(1, 1, 0, 1 << 16))
        self.assertLess(abs(sums.mean()), 5 * 37837.2 / 256)
        self.assertLess(abs(sums.std() / 37837.2 - 1), 0.01)


class Fills(unittest.TestCase):
    def test_an_expert_alone_equals_its_part_of_the_whole(self):
        for fill in FILLS:
            whole = materialise(generator(fill, shape=(5, 7, 3)), "gate_up_proj")  # 21 elements: odd starts, cut pairs
            for expert in range(5):
                np.testing.assert_array_equal(generate_expert(generator(fill, shape=(5, 7, 3)), expert), whole[expert], fill)

    def test_chunks_leave_no_seam(self):
        for fill in ("gaussian", "pairs_near"):
            whole = generate(generator(fill), 0, 140000)
            np.testing.assert_array_equal(generate(generator(fill), 65535, 70000), whole[65535 : 65535 + 70000], fill)

    def test_fills_do_what_their_names_say(self):
        value = {fill: widen(generate(generator(fill), 0, 3996)).astype(np.float64) for fill in FILLS}
        self.assertEqual(set(value["integers"] * 2**10), {-3, -2, -1, 0, 1, 2, 3})
        self.assertEqual(set(value["units"] * 2**10), {-1, 0, 1})
        lifted = value["units_lifted"].copy().reshape(-1, 9)[:70].reshape(7, 10, 9)  # gate_up_proj [E, 2I, H] = [7, 10, 9]
        self.assertTrue((lifted[:, :5, 0] == 14 * 2.0**-10).all())
        lifted[:, :5, 0] = value["units"].reshape(-1, 9)[:70].reshape(7, 10, 9)[:, :5, 0]
        np.testing.assert_array_equal(lifted.ravel(), value["units"][:630])
        self.assertTrue((value["one_sign"] >= 0).all())
        np.testing.assert_array_equal(value["one_sign"], np.abs(value["gaussian"]))
        np.testing.assert_array_equal(value["pairs_negated"][1::2], -value["gaussian"][0::2])
        near = value["pairs_near"][1::2] - value["gaussian"][0::2]
        self.assertTrue(0 < np.abs(near).mean() < np.abs(value["gaussian"]).mean() / 16)
        self.assertGreater(np.abs(value["wide"]).max() / np.median(np.abs(value["wide"])), 100)
        self.assertTrue((value["zeros"] == 0).all() and (value["ones"] == 2.0**-10).all())

    def test_the_table_of_values_rounds_once(self):
        raw = words(5, 3, 0, 5000)
        exact = centred_lane_sums(raw.copy()) * 1.37e-5
        np.testing.assert_array_equal(FILLS["gaussian"](raw, 1.37e-5), round_to_bf16(exact))

    def test_unknown_names_are_refused(self):
        with self.assertRaisesRegex(InputError, "unknown fill 'uniform'; valid: gaussian"):
            generate(generator("uniform"), 0, 1)
        with self.assertRaisesRegex(InputError, "unknown routing 'none'; valid: natural"):
            materialise(generator(routing="none"), "gate")


class Routings(unittest.TestCase):
    def shaped(self, routing, role):
        return widen(materialise(generator(routing=routing, shape=(7, 9)), role))

    def test_only_gate_and_input_are_shaped(self):
        for routing in ROUTINGS:
            np.testing.assert_array_equal(self.shaped(routing, "down_proj"), self.shaped("natural", "down_proj"))

    def test_gate(self):
        plain = self.shaped("natural", "gate")
        hot, empty = self.shaped("hot_expert", "gate"), self.shaped("empty_experts", "gate")
        self.assertEqual((hot[0, 0], (hot != plain).sum()), (64, 1))
        self.assertEqual((list(empty[1::2, 0]), (empty != plain).sum()), ([-64] * 3, 3))
        np.testing.assert_array_equal(self.shaped("tied", "gate"), plain[[0, 0, 0, 3, 3, 3, 6]])
        np.testing.assert_array_equal(self.shaped("saturated", "gate"), plain * 256)
        self.assertFalse(self.shaped("all_tied", "gate").any())

    def test_input(self):
        for routing in ("hot_expert", "empty_experts", "all_tied"):
            shaped, plain = self.shaped(routing, "input_hidden_states"), self.shaped("natural", "input_hidden_states")
            self.assertTrue((shaped[:, 0] == 1).all())
            np.testing.assert_array_equal(shaped[:, 1:], plain[:, 1:])

    def test_equal_logits(self):
        """Token t names group t mod 8 with a one, and the gate answers for the group's experts alone."""
        for routing, top_k in (("equal_4", 4), ("equal_8", 7)):
            tokens, gate = self.shaped(routing, "input_hidden_states"), self.shaped(routing, "gate")
            self.assertTrue((tokens[:, 0] == 16).all())
            np.testing.assert_array_equal(tokens[:, 1:], np.eye(7, 8))
            np.testing.assert_array_equal((gate == 2.0**17).sum(axis=0), [0] + [top_k] * 8)
            np.testing.assert_array_equal(np.nonzero(gate[:, 2] == 2.0**17)[0], sorted((3 + j) % 7 for j in range(top_k)))

    def test_counted_rows(self):
        """40 tokens with three experts each; every expert is named as often as it has rows."""
        tokens = widen(materialise(generator(routing="counted", shape=(2, 20, 48)), "input_hidden_states")).reshape(40, 48)
        self.assertEqual(list(tokens[:, :8].sum(axis=0)), [33, 0, 17, 1, 16, 32, 15, 6])
        self.assertTrue((tokens[:, :8].sum(axis=1) == 3).all())
        gate = widen(materialise(generator(routing="counted", shape=(8, 48)), "gate"))
        np.testing.assert_array_equal(gate[:, :8], 4 * np.eye(8))


if __name__ == "__main__":
    unittest.main()
