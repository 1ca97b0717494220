"""Sees, from outside, what HuggingFace's unmodified code computes: products with the experts' weights, top-k and the weights' rounding."""

from dataclasses import dataclass, field

import torch
from torch.overrides import TorchFunctionMode

from .block import expert_parameters


def keep_gradient(tensor):
    if tensor.requires_grad and not tensor.is_leaf:
        tensor.retain_grad()
    return tensor


@dataclass
class Product:
    """One expert's product: rows in, rows out, in the order the code used."""

    rows: torch.Tensor
    out: torch.Tensor


@dataclass
class Seen:
    products: dict = field(default_factory=dict)  # (projection, expert) -> Product
    selected: torch.Tensor | None = None
    probabilities: torch.Tensor | None = None  # fp32 values of top-k; renormalised in place by HuggingFace
    order: torch.Tensor | None = None  # flat slots [S] in the order of grouped rows
    weights: torch.Tensor | None = None  # after the conversion to the layer's dtype


class Watch(TorchFunctionMode):
    """Records into `seen`. With `replayed` [T, K] it also makes the layer choose these experts and run its softmax in float64."""

    def __init__(self, block, replayed=None):
        super().__init__()
        self.seen = Seen()
        self.replayed = replayed
        self.owners = {weight.data_ptr(): (projection, expert) for projection, expert, weight in expert_parameters(block)}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if self.replayed is not None and function is torch.nn.functional.softmax:
            kwargs["dtype"] = torch.float64
        if self.replayed is not None and function is torch.topk:
            values = (args[0] if args else kwargs["input"]).gather(-1, self.replayed)
            self._choose(values, self.replayed)
            return values, self.replayed
        result = function(*args, **kwargs)
        if function is torch.nn.functional.linear:
            owner = self.owners.get(args[1].data_ptr())
            if owner is not None:
                self.seen.products[owner] = Product(keep_gradient(args[0]), keep_gradient(result))
        elif function is torch.topk:
            self._choose(result[0], result[1])
        elif function is torch.sort:
            self.seen.order = result[1]
        elif function is torch.Tensor.to and args and args[0] is self.seen.probabilities:
            self.seen.weights = keep_gradient(result)
        return result

    def _choose(self, values, indices):
        self.seen.probabilities, self.seen.selected = values, indices
