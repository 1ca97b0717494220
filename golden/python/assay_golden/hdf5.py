"""HDF5 as the schema wants it: raw bits, library bounds v1.10, no object times, checksummed chunks. Same input, same bytes."""

import os

import h5py
import numpy as np
from h5py import h5, h5a, h5d, h5f, h5g, h5p, h5s, h5t

from .errors import InputError

CHUNK_BYTES = 1 << 20  # HDF5's default chunk cache
STORED = {"bfloat16": np.dtype("<u2"), "int32": np.dtype("<i4"), "float64": np.dtype("<f8"), "float32": np.dtype("<f4")}  # how numpy holds each dtype


def bf16_type():
    """A real two-byte float: sign 15, exponent 14..7, fraction 6..0, bias 127. Fields are set before the size."""
    kind = h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_size(2)
    kind.set_ebias(127)
    return kind


def file_type(dtype):
    return {"bfloat16": bf16_type, "int32": lambda: h5t.STD_I32LE, "float64": lambda: h5t.IEEE_F64LE, "float32": lambda: h5t.IEEE_F32LE}[dtype]()


def create_file(path):
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_libver_bounds(h5f.LIBVER_V110, h5f.LIBVER_V110)
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    creation = h5p.create(h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    return h5f.create(str(path).encode(), h5f.ACC_TRUNC, fcpl=creation, fapl=access)


def create_group(parent, name):
    creation = h5p.create(h5p.GROUP_CREATE)
    creation.set_obj_track_times(False)
    return h5g.create(parent, name.encode(), gcpl=creation)


def chunk_of(shape, item_size):
    """At most 1 MiB: the whole dataset, else blocks whose last axes are whole; of expert tensors one expert or a part of it."""
    total = item_size * int(np.prod(shape, dtype=np.int64))
    size = item_size
    chunk = [1] * len(shape)
    for axis in reversed(range(len(shape))):
        if len(shape) == 3 and axis == 0 and total > CHUNK_BYTES:
            break
        chunk[axis] = min(max(CHUNK_BYTES // size, 1), shape[axis])
        size *= chunk[axis]
        if chunk[axis] < shape[axis]:
            break
    return tuple(chunk)


def write_dataset(parent, name, array, dtype, compress):
    """Writes the bits of `array`, held as STORED[dtype]. `compress` is the deflate level; 0 leaves only the checksum."""
    creation = h5p.create(h5p.DATASET_CREATE)
    creation.set_obj_track_times(False)
    if array.size:  # a chunk of no elements is not allowed
        creation.set_chunk(chunk_of(array.shape, array.itemsize))
        if compress:
            creation.set_shuffle()
            creation.set_deflate(compress)
        creation.set_fletcher32()
    kind = file_type(dtype)
    dataset = h5d.create(parent, name.encode(), kind, h5s.create_simple(array.shape), creation)
    if array.size:
        dataset.write(h5s.ALL, h5s.ALL, np.ascontiguousarray(array), kind)
    return dataset


def write_attribute(owner, name, value):
    """str: variable-length UTF-8; np.uint64, np.int64, np.float64: scalars; a tuple of int: int64 [n]."""
    if isinstance(value, str):
        kind = h5t.C_S1.copy()
        kind.set_size(h5t.VARIABLE)
        kind.set_cset(h5t.CSET_UTF8)
        data, memory = np.array(value, dtype=h5py.string_dtype()), None
    elif isinstance(value, tuple):
        data, memory = np.array(value, dtype="<i8"), h5t.STD_I64LE
        kind = memory
    else:
        data = np.asarray(value)
        kind = memory = {"uint64": h5t.STD_U64LE, "int64": h5t.STD_I64LE, "float64": h5t.IEEE_F64LE}[data.dtype.name]
    space = h5s.create_simple(data.shape) if data.shape else h5s.create(h5s.SCALAR)
    h5a.create(owner, name.encode(), kind, space).write(data, mtype=memory)


def open_file(path):
    if not os.path.isfile(path):
        raise InputError(f"cannot open {path}: there is no such file")
    try:
        if not h5f.is_hdf5(str(path).encode()):
            raise InputError(f"{path} is not an HDF5 file")
        return h5f.open(str(path).encode(), h5f.ACC_RDONLY)
    except (OSError, RuntimeError) as error:
        raise InputError(f"cannot open {path}: {error}")


def read_attributes(owner):
    """All attributes as str, int, float or tuple of int."""
    values = {}
    for index in range(h5a.get_num_attrs(owner)):
        attribute = h5a.open(owner, index=index)
        data = np.empty(attribute.shape, dtype=attribute.dtype)
        attribute.read(data)
        value = data.item() if data.shape == () else tuple(data.tolist())
        values[attribute.name.decode()] = value.decode() if isinstance(value, bytes) else value
    return values


def stored_dtype(dataset):
    """The dtype of the elements as they lie in the file, or the numpy name of another one."""
    kind = dataset.get_type()
    for name in STORED:
        if kind.equal(file_type(name)):
            return name
    return dataset.dtype.name


def read_dataset(dataset):
    """The raw elements: bfloat16 as uint16, others as they are. HDF5 converts nothing."""
    kind = dataset.get_type()
    data = np.empty(dataset.shape, dtype=STORED.get(stored_dtype(dataset), dataset.dtype))
    if data.size:
        dataset.read(h5s.ALL, h5s.ALL, data, kind)
    return data


def children(group):
    """(name, object) in name order."""
    names = sorted(group.get_objname_by_idx(index) for index in range(group.get_num_objs()))
    return [(name.decode(), h5_open(group, name)) for name in names]


def h5_open(group, name):
    kind = h5g.get_objinfo(group, name).type
    return h5d.open(group, name) if kind == h5g.DATASET else h5g.open(group, name)


def library_version():
    return ".".join(str(part) for part in h5.get_libversion())
