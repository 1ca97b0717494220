"""Files of the schema (golden/SCHEMA.md): a problem, results and provenance as one value; written whole, hashed, re-read and verified."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field

import numpy as np

from . import hdf5
from .errors import InputError
from .fields import FIELDS, WEIGHT_GRADIENTS, dtypes_of, file_shape, is_by_expert, is_padded
from .fixture import Config, Generator, config_from
from .page import PAGE, contracts_of, version_of

VERSION = version_of(PAGE)
PLAIN_VERSION = "1.1"  # of files without /previous and float32 fields
CONTRACTS = contracts_of(PAGE)
GROUPS = ("inputs", "weights", "previous", "forward", "backward", "oracle")
HASHED_STRINGS = (
    "schema", "schema_version", "kind", "fixture", "contract", "accumulators",
    "producer", "device", "compute_capability", "ties", "row_order", "config", "provenance",
)  # fmt: skip
FORWARD_PRODUCTS = ("router", "gate_up", "down")
PRODUCTS = (*FORWARD_PRODUCTS, "down_dx", "down_dw", "gate_up_dx", "gate_up_dw", "router_dx", "router_dw")


@dataclass
class Stored:
    """A tensor's raw elements: bfloat16 as uint16, int32, float64, float32."""

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
class Held:
    """A tensor too large to store. `hashes` has one SHA-256 per expert where the first axis is the expert, else one.

    first_rows: (first, count) of the stored rows, ascending, of the tensor seen as [rows, columns] with its leading axes flattened.
    """

    dtype: str
    shape: tuple
    hashes: list
    first_rows: list
    rows: np.ndarray  # [sum of counts, columns]
    origin: str = "computed"


@dataclass
class File:
    config: Config
    batch: int
    sequence: int
    tensors: dict = field(default_factory=dict)  # (group, field name) -> Stored | Regenerated | Held
    kind: str = "golden"
    fixture: str = ""
    seed: int | None = None
    contract: str = "hf"
    accumulators: dict = field(default_factory=dict)
    producer: str = ""
    device: str = ""
    compute_capability: str = ""
    ties: str = "any"  # or "lowest_index": how equal probabilities are chosen and ordered
    row_order: str = "ascending"  # or "any": the order of an expert's slots
    provenance: dict = field(default_factory=dict)
    row_alignment: int = 1  # the rows of an expert begin at a multiple of it; the rows between are padding


def sha256(text):
    """SHA-256 of the UTF-8 text, as hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def array_hash(array):
    """SHA-256 of the raw little-endian bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8)).hexdigest()


def _json(value):
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def _version(file):
    added = (group == "previous" or isinstance(tensor, Stored) and tensor.dtype == "float32" for (group, _), tensor in file.tensors.items())
    return VERSION if any(added) else PLAIN_VERSION


def root_strings(file):
    strings = {
        "schema": "assay", "schema_version": _version(file), "kind": file.kind, "fixture": file.fixture, "contract": file.contract,
        "accumulators": _json(dict.fromkeys(FORWARD_PRODUCTS, "unknown") | file.accumulators),
        "producer": file.producer, "device": file.device, "compute_capability": file.compute_capability,
        "config": _json(asdict(file.config)), "provenance": _json(file.provenance),
    }  # fmt: skip
    if file.ties != "any":
        strings["ties"] = file.ties
    if file.row_order != "ascending":
        strings["row_order"] = file.row_order
    return strings


def generator_hash(generator, hashes_text):
    """A regenerated tensor's part in the content hash."""
    shape = "[" + ", ".join(str(extent) for extent in generator.shape) + "]"
    return sha256(
        f"{generator.fill} {generator.routing} {generator.seed} {generator.stream} {shape} {generator.scale:.17g} {hashes_text}"
    )


def held_hash(dtype, shape, hashes_text, rows_text, rows_hash):
    """A held tensor's part in the content hash."""
    return sha256(f"{dtype} [{', '.join(map(str, shape))}] {hashes_text} {rows_text} {rows_hash}")


def content_hash(hashes):
    """The digest over a whole file: SHA-256 of the sorted lines "<key> <hash>\\n"."""
    return sha256("".join(f"{key} {hashes[key]}\n" for key in sorted(hashes, key=str.encode)))


def _root_hashes(strings, numbers):
    texts = {name: strings[name] for name in HASHED_STRINGS if name in strings}
    texts |= {name: str(value) for name, value in numbers.items() if value is not None}
    return {f"@{name}": sha256(text) for name, text in texts.items()}


def _check_tensor(file, group, name, tensor):
    path = f"/{group}/{name}"
    before = group == "previous" and name in WEIGHT_GRADIENTS
    if name not in FIELDS or not (before or group in ("oracle", FIELDS[name].group)):
        raise InputError(f"{path} is no field of the schema")
    expected = file_shape(name, file)
    if isinstance(tensor, Regenerated):
        return
    if isinstance(tensor, Held):
        _check_held(path, group, name, tensor, expected)
        return
    dtypes = ("float64",) if group == "oracle" else ("bfloat16", "float32") if before else dtypes_of(name, file.contract)
    if tensor.dtype not in dtypes or tensor.data.dtype != hdf5.STORED[tensor.dtype]:
        raise InputError(f"{path}: expected {' or '.join(dtypes)}, found {tensor.dtype} held as {tensor.data.dtype}")
    whole = tensor.data.shape[1:] == expected[1:] and len(tensor.data) >= expected[0] if file.row_alignment > 1 and is_padded(name) else tensor.data.shape == expected
    if not whole:
        raise InputError(f"{path}: expected shape {list(expected)}, found {list(tensor.data.shape)}")


def _check_held(path, group, name, tensor, expected):
    parts = expected[0] if is_by_expert(name) else 1
    rows = int(np.prod(expected[:-1], dtype=np.int64))
    if group not in ("forward", "backward") or tensor.dtype != FIELDS[name].dtype or tensor.rows.dtype != hdf5.STORED[tensor.dtype]:
        raise InputError(f"{path}: only computed fields of {FIELDS[name].dtype} are held, found {tensor.dtype} in {group}")
    if tuple(tensor.shape) != expected or len(tensor.hashes) != parts:
        raise InputError(f"{path}: expected {parts} hashes of shape {list(expected)}, found {len(tensor.hashes)} of {list(tensor.shape)}")
    end = 0
    for first, count in tensor.first_rows:
        if first < end or count < 1 or first + count > rows:
            raise InputError(f"{path}: first_rows must ascend within {rows} rows, found {tensor.first_rows}")
        end = first + count
    if tensor.rows.shape != (sum(count for _, count in tensor.first_rows), expected[-1]):
        raise InputError(f"{path}: {list(tensor.rows.shape)} is not the shape of the rows {tensor.first_rows}")


def _write_held(parent, name, tensor, compress):
    group = hdf5.create_group(parent, name)
    hashes_text, rows_text = _json(tensor.hashes), _json([list(pair) for pair in tensor.first_rows])
    for key, value in (
        ("dtype", tensor.dtype), ("shape", tuple(tensor.shape)), ("origin", tensor.origin), ("sha256", hashes_text), ("first_rows", rows_text),
    ):  # fmt: skip
        hdf5.write_attribute(group, key, value)
    rows = hdf5.write_dataset(group, "rows", tensor.rows, tensor.dtype, compress)
    digest = array_hash(tensor.rows)
    for key, value in (("dtype", tensor.dtype), ("origin", tensor.origin), ("sha256", digest)):
        hdf5.write_attribute(rows, key, value)
    return held_hash(tensor.dtype, tensor.shape, hashes_text, rows_text, digest)


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
    numbers = {"batch": file.batch, "sequence": file.sequence, "seed": file.seed, "row_alignment": file.row_alignment if file.row_alignment > 1 else None}
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
            if isinstance(tensor, Held):
                hashes[path] = _write_held(parent, name, tensor, compress)
                continue
            dataset = hdf5.write_dataset(parent, name, tensor.data, tensor.dtype, compress)
            hashes[path] = array_hash(tensor.data)
            for key, value in (("dtype", tensor.dtype), ("origin", tensor.origin), ("sha256", hashes[path])):
                hdf5.write_attribute(dataset, key, value)
    digest = content_hash(hashes)
    hdf5.write_attribute(handle, "content_sha256", digest)
    return digest


def _same(tensor, back):
    """Whether what was read back has every stored bit. Generators are attributes: the content hash covers them."""
    if isinstance(tensor, Regenerated):
        return True
    ours, theirs = (item.rows if isinstance(item, Held) else item.data for item in (tensor, back))
    return np.array_equal(ours.reshape(-1).view(np.uint8), theirs.reshape(-1).view(np.uint8))


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
                if not _same(tensor, back.tensors[key]):
                    raise InputError(f"{path}: /{'/'.join(key)} read back differs from what was written")
            os.replace(temporary, path)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"cannot write {path}: {error}")
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return digest


def _read_held(path, group, attributes, hashes):
    """A group /forward/<field> or /backward/<field>, its rows checked against their hash."""
    for key in ("dtype", "shape", "sha256", "first_rows"):
        if key not in attributes:
            raise InputError(f"{path} is a group and lacks the attribute '{key}' of a tensor held by its hashes")
    members = dict(hdf5.children(group))
    if "rows" not in members:
        raise InputError(f"{path} is a group without a dataset rows")
    own = {}
    rows = _read_object(f"{path}/rows", members["rows"], hdf5.read_attributes(members["rows"]), own)
    texts = attributes["sha256"], attributes["first_rows"]
    hashes[path] = held_hash(attributes["dtype"], tuple(attributes["shape"]), *texts, own[f"{path}/rows"])
    return Held(
        attributes["dtype"], tuple(attributes["shape"]), json.loads(texts[0]), [tuple(pair) for pair in json.loads(texts[1])],
        rows.data, attributes.get("origin", ""),
    )  # fmt: skip


def _read_object(path, item, attributes, hashes):
    """One tensor of an open file with its attributes, checked against its own hash."""
    if isinstance(item, hdf5.h5g.GroupID) and path.split("/")[1] in ("forward", "backward"):
        return _read_held(path, item, attributes, hashes)
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
    hashes = _root_hashes(attributes, {name: attributes.get(name) for name in ("batch", "sequence", "seed", "row_alignment")})
    file = File(
        config_from(json.loads(attributes["config"]), str(path)), attributes["batch"], attributes["sequence"],
        kind=attributes["kind"], contract=attributes["contract"], seed=attributes.get("seed"),
        ties=attributes.get("ties", "any"), row_order=attributes.get("row_order", "ascending"), accumulators=json.loads(attributes.get("accumulators", "{}")), provenance=json.loads(attributes.get("provenance", "{}")),
        row_alignment=attributes.get("row_alignment", 1),
        **{name: attributes.get(name, "") for name in ("fixture", "producer", "device", "compute_capability")},
    )  # fmt: skip
    for group, members in hdf5.children(root):
        if group not in GROUPS or not isinstance(members, hdf5.h5g.GroupID):
            continue
        for name, item in hdf5.children(members):
            place = f"/{group}/{name}"
            file.tensors[group, name] = _read_object(place, item, hdf5.read_attributes(item), hashes)
            if isinstance(file.tensors[group, name], Held):
                _check_tensor(file, group, name, file.tensors[group, name])
    if "content_sha256" in attributes and attributes["content_sha256"] != content_hash(hashes):
        raise InputError(f"{path}: the content hash is {content_hash(hashes)}, the file says {attributes['content_sha256']}")
    return file
