"""Run a network over a split: always in eval mode, float32, one batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from common.data.datasets import Dataset, Split
from common.model.wide_resnet import Output, WideResNet

BATCH_SIZE = 256  # fits into the cache of a CPU; larger batches gain nothing there


@torch.no_grad()
def outputs(
    network: WideResNet,
    data: Dataset,
    split: Split,
    batch_size: int = BATCH_SIZE,
    probes: bool = False,
    view: Callable[[Tensor], Tensor] = lambda images: images.float() / 255,
) -> Iterator[Output]:
    """The network's Output for each batch of the split, in order. `view` turns uint8 images into
    the float32 images in [0, 1] that the network sees, unchanged or augmented."""
    was_training = network.training
    network.eval()
    try:
        for start in range(0, len(split), batch_size):
            images = data.normalise(view(split.images[start : start + batch_size]))
            yield network(images.contiguous(memory_format=torch.channels_last), probes=probes)
    finally:
        network.train(was_training)


def accuracy(network: WideResNet, data: Dataset, split: Split) -> float:
    """Share of the split that is classified correctly."""
    predicted = torch.cat([output.logits.argmax(1) for output in outputs(network, data, split)])
    return (predicted == split.labels).double().mean().item()


def classify(
    network: WideResNet, data: Dataset, split: Split, batch_size: int = BATCH_SIZE
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted labels [N], logits [N,C] and embeddings [N,D]."""
    batches = list(outputs(network, data, split, batch_size))
    logits = torch.cat([output.logits for output in batches])
    embeddings = torch.cat([output.embedding for output in batches])
    return logits.argmax(1).cpu().numpy(), logits.cpu().numpy(), embeddings.cpu().numpy()


def probe_embeddings(batches: Iterator[Output]) -> list[Tensor]:
    """The probes of all batches of `outputs(…, probes=True)`, L x [N,D_l]."""
    layers = zip(*(output.probes for output in batches), strict=True)
    return [torch.cat(layer) for layer in layers]
