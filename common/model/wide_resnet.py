"""Wide ResNet with pre-activation (Zagoruyko & Komodakis, arXiv 1605.07146).

Parameters have the same names as in the released code of arXiv 2207.00200, so that its files load.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import runtime


class Output(NamedTuple):
    """The result of one forward pass on B images."""

    logits: Tensor  # [B,C]
    embedding: Tensor  # [B,D]: the last activation, averaged over space
    probes: tuple[Tensor, ...] = ()  # L x [B,D_l], in the network's order


def pool(maps: Tensor) -> Tensor:
    """[B,C,H,W] -> [B,C], the mean over space. Not AdaptiveAvgPool2d, whose backward is not
    deterministic on CUDA."""
    return maps.mean((2, 3))


class Block(nn.Module):
    """Two 3x3 convolutions, each preceded by batch norm and ReLU, and a shortcut."""

    def __init__(self, n_in: int, n_out: int, stride: int, dropout: float):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(n_in)
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.dropout = dropout
        self.convShortcut = (  # the released name
            nn.Conv2d(n_in, n_out, 1, stride, bias=False) if n_in != n_out else None
        )

    def forward(self, x: Tensor, probes: list[Tensor] | None = None) -> Tensor:
        """The residual sum; appends the block's two inner probes, averaged over space."""
        activated = F.relu(self.bn1(x), inplace=True)  # batch norm keeps its input, not its output
        inner = F.relu(self.bn2(self.conv1(activated)), inplace=True)
        dropped = F.dropout(inner, self.dropout, self.training) if self.dropout else inner
        outer = self.conv2(dropped)
        if probes is not None:
            probes += [pool(inner), pool(outer)]
        return outer + (x if self.convShortcut is None else self.convShortcut(activated))


class Group(nn.Module):
    """Blocks of one width; the first block changes width and resolution."""

    def __init__(self, n_blocks: int, n_in: int, n_out: int, stride: int, dropout: float):
        super().__init__()
        self.layer = nn.ModuleList(
            Block(n_out if i else n_in, n_out, 1 if i else stride, dropout) for i in range(n_blocks)
        )

    def forward(self, x: Tensor, probes: list[Tensor] | None = None) -> Tensor:
        """The last residual sum; appends two probes for each block and one for the last sum."""
        for block in self.layer:
            x = block(x, probes)
        if probes is not None:
            probes.append(pool(x))
        return x


class WideResNet(nn.Module):
    """WRN-depth-widen_factor for square images of at least 8x8; encoder and linear classifier.

    Raises ValueError for a depth that is not 6n+4. Draws its weights from torch's global
    generator; `build` gives reproducible ones.
    """

    def __init__(
        self, depth: int = 16, widen_factor: int = 2, n_classes: int = 10, dropout: float = 0.0
    ):
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"depth {depth} is not of the form 6n+4")
        n = (depth - 4) // 6
        widths = [16, 16 * widen_factor, 32 * widen_factor, 64 * widen_factor]
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.block1 = Group(n, widths[0], widths[1], 1, dropout)
        self.block2 = Group(n, widths[1], widths[2], 2, dropout)
        self.block3 = Group(n, widths[2], widths[3], 2, dropout)
        self.bn1 = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(widths[3], n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    @property
    def embedding_width(self) -> int:
        return self.fc.in_features

    def forward(self, images: Tensor, probes: bool = False) -> Output:
        """images [B,3,H,H], normalised. Probes (16 at depth 16) are averaged over space: the first
        convolution; in each block relu(bn2(conv1)) and conv2; each group's residual sum."""
        x = self.conv1(images)
        collected = [pool(x)] if probes else None
        for group in (self.block1, self.block2, self.block3):
            x = group(x, collected)
        embedding = pool(F.relu(self.bn1(x), inplace=True))
        return Output(self.fc(embedding), embedding, tuple(collected or ()))


class ProjectionHead(nn.Module):
    """Maps the embedding into the space of the contrastive loss, by an mlp or a linear layer."""

    def __init__(self, width: int, kind: str = "mlp", n_out: int = 128):
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(width, n_out)]
        if kind == "mlp":
            layers = [nn.Linear(width, width), nn.ReLU(), nn.Linear(width, n_out)]
        self.head = nn.Sequential(*layers)

    def forward(self, embedding: Tensor) -> Tensor:
        return self.head(embedding)


def build(
    depth: int, widen_factor: int, n_classes: int, dropout: float, *seed: int | str
) -> WideResNet:
    """A network whose initial weights depend only on the seed keys, on every device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(runtime.seed_from(*seed, "weights"))
        return WideResNet(depth, widen_factor, n_classes, dropout)


def build_projection(width: int, kind: str, *seed: int | str) -> ProjectionHead:
    """A projection head whose initial weights depend only on the seed keys."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(runtime.seed_from(*seed, "projection"))
        return ProjectionHead(width, kind)


def prunable(network: nn.Module) -> dict[str, Tensor]:
    """The prunable weights by name: those of convolutions and of the classifier; never biases,
    batch norm or the projection head."""
    return {
        f"{name}.weight": module.weight
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
