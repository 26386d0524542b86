"""Batched augmentations with parameters drawn per image, on the device of the images.

Parameters come from a CPU generator (`draw`), so that they are the same on every device. The
transforms (`apply`) follow those of the same names in torchvision.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from common.recipes import Augmentation

GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as torchvision rounds them


class Parameters(NamedTuple):
    """One draw for B images; every tensor is on the CPU."""

    boxes: Tensor | None  # [B,4] top, left, height, width: the part that fills the new image
    flips: Tensor | None  # [B,2] bool: vertical, horizontal
    factors: Tensor | None  # [B,4] brightness, contrast, saturation (times), hue (plus)
    orders: Tensor | None  # [B,4] which of the four comes first, second, …
    jittered: Tensor | None  # [B] bool
    grey: Tensor | None  # [B] bool


def draw(augmentation: Augmentation, n: int, size: int, generator: torch.Generator) -> Parameters:
    """Draw parameters for n images of size x size pixels."""
    boxes = None
    if augmentation.resized_crop_area is not None:
        boxes = _draw_resized_crops(augmentation.resized_crop_area, n, size, generator)
    elif augmentation.crop_padding:
        pad = augmentation.crop_padding
        corner = torch.randint(-pad, pad + 1, (n, 2), generator=generator).float()
        boxes = torch.cat([corner, torch.full((n, 2), float(size))], dim=1)
    flips = None
    if augmentation.vertical_flip or augmentation.horizontal_flip:
        chance = torch.tensor([augmentation.vertical_flip, augmentation.horizontal_flip])
        flips = torch.rand(n, 2, generator=generator) < chance
    factors = orders = jittered = None
    if augmentation.jitter_probability:
        strength = torch.tensor(augmentation.jitter)
        centre = torch.tensor([1.0, 1.0, 1.0, 0.0])
        low = torch.cat([(1 - strength[:3]).clamp(min=0), -strength[3:]])
        factors = low + (centre + strength - low) * torch.rand(n, 4, generator=generator)
        orders = torch.rand(n, 4, generator=generator).argsort(1)
        jittered = torch.rand(n, generator=generator) < augmentation.jitter_probability
    grey = None
    if augmentation.grayscale_probability:
        grey = torch.rand(n, generator=generator) < augmentation.grayscale_probability
    return Parameters(boxes, flips, factors, orders, jittered, grey)


def apply(images: Tensor, parameters: Parameters) -> Tensor:
    """images [B,C,H,H] uint8 -> [B,C,H,H] float32 in [0, 1], changed as `parameters` say."""
    images = images.float() / 255
    if parameters.boxes is not None or parameters.flips is not None:
        images = _crop_and_flip(images, parameters.boxes, parameters.flips)
    if parameters.factors is not None:
        images = _jitter(images, parameters.factors, parameters.orders, parameters.jittered)
    if parameters.grey is not None:
        rows = _rows(parameters.grey, images)
        images[rows] = grayscale(images.index_select(0, rows)).expand(-1, images.shape[1], -1, -1)
    return images


def _rows(chosen: Tensor, images: Tensor) -> Tensor:
    """Indices of the chosen images, found on the CPU so that nothing has to wait for the GPU."""
    return chosen.nonzero().squeeze(1).to(images.device, non_blocking=True)


def augment(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """`draw`, then `apply`."""
    return apply(images, draw(augmentation, len(images), images.shape[-1], generator))


def _draw_resized_crops(
    area: tuple[float, float], n: int, size: int, generator: torch.Generator
) -> Tensor:
    """[n,4] boxes as RandomResizedCrop draws them: area uniform, aspect ratio log-uniform in
    [3/4, 4/3], ten tries to fit into the image, else the whole (square) image."""
    share = area[0] + (area[1] - area[0]) * torch.rand(n, 10, generator=generator)
    log_ratio = math.log(4 / 3) * (2 * torch.rand(n, 10, generator=generator) - 1)
    width = (size * (share * log_ratio.exp()).sqrt()).round()
    height = (size * (share / log_ratio.exp()).sqrt()).round()
    fits = (width >= 1) & (width <= size) & (height >= 1) & (height <= size)
    first = fits.float().argmax(1, keepdim=True)
    found = fits.any(1)
    width = torch.where(found, width.gather(1, first).squeeze(1), float(size))
    height = torch.where(found, height.gather(1, first).squeeze(1), float(size))
    u = torch.rand(n, 2, generator=generator)
    top = (u[:, 0] * (size - height + 1)).floor()
    left = (u[:, 1] * (size - width + 1)).floor()
    return torch.stack([top, left, height, width], dim=1)


def _crop_and_flip(images: Tensor, boxes: Tensor | None, flips: Tensor | None) -> Tensor:
    """Cropping, bilinear resizing and flipping act on rows and columns separately, so the new image
    is R x image x C^T, where each image has two sparse [H,H] matrices R and C of its own."""
    n, _, size, _ = images.shape
    if boxes is None:
        boxes = torch.tensor([0.0, 0.0, size, size]).expand(n, 4)
    if flips is None:
        flips = torch.zeros(n, 2, dtype=torch.bool)
    boxes = boxes.to(images.device, non_blocking=True)
    flips = flips.to(images.device, non_blocking=True)
    rows, columns = (
        _resize_matrix(boxes[:, i], boxes[:, i + 2], flips[:, i], size) for i in (0, 1)
    )
    half = images.flatten(1, 2) @ columns.transpose(1, 2)  # [B,C*H,H]
    return rows[:, None] @ half.unflatten(1, images.shape[1:3])


def _resize_matrix(start: Tensor, length: Tensor, flipped: Tensor, size: int) -> Tensor:
    """Weights [B,size,size] that interpolate `size` samples bilinearly from the pixels start …
    start+length-1, in reverse order where flipped. Samples use no pixels outside this box; pixels
    outside the image are black."""
    pixel = torch.arange(size, device=start.device, dtype=torch.float32)
    scale = (length / size)[:, None]
    position = ((pixel + 0.5) * scale - 0.5).clamp(min=0)
    position = start[:, None] + torch.minimum(position, length[:, None] - 1)
    position = torch.where(flipped[:, None], position.flip(1), position)
    return (position[:, :, None] - pixel).abs_().neg_().add_(1).clamp_(min=0)


def _jitter(images: Tensor, factors: Tensor, orders: Tensor, jittered: Tensor) -> Tensor:
    """The four colour operations on the chosen images, in each image's own order."""
    operations = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
    factors = factors.to(images.device, non_blocking=True)
    for slot in range(4):
        for i, operation in enumerate(operations):
            rows = _rows((orders[:, slot] == i) & jittered, images)
            # index_select: five times as fast as images[rows] on a CPU
            images[rows] = operation(images.index_select(0, rows), factors[rows, i])
    return images


def grayscale(images: Tensor) -> Tensor:
    """[B,3,H,W] -> [B,1,H,W]."""
    # Plain numbers, not a tensor: copying a tensor to a GPU would make the CPU wait.
    return sum(w * images[:, c, None] for c, w in enumerate(GREY_WEIGHTS))


def adjust_brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Mix with black; factors [B]."""
    return (images * factors[:, None, None, None]).clamp_(0, 1)


def adjust_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Mix with the mean grey of the whole image; factors [B]."""
    return _mix(images, grayscale(images).mean((1, 2, 3), keepdim=True), factors)


def adjust_saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Mix with the grey image; factors [B]."""
    return _mix(images, grayscale(images), factors)


def _mix(images: Tensor, others: Tensor, factors: Tensor) -> Tensor:
    factors = factors[:, None, None, None]
    return (factors * images).add_((1 - factors) * others).clamp_(0, 1)


def adjust_hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Rotate the hue by shifts [B] in [-0.5, 0.5] of the circle; value and saturation stay.

    In HSV a channel is V - V·S·clamp(min(k, 4 - k), 0, 1) with k = (n + 6·hue) mod 6 and
    n = 5, 3, 1 for red, green, blue (the closed form of the usual six cases).
    """
    value = images.amax(1)
    chroma = value - images.amin(1)
    red, green, blue = images.unbind(1)
    # If several channels are brightest, the first one counts, as in the usual six cases. With
    # weights of exactly 0 or 1, lerp selects, on a CPU faster than `where`.
    sextant = torch.lerp(
        torch.add(red - green, chroma, alpha=4),
        torch.add(blue - red, chroma, alpha=2),
        (green == value).float(),
    )
    sextant = torch.lerp(sextant, green - blue, (red == value).float())
    grey = chroma == 0
    turns = sextant / (6 * chroma + grey) + shifts[:, None, None]
    # one more turn, so that no fraction is negative
    k = torch.stack([turns + (1 + n / 6) for n in (5, 3, 1)], dim=1).frac_().mul_(6)
    # clamp(min(k, 4 - k), 0, 1) = 2 - clamp(|k - 2|, 1, 2)
    minus = k.sub_(2).abs_().clamp_(1, 2).sub_(2)
    return torch.addcmul(value[:, None], chroma[:, None], minus)
