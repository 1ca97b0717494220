"""Files of the schema (golden/SCHEMA.md): a problem, results and provenance as one value; written whole, hashed, re-read and verified."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field

import numpy as np

from . import hdf5
from .errors import InputError
from .fields import FIELDS, file_shape
from .fixture import Config, Generator, config_from

VERSION = "1.0"
GROUPS = ("inputs", "weights", "forward", "backward", "oracle")
HASHED_STRINGS = (
    "schema", "schema_version", "kind", "fixture", "contract", "accumulators",
    "producer", "device", "compute_capability", "ties", "config", "provenance",
)  # fmt: skip
CONTRACTS = ("hf", "hf_eager", "hf_fp32_merge", "fused_fp32", "fp64", "auto")


@dataclass
class Stored:
    """A tensor's raw elements: bfloat16 as uint16, int32, float64."""

    data: np.ndarray
    dtype: str
    origin: str = "computed"


@dataclass
class Regenerated:
    """A tensor that the file only names. `hashes` has one SHA-256 per expert of a rank-3 weight, else one."""

    generator: Generator
    hashes: list
    extra: dict = field(default_factory=dict)  # further string attributes, e.g. where a checkpoint was


@dataclass
class File:
    config: Config
    batch: int
    sequence: int
    tensors: dict = field(default_factory=dict)  # (group, field name) -> Stored | Regenerated
    kind: str = "golden"
    fixture: str = ""
    seed: int | None = None
    contract: str = "hf"
    accumulators: dict = field(default_factory=dict)
    producer: str = ""
    device: str = ""
    compute_capability: str = ""
    ties: str = "any"  # or "lowest_index": how equal probabilities are chosen and ordered
    provenance: dict = field(default_factory=dict)


def sha256(text):
    """SHA-256 of the UTF-8 text, as hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def array_hash(array):
    """SHA-256 of the raw little-endian bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8)).hexdigest()


def _json(value):
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def root_strings(file):
    strings = {
        "schema": "assay", "schema_version": VERSION, "kind": file.kind, "fixture": file.fixture, "contract": file.contract,
        "accumulators": _json(dict.fromkeys(("router", "gate_up", "down"), "unknown") | file.accumulators),
        "producer": file.producer, "device": file.device, "compute_capability": file.compute_capability,
        "config": _json(asdict(file.config)), "provenance": _json(file.provenance),
    }  # fmt: skip
    return strings if file.ties == "any" else strings | {"ties": file.ties}


def generator_hash(generator, hashes_text):
    """A regenerated tensor's part in the content hash."""
    shape = "[" + ", ".join(str(extent) for extent in generator.shape) + "]"
    return sha256(
        f"{generator.fill} {generator.routing} {generator.seed} {generator.stream} {shape} {generator.scale:.17g} {hashes_text}"
    )


def content_hash(hashes):
    """The digest over a whole file: SHA-256 of the sorted lines "<key> <hash>\\n"."""
    return sha256("".join(f"{key} {hashes[key]}\n" for key in sorted(hashes, key=str.encode)))


def _root_hashes(strings, numbers):
    texts = {name: strings[name] for name in HASHED_STRINGS if name in strings}
    texts |= {name: str(value) for name, value in numbers.items() if value is not None}
    return {f"@{name}": sha256(text) for name, text in texts.items()}


def _check_tensor(file, group, name, tensor):
    path = f"/{group}/{name}"
    if name not in FIELDS or (group != "oracle" and FIELDS[name].group != group):
        raise InputError(f"{path} is no field of the schema")
    expected = file_shape(name, file)
    if isinstance(tensor, Regenerated):
        return
    dtype = "float64" if group == "oracle" else FIELDS[name].dtype
    if tensor.dtype != dtype or tensor.data.dtype != hdf5.STORED[dtype]:
        raise InputError(f"{path}: expected {dtype}, found {tensor.dtype} held as {tensor.data.dtype}")
    if tensor.data.shape != expected:
        raise InputError(f"{path}: expected shape {list(expected)}, found {list(tensor.data.shape)}")


def _write_regenerated(parent, name, tensor):
    generator = tensor.generator
    group = hdf5.create_group(parent, name)
    hashes_text = _json(tensor.hashes)
    for key, value in (
        ("generator", generator.fill), ("routing", generator.routing), ("seed", np.uint64(generator.seed)),
        ("stream", np.uint64(generator.stream)), ("shape", tuple(generator.shape)), ("scale", np.float64(generator.scale)),
        ("dtype", "bfloat16"), ("origin", "regenerated"), ("sha256", hashes_text), *tensor.extra.items(),
    ):  # fmt: skip
        hdf5.write_attribute(group, key, value)
    return generator_hash(generator, hashes_text)


def _write_open(handle, file, compress):
    """Everything into an open, empty file. Returns the content hash."""
    strings = root_strings(file)
    numbers = {"batch": file.batch, "sequence": file.sequence, "seed": file.seed}
    for name, value in strings.items():
        hdf5.write_attribute(handle, name, value)
    for name, value in numbers.items():
        if value is not None:
            hdf5.write_attribute(handle, name, np.uint64(value) if name == "seed" else np.int64(value))
    hashes = _root_hashes(strings, numbers)
    order = list(FIELDS)
    for group in GROUPS:
        members = sorted((name for place, name in file.tensors if place == group), key=order.index)
        parent = hdf5.create_group(handle, group) if members else None
        for name in members:
            tensor = file.tensors[group, name]
            path = f"/{group}/{name}"
            if isinstance(tensor, Regenerated):
                hashes[path] = _write_regenerated(parent, name, tensor)
                continue
            dataset = hdf5.write_dataset(parent, name, tensor.data, tensor.dtype, compress)
            hashes[path] = array_hash(tensor.data)
            for key, value in (("dtype", tensor.dtype), ("origin", tensor.origin), ("sha256", hashes[path])):
                hdf5.write_attribute(dataset, key, value)
    digest = content_hash(hashes)
    hdf5.write_attribute(handle, "content_sha256", digest)
    return digest


def write(path, file, compress=4):
    """Writes the file under a temporary name, reads it back, compares every bit and renames. Returns the content hash.

    On failure an older file of that name stays untouched and nothing is left behind. Raises InputError.
    """
    for (group, name), tensor in file.tensors.items():
        _check_tensor(file, group, name, tensor)
    path = os.fspath(path)
    temporary = os.path.join(os.path.dirname(path) or ".", f".{os.path.basename(path)}.{os.getpid()}.part")
    try:
        try:
            handle = hdf5.create_file(temporary)
            try:
                digest = _write_open(handle, file, compress)
            finally:
                handle.close()
            back = read(temporary)
            for key, tensor in file.tensors.items():
                if isinstance(tensor, Stored) and not np.array_equal(
                    tensor.data.reshape(-1).view(np.uint8), back.tensors[key].data.reshape(-1).view(np.uint8)
                ):
                    raise InputError(f"{path}: /{'/'.join(key)} read back differs from what was written")
            os.replace(temporary, path)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"cannot write {path}: {error}")
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return digest


def _read_object(path, item, attributes, hashes):
    """One tensor of an open file with its attributes, checked against its own hash."""
    if isinstance(item, hdf5.h5g.GroupID):
        try:
            generator = Generator(
                attributes["generator"], attributes.get("routing", "natural"), attributes["seed"], attributes["stream"],
                tuple(attributes["shape"]), attributes["scale"],
            )  # fmt: skip
        except KeyError as error:
            raise InputError(f"{path} is a group and lacks the attribute {error} of a regenerated tensor")
        text = attributes.get("sha256", "[]")
        hashes[path] = generator_hash(generator, text)
        known = ("generator", "routing", "seed", "stream", "shape", "scale", "dtype", "origin", "sha256")
        return Regenerated(generator, json.loads(text), {key: attributes[key] for key in attributes if key not in known})
    try:
        data = hdf5.read_dataset(item)
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path}: its data are damaged: {error}")
    hashes[path] = array_hash(data)
    if attributes.get("sha256", hashes[path]) != hashes[path]:
        raise InputError(f"{path}: the SHA-256 of its data is {hashes[path]}, the file says {attributes['sha256']}")
    return Stored(data, attributes.get("dtype", hdf5.stored_dtype(item)), attributes.get("origin", ""))


def read(path):
    """Reads a file this package or the C++ writer made and checks every hash it states. Raises InputError."""
    handle = hdf5.open_file(path)
    try:
        return _read_open(path, handle)
    except (OSError, RuntimeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: damaged or not of this schema: {error}")
    finally:
        handle.close()


def _read_open(path, handle):
    root = hdf5.h5g.open(handle, b"/")
    attributes = hdf5.read_attributes(root)
    for name in ("schema", "schema_version", "kind", "contract", "config", "batch", "sequence"):
        if name not in attributes:
            raise InputError(f"{path}: the root attribute '{name}' is missing")
    if attributes["schema"] != "assay" or attributes["schema_version"].split(".")[0] != VERSION.split(".")[0]:
        raise InputError(f"{path}: expected schema assay 1.x, found {attributes['schema']} {attributes['schema_version']}")
    hashes = _root_hashes(attributes, {name: attributes.get(name) for name in ("batch", "sequence", "seed")})
    file = File(
        config_from(json.loads(attributes["config"]), str(path)), attributes["batch"], attributes["sequence"],
        kind=attributes["kind"], contract=attributes["contract"], seed=attributes.get("seed"),
        ties=attributes.get("ties", "any"), accumulators=json.loads(attributes.get("accumulators", "{}")), provenance=json.loads(attributes.get("provenance", "{}")),
        **{name: attributes.get(name, "") for name in ("fixture", "producer", "device", "compute_capability")},
    )  # fmt: skip
    for group, members in hdf5.children(root):
        if group not in GROUPS or not isinstance(members, hdf5.h5g.GroupID):
            continue
        for name, item in hdf5.children(members):
            place = f"/{group}/{name}"
            file.tensors[group, name] = _read_object(place, item, hdf5.read_attributes(item), hashes)
    if "content_sha256" in attributes and attributes["content_sha256"] != content_hash(hashes):
        raise InputError(f"{path}: the content hash is {content_hash(hashes)}, the file says {attributes['content_sha256']}")
    return file
