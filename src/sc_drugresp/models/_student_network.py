"""The network of a student: a linear map, and a perceptron with one residual block that corrects it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np


class StudentNetwork(nn.Module):
    """Profiles to embeddings, shape `(cells, n_inputs)` to `(cells, dim)`.

    Buffers standardize the inputs and undo the standardization of the targets, so that a profile goes in as it is read and
    a vector comes out on the scale of the teacher.
    """

    mean: Tensor
    scale: Tensor
    target_mean: Tensor
    target_scale: Tensor

    def __init__(self, n_inputs: int, width: int, dim: int) -> None:
        super().__init__()
        self.skip = nn.Linear(n_inputs, dim)
        self.enter = nn.Linear(n_inputs, width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)
        self.final_norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, dim)
        for name, size in (("mean", n_inputs), ("scale", n_inputs), ("target_mean", dim), ("target_scale", dim)):
            self.register_buffer(name, torch.zeros(size))

    @classmethod
    def empty(cls, n_inputs: int, width: int, dim: int) -> StudentNetwork:
        """Without values, so that no generator is drawn from."""
        with torch.device("meta"):
            network = cls(n_inputs, width, dim)
        return network.to_empty(device="cpu")

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> StudentNetwork:
        """The network with these values, in evaluation mode and frozen."""
        (width, n_inputs), dim = arrays["enter.weight"].shape, len(arrays["target_mean"])
        network = cls.empty(n_inputs, width, dim)
        network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
        return network.eval().requires_grad_(requires_grad=False)

    def draw(self, seed: int) -> None:
        """Random weights as at the start of training, from a generator of their own."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.ndim == 2:
                    bound = parameter.shape[1] ** -0.5
                    parameter.uniform_(-bound, bound, generator=generator)
                else:
                    parameter.fill_(float(name.endswith("norm.weight")))

    def arrays(self) -> dict[str, np.ndarray]:
        """All values by name, float32."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self.state_dict().items()}

    def standardized(self, x: Tensor) -> Tensor:
        """What is learned: the embedding in units of the spread of the teacher's, around its mean."""
        x = (x - self.mean) / self.scale
        h = F.gelu(self.enter(x))
        h = h + self.down(F.gelu(self.up(self.norm(h))))
        return self.skip(x) + self.leave(self.final_norm(h))

    def forward(self, x: Tensor) -> Tensor:
        """Embedding on the scale of the teacher."""
        return self.standardized(x) * self.target_scale + self.target_mean
