"""A checkpoint whose layer has the longest rows for the fewest weights (H 4,096, I 8, E 2, top 1): with 524,416 tokens its input is larger
than 4 GiB, so that offsets of 32 bits wrap, while the weights are 0.4 MB and the first product's results 17 MB."""

import json
import pathlib
import random
import struct
import sys

HIDDEN, INTER, EXPERTS = 4096, 8, 2
TOKENS = 524416  # 128 rows behind the 2^31st element


def write_checkpoint(folder, hidden=HIDDEN, inter=INTER, experts=EXPERTS, top_k=1):
    """One layer of Gaussian weights; other sizes than the long rows' serve to look at how a product sums."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({
        "model_type": "qwen3_moe", "hidden_size": hidden, "moe_intermediate_size": inter, "num_experts": experts, "num_experts_per_tok": top_k,
        "norm_topk_prob": True, "num_hidden_layers": 1, "decoder_sparse_step": 1, "mlp_only_layers": [], "hidden_act": "silu"}))
    shapes = {"mlp.gate.weight": (experts, hidden)}
    for expert in range(experts):
        shapes |= {f"mlp.experts.{expert}.{name}.weight": shape for name, shape in
                   (("gate_proj", (inter, hidden)), ("up_proj", (inter, hidden)), ("down_proj", (hidden, inter)))}
    draw, header, data = random.Random(7), {}, bytearray()
    for name, shape in shapes.items():
        start = len(data)
        for _ in range(shape[0] * shape[1]):
            data += struct.pack("<f", draw.gauss(0.0, 0.02))[2:]  # the upper half of a float is a bfloat16
        header[f"model.layers.0.{name}"] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, len(data)]}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(data))


if __name__ == "__main__":
    write_checkpoint(sys.argv[1])
