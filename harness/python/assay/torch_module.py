"""A torch module like HuggingFace's Qwen3MoeSparseMoeBlock as a layer: its weights' bits and their gradients. transformers 5.x and 4.5x."""

import numpy as np
import torch

from assay_golden.block import expert_gradient, expert_matrix, is_fused, to_bits
from assay_golden.errors import UsageError


class ModuleLayer:
    def __init__(self, module, top_k=None, norm_topk_prob=None):
        """Raises UsageError where the module keeps neither attribute and they are not given."""
        self.module = module
        self.top_k = top_k if top_k is not None else self._setting("top_k", "num_experts_per_tok")
        self.norm_topk_prob = norm_topk_prob if norm_topk_prob is not None else bool(self._setting("norm_topk_prob"))
        for name, parameter in module.named_parameters():
            if parameter.dtype != torch.bfloat16:
                raise UsageError(f"the module's {name} is {parameter.dtype}: the layer is judged in bf16, module.to(torch.bfloat16)")

    def _setting(self, *names):
        places = (self.module, self.module.gate, getattr(self.module, "config", None), self.module.experts)
        for place in places:
            for name in names:
                if getattr(place, name, None) is not None:
                    return getattr(place, name)
        raise UsageError(f"{type(self.module).__name__} says nowhere what its {names[0]} is: give {names[0]}=")

    def _experts(self):
        return self.module.experts.gate_up_proj.shape[0] if is_fused(self.module) else len(self.module.experts)

    @property
    def device(self):
        return self.module.gate.weight.device

    def bits(self, name):
        """uint16 bits of gate [E, H], gate_up_proj [E, 2I, H] or down_proj [E, H, I]."""
        if name == "gate":
            return to_bits(self.module.gate.weight)
        return np.stack([to_bits(expert_matrix(self.module, name, expert)) for expert in range(self._experts())])

    def gradients(self):
        """{field: gradient} of the parameters that have one."""
        found = {"d_gate": self.module.gate.weight.grad}
        for name in ("gate_up_proj", "down_proj"):
            parameters = [self.module.experts.gate_up_proj, self.module.experts.down_proj] if is_fused(self.module) else list(self.module.experts.parameters())
            if any(parameter.grad is not None for parameter in parameters):
                found[f"d_{name}"] = expert_gradient(self.module, name)[0]
        return {name: gradient for name, gradient in found.items() if gradient is not None}
