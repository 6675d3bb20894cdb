"""scDrugMap's head: d - 512 - 512 - 2 with ReLU, AdamW 1e-4, 10 epochs, batches of 128 (arXiv 2505.05612)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .heads import MLPHead

HIDDEN, EPOCHS, BATCH, LEARNING_RATE = 512, 10, 128, 1e-4


def fit_mlp(x: np.ndarray, y: np.ndarray, *, rng: int) -> MLPHead:
    """Train on random batches of cells with binary cross-entropy against one-hot labels, as scDrugMap does.

    The embedding is not standardized.

    Parameters
    ----------
    x, y
        Embedding, shape `(n_cells, dim)`, and labels (1 sensitive, 0 resistant).
    rng
        Seed of the weights and of the order of cells.
    """
    generator = torch.Generator().manual_seed(rng)
    features = torch.as_tensor(x, dtype=torch.float32)
    target = F.one_hot(torch.as_tensor(y), 2).float()
    layers = [_linear(a, b, generator) for a, b in ((x.shape[1], HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 2))]
    net = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE)
    for _ in range(EPOCHS):
        for cells in torch.randperm(len(features), generator=generator).split(BATCH):
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(net(features[cells]), target[cells]).backward()
            optimizer.step()
    arrays = [parameter.detach().double().numpy() for layer in layers for parameter in (layer.weight, layer.bias)]
    return MLPHead(np.zeros(x.shape[1]), np.ones(x.shape[1]), *arrays)


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with torch's usual initialization, drawn from our own stream."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
    nn.init.uniform_(layer.bias, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs), generator=generator)
    return layer
