"""The methods of the released pipeline, rebuilt from torchvision, scikit-learn and plain PyTorch,
as the baseline for ours. The project does not use them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

from common.data.datasets import Dataset, Split
from common.model.wide_resnet import ProjectionHead, WideResNet
from common.recipes import Augmentation

BATCH_SIZE = 1024  # of every pass without training


class Images(TorchDataset):
    """PIL images, transformed one by one: a tensor, or two views of it."""

    def __init__(self, split: Split, transform: transforms.Compose, n_views: int = 1):
        self.pixels = split.images.permute(0, 2, 3, 1).cpu().numpy()
        self.labels = split.labels.cpu().numpy()
        self.transform, self.n_views = transform, n_views

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[list[Tensor], int]:
        image = Image.fromarray(self.pixels[i])
        return [self.transform(image) for _ in range(self.n_views)], int(self.labels[i])


def loader(
    data: Dataset, augmentation: Augmentation, batch_size: int, n_views: int = 1
) -> DataLoader:
    """Shuffled batches of n_views views of each image, made in the process that trains."""
    size = data.train.images.shape[-1]
    steps: list[nn.Module] = []
    if augmentation.resized_crop_area is not None:
        crop = transforms.RandomResizedCrop(size, scale=augmentation.resized_crop_area)
        steps.append(crop)
    if augmentation.crop_padding:
        steps.append(transforms.RandomCrop(size, padding=augmentation.crop_padding))
    if augmentation.horizontal_flip:
        steps.append(transforms.RandomHorizontalFlip(augmentation.horizontal_flip))
    if augmentation.jitter_probability:
        jitter = transforms.ColorJitter(*augmentation.jitter)
        steps.append(transforms.RandomApply([jitter], p=augmentation.jitter_probability))
    if augmentation.grayscale_probability:
        steps.append(transforms.RandomGrayscale(p=augmentation.grayscale_probability))
    transform = transforms.Compose([*steps, *_to_normalised(data)])
    return DataLoader(Images(data.train, transform, n_views), batch_size, shuffle=True)


def plain_loader(data: Dataset, split: Split) -> DataLoader:
    """Images as they are, in order."""
    return DataLoader(Images(split, transforms.Compose(_to_normalised(data))), BATCH_SIZE)


def _to_normalised(data: Dataset) -> list[nn.Module]:
    return [transforms.ToTensor(), transforms.Normalize(data.mean.tolist(), data.std.tolist())]


def first_batch(batches: DataLoader, device: torch.device) -> tuple[Tensor, Tensor]:
    """The first batch of an epoch: views [V·B,3,H,H] and labels [B]."""
    views, labels = next(iter(batches))
    return torch.cat(views).to(device), labels.to(device)


def supcon_loss(features: Tensor, labels: Tensor, temperature: float = 0.5) -> Tensor:
    """The loss of features [V·B,D] with masks of ones and zeros and a loop-free log of a sum."""
    z = F.normalize(features, dim=1)
    labels = labels.repeat(len(z) // len(labels))
    positives = (labels[:, None] == labels[None]).float()
    others = 1 - torch.eye(len(z), device=z.device)
    positives = positives * others
    logits = z @ z.T / temperature
    logits = logits - logits.max(dim=1, keepdim=True).values.detach()
    log_probability = logits - (logits.exp() * others).sum(1, keepdim=True).log()
    mean = (positives * log_probability).sum(1) / positives.sum(1)
    return -(temperature / 0.07) * mean.mean()


def contrastive_step(
    network: WideResNet,
    projection: ProjectionHead,
    optimizer: torch.optim.Optimizer,
    views: Tensor,
    labels: Tensor,
) -> float:
    """One step on the whole batch."""
    loss = supcon_loss(projection(network(views).embedding), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def classification_step(
    network: WideResNet, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> float:
    """One step on the whole batch."""
    loss = F.cross_entropy(network(images).logits, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def head_epoch(
    network: WideResNet,
    optimizer: torch.optim.Optimizer,
    train: DataLoader,
    test: DataLoader,
    device: torch.device,
) -> float:
    """One epoch of the classifier: the encoder runs again over all training and test images."""
    network.eval()
    for (images,), labels in train:
        with torch.no_grad():
            embedding = network(images.to(device)).embedding
        loss = F.cross_entropy(network.fc(embedding), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
    return float(np.mean(predict(network, test, device)[0]))


@torch.no_grad()
def predict(
    network: WideResNet, images: DataLoader, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Labels [N] and embeddings [N,D], in arrays that grow batch by batch."""
    network.eval()
    labels, embeddings = np.empty(0, dtype=np.int64), None
    for (batch,), _ in images:
        output = network(batch.to(device))
        labels = np.append(labels, output.logits.argmax(1).cpu().numpy())
        new = output.embedding.cpu().numpy()
        embeddings = new if embeddings is None else np.vstack([embeddings, new])
    return labels, embeddings


def q_score(embeddings: np.ndarray) -> np.ndarray:
    """Q-, Z-Scores and L1 norms [3,N], one image after the other."""
    scores = []
    for embedding in embeddings:
        h = embedding / np.linalg.norm(embedding)
        z = (np.max(h) - np.mean(h)) / np.std(h)
        l1 = np.sum(np.abs(h))
        scores.append([z / l1, z, l1])
    return np.array(scores).T


def modal_labels(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """The most frequent label [N] of labels [K,N], one image after the other."""
    votes = (np.bincount(column, minlength=n_classes) for column in labels.T)
    return np.array([vote.argmax() for vote in votes])


def pies_of_cell(
    dense: list[WideResNet],
    pruned: list[WideResNet],
    images: DataLoader,
    n_classes: int,
    device: torch.device,
) -> tuple[np.ndarray, np.ndarray]:
    """PIEs [N] and mean scores [2,3,N] of one cell; dense networks are run again for each."""
    modal, scores = [], []
    for networks in (dense, pruned):
        labels = []
        total = np.zeros((3, len(images.dataset)))
        for network in networks:
            predicted, embeddings = predict(network, images, device)
            labels.append(predicted)
            total += q_score(embeddings)
        modal.append(modal_labels(np.stack(labels), n_classes))
        scores.append(total / len(networks))
    return modal[0] != modal[1], np.stack(scores)


def knn_predict(
    bank: np.ndarray, bank_labels: np.ndarray, queries: np.ndarray, k: int
) -> np.ndarray:
    """A bank in float64, as arrays grown by numpy are, asked with float32."""
    classifier = KNeighborsClassifier(n_neighbors=k).fit(bank.astype(np.float64), bank_labels)
    return classifier.predict(queries)


@torch.no_grad()
def probes(network: WideResNet, images: DataLoader, device: torch.device) -> list[np.ndarray]:
    """Probe embeddings L x [N,D_l], in arrays that grow batch by batch; last the logits."""
    network.eval()
    layers: list[np.ndarray] = []
    for (batch,), _ in images:
        output = network(batch.to(device), probes=True)
        new = [probe.cpu().numpy() for probe in (*output.probes, output.logits)]
        layers = [np.vstack(pair) for pair in zip(layers, new, strict=True)] if layers else new
    return layers


def prediction_depth(
    network: WideResNet, train: DataLoader, test: DataLoader, k: int, device: torch.device
) -> np.ndarray:
    """Depth [N] of one network for its own predictions, with a probe at every layer."""
    bank_labels = train.dataset.labels
    *banks, _ = probes(network, train, device)
    *queries, logits = probes(network, test, device)
    answers = [
        knn_predict(bank, bank_labels, asked, k) for bank, asked in zip(banks, queries, strict=True)
    ]
    return np.array(list(_depths(np.stack(answers), logits.argmax(axis=1))))


def _depths(answers: np.ndarray, predicted: np.ndarray) -> Iterator[int]:
    for i, prediction in enumerate(predicted):
        depth = len(answers)
        for layer in reversed(range(len(answers))):
            if answers[layer, i] != prediction:
                break
            depth = layer
        yield depth
