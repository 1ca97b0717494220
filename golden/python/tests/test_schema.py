import os
import re
import tempfile
import unittest
from pathlib import Path

import h5py
import numpy as np

from assay_golden import schema
from assay_golden.errors import InputError
from assay_golden.fields import FIELDS, Field
from assay_golden.fills import materialise
from tests.problems import odd_fixture

SCHEMA_MD = Path(__file__).parents[2] / "SCHEMA.md"


def sample():
    fixture = odd_fixture()
    file = schema.File(fixture.config, 1, 13, fixture="odd", seed=1, producer="test", provenance={"note": "ü"})
    for name in ("gate", "gate_up_proj"):
        file.tensors["weights", name] = schema.Stored(materialise(fixture.generators[name], name), "bfloat16", "regenerated")
    file.tensors["weights", "down_proj"] = schema.Regenerated(fixture.generators["down_proj"], ["0" * 64] * 7, {"checkpoint": "x"})
    file.tensors["forward", "gather_indices"] = schema.Stored(np.arange(39, dtype="<i4"), "int32", "derived")
    file.tensors["backward", "d_gate"] = schema.Held("bfloat16", (7, 72), ["1" * 64] * 7, [(0, 2), (5, 1)], np.arange(3 * 72, dtype="<u2").reshape(3, 72), "captured")
    file.tensors["oracle", "topk_weights"] = schema.Stored(np.linspace(0, 1, 39).reshape(13, 3), "float64")
    return file


class Schema(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.path = self.folder / "a.h5"

    def test_fields_contracts_and_version_are_the_pages(self):
        page = SCHEMA_MD.read_text()
        self.assertEqual(list(FIELDS), [line.split("`")[1] for line in page.splitlines() if re.match(r"\| `\w+` \| (inputs|weights|forward|backward) ", line)])
        self.assertEqual(FIELDS["d_gate_up_proj"], Field("d_gate_up_proj", "backward", ("E", "2I", "H"), "bfloat16"))
        self.assertEqual(FIELDS["token_counts_by_expert"], Field("token_counts_by_expert", "forward", ("E",), "int32"))
        self.assertTrue({"hf", "hf_eager", "fp64"} < set(schema.CONTRACTS))
        self.assertIn(f"| `schema_version` | string | yes | `{schema.VERSION}`", page)

    def test_what_is_written_is_read(self):
        file = sample()
        schema.write(self.path, file)
        back = schema.read(self.path)
        self.assertEqual((back.config, back.batch, back.sequence, back.seed), (file.config, 1, 13, 1))
        self.assertEqual((back.provenance, back.accumulators["down"], back.kind), ({"note": "ü"}, "unknown", "golden"))
        self.assertEqual(set(back.tensors), set(file.tensors))
        for key, tensor in file.tensors.items():
            if isinstance(tensor, schema.Stored):
                np.testing.assert_array_equal(back.tensors[key].data, tensor.data)
                self.assertEqual((back.tensors[key].dtype, back.tensors[key].origin), (tensor.dtype, tensor.origin))
            elif isinstance(tensor, schema.Held):
                np.testing.assert_array_equal(back.tensors[key].rows, tensor.rows)
                for name in ("dtype", "shape", "hashes", "first_rows", "origin"):
                    self.assertEqual(getattr(back.tensors[key], name), getattr(tensor, name))
            else:
                self.assertEqual(back.tensors[key], tensor)

    def test_the_same_content_gives_the_same_bytes(self):
        for name in ("a.h5", "b.h5"):
            schema.write(self.folder / name, sample())
        self.assertEqual((self.folder / "a.h5").read_bytes(), (self.folder / "b.h5").read_bytes())

    def test_bf16_is_a_float_of_two_bytes_with_checksummed_chunks(self):
        schema.write(self.path, sample())
        with h5py.File(self.path) as file:
            dataset = file["weights/gate_up_proj"]
            self.assertEqual((dataset.id.get_type().get_size(), dataset.compression, dataset.shuffle, dataset.fletcher32), (2, "gzip", True, True))
            gate = schema.read(self.path).tensors["weights", "gate"].data
            widened = (gate.astype(np.uint32) << 16).view(np.float32)
            np.testing.assert_array_equal(file["weights/gate"][:].astype(np.float32), widened)

    def test_content_hash_is_the_documents(self):
        digest = schema.write(self.path, sample())
        lines = {}
        with h5py.File(self.path) as file:
            for name in filter(file.attrs.__contains__, schema.HASHED_STRINGS):  # "ties" stands only where it is not "any"
                lines["@" + name] = schema.sha256(file.attrs[name])
            for name in ("batch", "sequence", "seed"):
                lines["@" + name] = schema.sha256(str(int(file.attrs[name])))

            def visit(path, item):
                if path.endswith("/rows"):
                    return
                if isinstance(item, h5py.Dataset):
                    lines["/" + path] = item.attrs["sha256"]
                elif "first_rows" in item.attrs:
                    a = item.attrs
                    shape = ", ".join(str(int(extent)) for extent in a["shape"])
                    lines["/" + path] = schema.sha256(f"{a['dtype']} [{shape}] {a['sha256']} {a['first_rows']} {item['rows'].attrs['sha256']}")
                elif "generator" in item.attrs:
                    a = item.attrs
                    shape = ", ".join(str(int(extent)) for extent in a["shape"])
                    lines["/" + path] = schema.sha256(
                        f"{a['generator']} {a['routing']} {a['seed']} {a['stream']} [{shape}] {'%.17g' % a['scale']} {a['sha256']}"
                    )

            file.visititems(visit)
            self.assertEqual(file.attrs["content_sha256"], digest)
        self.assertEqual(digest, schema.sha256("".join(f"{key} {lines[key]}\n" for key in sorted(lines))))

    def test_what_is_held_is_checked_when_it_is_written_and_when_it_is_read(self):
        for change, message in (
            ({"hashes": ["1" * 64] * 6}, "expected 7 hashes"),
            ({"shape": (7, 71)}, r"of \[7, 71\]"),
            ({"first_rows": [(5, 1), (0, 2)]}, "first_rows must ascend"),
            ({"first_rows": [(0, 2), (7, 1)]}, "within 7 rows"),
            ({"first_rows": [(0, 2)]}, r"\[3, 72\] is not the shape"),
        ):
            file = sample()
            for name, value in change.items():
                setattr(file.tensors["backward", "d_gate"], name, value)
            with self.assertRaisesRegex(InputError, message):
                schema.write(self.path, file)
        for attribute, value, message in (("first_rows", None, "lacks the attribute 'first_rows'"), ("sha256", '["' + "2" * 64 + '"]', "expected 7 hashes")):
            schema.write(self.path, sample())
            with h5py.File(self.path, "r+") as file:
                del file["backward/d_gate"].attrs[attribute]
                if value is not None:
                    file["backward/d_gate"].attrs[attribute] = value
            with self.assertRaisesRegex(InputError, message):
                schema.read(self.path)
        schema.write(self.path, sample())
        with h5py.File(self.path, "r+") as file:
            file["backward/d_gate"].attrs["sha256"] = file["backward/d_gate"].attrs["sha256"].replace("1", "3")
        with self.assertRaisesRegex(InputError, "content hash"):
            schema.read(self.path)

    def test_empty_tensors_are_legal(self):
        file = schema.File(odd_fixture().config, 1, 0)
        file.tensors["forward", "first_gemm"] = schema.Stored(np.zeros((0, 80), "<u2"), "bfloat16")
        schema.write(self.path, file)
        self.assertEqual(schema.read(self.path).tensors["forward", "first_gemm"].data.shape, (0, 80))

    def test_wrong_shapes_and_names_are_refused_and_nothing_is_left(self):
        for key, data, message in (
            (("forward", "gather_indices"), np.zeros(38, "<i4"), r"/forward/gather_indices: expected shape \[39\], found \[38\]"),
            (("forward", "gather_indices"), np.zeros(39, "<u2"), "expected int32"),
            (("forward", "gate"), np.zeros((7, 72), "<u2"), "/forward/gate is no field"),
        ):
            file = sample()
            file.tensors[key] = schema.Stored(data, "int32" if data.dtype != "<u2" else "bfloat16")
            with self.assertRaisesRegex(InputError, message):
                schema.write(self.path, file)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_failed_write_keeps_the_older_file(self):
        schema.write(self.path, sample())
        before = self.path.read_bytes()
        file = sample()
        file.provenance = {"note": "a\0b", "bad": "\ud800"}  # a lone surrogate has no UTF-8
        file.producer = "\ud800"
        with self.assertRaisesRegex(InputError, "cannot write"):
            schema.write(self.path, file)
        self.assertEqual((self.path.read_bytes(), os.listdir(self.folder)), (before, ["a.h5"]))

    def test_an_unwritable_place_is_one_sentence(self):
        with self.assertRaisesRegex(InputError, "cannot write .*no-such-folder"):
            schema.write(self.folder / "no-such-folder" / "a.h5", sample())

    def test_damage_is_an_error_that_names_the_place(self):
        schema.write(self.path, sample(), compress=0)
        raw = bytearray(self.path.read_bytes())
        gate = materialise(odd_fixture().generators["gate"], "gate").tobytes()
        at = bytes(raw).index(gate[:64])
        raw[at] ^= 1
        self.path.write_bytes(raw)
        with self.assertRaisesRegex(InputError, "/weights/gate"):
            schema.read(self.path)

    def test_a_changed_attribute_breaks_the_content_hash(self):
        schema.write(self.path, sample())
        with h5py.File(self.path, "r+") as file:
            file.attrs["producer"] = "somebody else"
        with self.assertRaisesRegex(InputError, "content hash"):
            schema.read(self.path)

    def test_a_newer_major_version_is_refused(self):
        schema.write(self.path, sample())
        with h5py.File(self.path, "r+") as file:
            file.attrs["schema_version"] = "2.0"
        with self.assertRaisesRegex(InputError, "expected schema assay 1.x, found assay 2.0"):
            schema.read(self.path)

    def test_what_is_no_hdf5_file_is_refused(self):
        self.path.write_text("no")
        with self.assertRaisesRegex(InputError, "is not an HDF5 file"):
            schema.read(self.path)


if __name__ == "__main__":
    unittest.main()
