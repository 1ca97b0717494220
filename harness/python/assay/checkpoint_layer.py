"""One MoE layer of a HuggingFace checkpoint's folder: config.json and safetensors, mapped, the bits of an expert at a time. numpy only."""

import json
import os

import numpy as np

from assay_golden.errors import InputError
from assay_golden.fixture import config_from

_LONGEST_HEADER = 100_000_000  # as the format's own reader has it


def _json(path, what):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise InputError(f"expected {what} in {path}: {error}")


class Safetensors:
    """The tensors of a file by name, as views of the mapped file."""

    def __init__(self, path):
        self.path = path
        try:
            self._bytes = np.memmap(path, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise InputError(f"cannot map {path}: {error}")
        length = int(self._bytes[:8].view("<u8")[0]) if self._bytes.size >= 8 else -1
        if not 0 < length <= min(_LONGEST_HEADER, self._bytes.size - 8):
            raise InputError(f"{path} is no safetensors file: its header would have {length} bytes")
        try:
            self._header = json.loads(bytes(self._bytes[8 : 8 + length]))
        except ValueError as error:
            raise InputError(f"{path} is no safetensors file: {error}")
        self._data = 8 + length

    def names(self):
        return [name for name in self._header if name != "__metadata__"]

    def bf16(self, name, shape):
        """uint16 bits of the tensor. Raises InputError where it is not bf16 of that shape."""
        row = self._header[name]
        if row["dtype"] != "BF16" or tuple(row["shape"]) != shape:
            raise InputError(f"{self.path}: {name}: expected BF16 {list(shape)}, found {row['dtype']} {row['shape']}")
        begin, end = row["data_offsets"]
        if end - begin != 2 * int(np.prod(shape)) or not 0 <= begin <= end <= self._bytes.size - self._data:
            raise InputError(f"{self.path}: {name} does not lie in the file")
        return self._bytes[self._data + begin : self._data + end].view("<u2").reshape(shape)


class CheckpointLayer:
    def __init__(self, folder, layer):
        """Raises InputError when the folder has no such layer."""
        self.folder = folder
        record = _json(os.path.join(folder, "config.json"), "a HuggingFace checkpoint's config.json")
        record = record.get("text_config", record)
        renamed = {"top_k": record.get("num_experts_per_tok"), "num_experts": record.get("num_experts", record.get("num_local_experts"))}
        self.config = config_from({"norm_topk_prob": False, **record, **renamed}, folder)
        self._file_of, self._open = self._places(), {}
        prefixes = [f"{model}layers.{layer}.mlp." for model in ("model.", "model.language_model.", "language_model.model.", "")]
        found = [prefix for prefix in prefixes if f"{prefix}gate.weight" in self._file_of]
        if not found:
            raise InputError(f"{folder} has no tensor {prefixes[0]}gate.weight: layer {layer} has no router")
        self._prefix = found[0]

    def _places(self):
        index = os.path.join(self.folder, "model.safetensors.index.json")
        if os.path.isfile(index):
            return dict(_json(index, "an index").get("weight_map", {}))
        return {name: "model.safetensors" for name in Safetensors(os.path.join(self.folder, "model.safetensors")).names()}

    def _bits(self, name, shape):
        name = self._prefix + name
        if name not in self._file_of:
            raise InputError(f"{self.folder} has no tensor {name}")
        file = os.path.basename(self._file_of[name])  # an index must not lead out of its folder
        if file not in self._open:
            self._open[file] = Safetensors(os.path.join(self.folder, file))
        return self._open[file].bf16(name, shape)

    def gate(self):
        return np.array(self._bits("gate.weight", (self.config.num_experts, self.config.hidden_size)))

    def expert(self, name, expert):
        """uint16 bits of one expert's gate_up_proj [2I, H] or down_proj [H, I]."""
        hidden, inner, count = self.config.hidden_size, self.config.moe_intermediate_size, self.config.num_experts
        rows = {"gate_up_proj": (2 * inner, hidden), "down_proj": (hidden, inner)}[name]
        if f"{self._prefix}experts.{name}" in self._file_of:
            return self._bits(f"experts.{name}", (count, *rows))[expert]
        if name == "down_proj":
            return self._bits(f"experts.{expert}.down_proj.weight", rows)
        return np.concatenate([self._bits(f"experts.{expert}.{half}_proj.weight", (inner, hidden)) for half in ("gate", "up")])
