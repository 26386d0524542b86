"""Augmentations against torchvision, image by image; their parameters against distributions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomResizedCrop

from common.data import augment
from common.data.augment import Parameters
from common.recipes import Augmentation

LEVEL = 1 / 255  # one step of an 8-bit channel
SUSPICIOUS = 1e-3  # p-value below which a draw with a fixed seed is not what it should be
NOTHING = Parameters(None, None, None, None, None, None)
COLOUR = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)
EVERYTHING = Augmentation(
    resized_crop_area=(0.2, 1.0),
    horizontal_flip=0.5,
    vertical_flip=0.5,
    jitter=(0.4, 0.4, 0.4, 0.1),
    jitter_probability=0.8,
    grayscale_probability=0.2,
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int, size: int, seed: int = 0) -> Tensor:
    """[n,3,size,size] uint8: noise, gradients, flat and pure colours, in turns."""
    noise = torch.randint(0, 256, (n, 3, size, size), generator=generator(seed))
    ramp = torch.arange(size) * 255 // (size - 1)
    gradient = torch.stack(
        [ramp.expand(size, size), ramp.expand(size, size).T, 255 - ramp + 0 * ramp[:, None]]
    )
    plain = [
        gradient,
        torch.zeros(3, size, size),
        torch.full((3, size, size), 255),
        torch.full((3, size, size), 90),
        torch.tensor([255, 0, 0])[:, None, None].expand(3, size, size),
        torch.tensor([10, 200, 200])[:, None, None].expand(3, size, size),
    ]
    for i, picture in enumerate(plain):
        noise[2 * i + 1 :: 2 * len(plain)] = picture.long()
    return noise.to(torch.uint8)


def crop_by_torchvision(image: Tensor, box: Tensor, size: int) -> Tensor:
    top, left, height, width = box.int().tolist()
    return TF.resized_crop(
        image, top, left, height, width, [size, size], InterpolationMode.BILINEAR, antialias=True
    )


def shift_by_torchvision(image: Tensor, box: Tensor, padding: int) -> Tensor:
    top, left, height, width = box.int().tolist()
    return TF.crop(TF.pad(image, padding), top + padding, left + padding, height, width)


def flip_by_torchvision(image: Tensor, flips: Tensor) -> Tensor:
    vertical, horizontal = flips.tolist()
    image = TF.hflip(image) if horizontal else image
    return TF.vflip(image) if vertical else image


def jitter_by_torchvision(image: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    for i in order.tolist():
        image = COLOUR[i](image, factors[i].item())
    return image


def assert_close(ours: Tensor, oracle: Tensor, tolerance: float) -> None:
    assert ours.shape == oracle.shape
    worst = (ours - oracle).abs().flatten(1).amax(1)
    assert worst.max() <= tolerance, f"image {int(worst.argmax())} is off by {worst.max():.5f}"


# What is done to the images


def test_the_defaults_do_nothing_but_scale_to_one() -> None:
    images = pictures(12, 8)
    changed = augment.augment(images, Augmentation(), generator(0))
    assert changed.dtype == torch.float32
    assert torch.equal(changed, images.float() / 255)


@pytest.mark.parametrize("size", [8, 32])
def test_resized_crops_with_flips_match_torchvision(size: int) -> None:
    images = pictures(48, size)
    how = Augmentation(resized_crop_area=(0.1, 1.0), horizontal_flip=0.5, vertical_flip=0.5)
    drawn = augment.draw(how, len(images), size, generator(size))
    oracle = [
        flip_by_torchvision(crop_by_torchvision(image, box, size), flips)
        for image, box, flips in zip(images.float() / 255, drawn.boxes, drawn.flips, strict=True)
    ]
    assert_close(augment.apply(images, drawn), torch.stack(oracle), 1e-5)
    assert drawn.flips.any(0).all()
    assert not drawn.flips.all(0).any()


@pytest.mark.parametrize(
    "box", [(0, 0, 1, 1), (7, 7, 1, 1), (0, 0, 8, 8), (3, 0, 1, 8), (0, 2, 8, 5)]
)
def test_extreme_boxes_match_torchvision(box: tuple[int, int, int, int]) -> None:
    images = pictures(12, 8)
    boxes = torch.tensor(box).float().expand(len(images), 4)
    oracle = [crop_by_torchvision(image, boxes[0], 8) for image in images.float() / 255]
    assert_close(augment.apply(images, NOTHING._replace(boxes=boxes)), torch.stack(oracle), 1e-5)


@pytest.mark.parametrize(("size", "padding"), [(8, 1), (8, 3), (32, 4)])
def test_padded_crops_with_flips_match_torchvision(size: int, padding: int) -> None:
    images = pictures(40, size)
    how = Augmentation(crop_padding=padding, horizontal_flip=0.5)
    drawn = augment.draw(how, len(images), size, generator(padding))
    oracle = [
        flip_by_torchvision(shift_by_torchvision(image, box, padding), flips)
        for image, box, flips in zip(images.float() / 255, drawn.boxes, drawn.flips, strict=True)
    ]
    assert_close(augment.apply(images, drawn), torch.stack(oracle), 1e-5)
    assert not drawn.flips[:, 0].any()  # no vertical flip was asked for


@pytest.mark.parametrize("i", range(4), ids=["brightness", "contrast", "saturation", "hue"])
def test_each_colour_operation_matches_torchvision(i: int) -> None:
    ours = (
        augment.adjust_brightness,
        augment.adjust_contrast,
        augment.adjust_saturation,
        augment.adjust_hue,
    )[i]
    values = [-0.5, -0.31, -0.1, 0.0, 0.07, 0.25, 0.5] if i == 3 else [0, 0.4, 0.9, 1, 1.3, 2.5]
    images = pictures(24, 16).float() / 255
    for value in values:
        oracle = COLOUR[i](images, value)
        assert_close(ours(images.clone(), torch.full((24,), float(value))), oracle, LEVEL / 10)


def test_jitter_matches_torchvision_in_every_order() -> None:
    orders = torch.tensor(list(itertools.permutations(range(4))))
    images = pictures(len(orders), 16)
    strong = Augmentation(jitter=(0.8, 0.8, 0.8, 0.4), jitter_probability=1.0)
    drawn = augment.draw(strong, len(images), 16, generator(1))._replace(orders=orders)
    oracle = [
        jitter_by_torchvision(image, factors, order)
        for image, factors, order in zip(images.float() / 255, drawn.factors, orders, strict=True)
    ]
    assert_close(augment.apply(images, drawn), torch.stack(oracle), 2 * LEVEL)


def test_the_whole_pipeline_matches_torchvision() -> None:
    """Crop, flips, jitter, grey: in this order, each image with its own parameters."""
    images = pictures(64, 32, seed=5)
    before = images.clone()
    drawn = augment.draw(EVERYTHING, len(images), 32, generator(7))
    oracle = []
    for i, image in enumerate(images.float() / 255):
        view = flip_by_torchvision(crop_by_torchvision(image, drawn.boxes[i], 32), drawn.flips[i])
        if drawn.jittered[i]:
            view = jitter_by_torchvision(view, drawn.factors[i], drawn.orders[i])
        if drawn.grey[i]:
            view = TF.rgb_to_grayscale(view, num_output_channels=3)
        oracle.append(view)
    assert drawn.grey.any()
    assert not drawn.jittered.all()
    assert_close(augment.apply(images, drawn), torch.stack(oracle), 2 * LEVEL)
    assert torch.equal(images, before)


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(8, 40),
    low=st.floats(0.01, 1.0),
    width=st.floats(0, 1.0),
    seed=st.integers(0, 2**31),
)
def test_results_are_images_and_boxes_lie_inside_them(
    size: int, low: float, width: float, seed: int
) -> None:
    how = EVERYTHING._replace(resized_crop_area=(low, min(low + width, 1.0)))
    drawn = augment.draw(how, 16, size, generator(seed))
    top, left, height, wide = drawn.boxes.T
    assert torch.equal(drawn.boxes, drawn.boxes.round())
    assert (top >= 0).all() and (left >= 0).all()
    assert (height >= 1).all() and (wide >= 1).all()
    assert (top + height <= size).all() and (left + wide <= size).all()
    changed = augment.apply(pictures(16, size, seed), drawn)
    assert changed.shape == (16, 3, size, size)
    assert changed.dtype == torch.float32
    assert (changed > -1e-5).all() and (changed < 1 + 1e-5).all()


# What is drawn


def uniform_p(values: Tensor, low: float, high: float) -> float:
    return stats.kstest(values.numpy().astype(np.float64), "uniform", (low, high - low)).pvalue


def test_area_and_aspect_ratio_of_boxes_are_uniform() -> None:
    """Up to an area of 3/4 every box fits, so nothing is drawn again; a huge image makes rounding
    to pixels negligible."""
    size = 100_000
    how = Augmentation(resized_crop_area=(0.2, 0.7))
    top, left, height, width = augment.draw(how, 4000, size, generator(0)).boxes.double().T
    assert uniform_p(height * width / size**2, 0.2, 0.7) > SUSPICIOUS
    assert uniform_p((width / height).log(), np.log(3 / 4), np.log(4 / 3)) > SUSPICIOUS
    assert uniform_p(top / (size - height), 0, 1) > SUSPICIOUS
    assert uniform_p(left / (size - width), 0, 1) > SUSPICIOUS
    independent = stats.spearmanr(top / (size - height), left / (size - width)).pvalue
    assert independent > SUSPICIOUS


def test_boxes_that_need_several_tries_are_drawn_as_by_torchvision() -> None:
    size, n = 32, 4000
    ours = augment.draw(Augmentation(resized_crop_area=(0.2, 1.0)), n, size, generator(1)).boxes
    image = torch.zeros(3, size, size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        theirs = torch.tensor(
            [RandomResizedCrop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(n)]
        ).float()
    for column in range(4):
        p = stats.ks_2samp(ours[:, column].numpy(), theirs[:, column].numpy()).pvalue
        assert p > SUSPICIOUS, ("top", "left", "height", "width")[column]
    # Each start within the room that the box leaves: both ends happen equally often.
    room = size - ours[:, 2]
    wide = room == 4
    counts = torch.bincount(ours[wide, 0].long(), minlength=5).numpy()
    assert len(counts) == 5
    assert stats.chisquare(counts).pvalue > SUSPICIOUS


def test_a_crop_of_the_whole_area_is_the_whole_image() -> None:
    boxes = augment.draw(Augmentation(resized_crop_area=(1.0, 1.0)), 500, 16, generator(0)).boxes
    whole = torch.tensor([0.0, 0.0, 16.0, 16.0])
    # Only ratios that round to 16 x 16 fit, so after ten tries the whole image is taken.
    assert torch.equal(boxes, whole.expand(500, 4))


def test_padded_corners_are_uniform_over_all_shifts() -> None:
    boxes = augment.draw(Augmentation(crop_padding=4), 9000, 32, generator(0)).boxes
    assert (boxes[:, 2:] == 32).all()
    for column in (0, 1):
        counts = torch.bincount(boxes[:, column].long() + 4, minlength=9)
        assert len(counts) == 9
        assert stats.chisquare(counts.numpy()).pvalue > SUSPICIOUS
    pairs = torch.bincount(((boxes[:, 0] + 4) * 9 + boxes[:, 1] + 4).long(), minlength=81)
    assert stats.chisquare(pairs.numpy()).pvalue > SUSPICIOUS


def test_jitter_factors_are_uniform_around_no_change() -> None:
    how = Augmentation(jitter=(0.4, 0.2, 0.7, 0.1), jitter_probability=0.8)
    factors = augment.draw(how, 4000, 8, generator(0)).factors
    for column, (low, high) in enumerate([(0.6, 1.4), (0.8, 1.2), (0.3, 1.7), (-0.1, 0.1)]):
        assert uniform_p(factors[:, column], low, high) > SUSPICIOUS
    for a, b in itertools.combinations(range(4), 2):
        assert stats.spearmanr(factors[:, a], factors[:, b]).pvalue > SUSPICIOUS


def test_factors_stay_positive_for_strengths_above_one() -> None:
    how = Augmentation(jitter=(1.5, 0.0, 0.0, 0.0), jitter_probability=1.0)
    factors = augment.draw(how, 4000, 8, generator(0)).factors
    assert uniform_p(factors[:, 0], 0.0, 2.5) > SUSPICIOUS
    assert torch.equal(factors[:, 1:], torch.tensor([1.0, 1.0, 0.0]).expand(4000, 3))


def test_orders_are_permutations_each_equally_likely() -> None:
    orders = augment.draw(Augmentation(jitter_probability=1.0), 12_000, 8, generator(0)).orders
    assert torch.equal(orders.sort(1).values, torch.arange(4).expand(12_000, 4))
    seen = dict.fromkeys(itertools.permutations(range(4)), 0)
    for order in orders.tolist():
        seen[tuple(order)] += 1
    assert stats.chisquare(list(seen.values())).pvalue > SUSPICIOUS


@pytest.mark.parametrize("what", ["vertical_flip", "horizontal_flip", "jitter", "grayscale"])
def test_probabilities_are_kept_and_nothing_else_happens(what: str) -> None:
    flag = what if "flip" in what else f"{what}_probability"
    drawn = augment.draw(Augmentation(**{flag: 0.3}), 5000, 8, generator(0))
    vertical, horizontal = (None, None) if drawn.flips is None else drawn.flips.T
    drawn_of = {"vertical_flip": vertical, "horizontal_flip": horizontal}
    drawn_of |= {"jitter": drawn.jittered, "grayscale": drawn.grey}
    happened = drawn_of.pop(what)
    assert all(other is None or not other.any() for other in drawn_of.values())
    assert stats.binomtest(int(happened.sum()), 5000, 0.3).pvalue > SUSPICIOUS


def test_the_draw_depends_on_the_generator_alone() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = augment.draw(EVERYTHING, 32, 32, generator(5))
        torch.manual_seed(2)
        state = torch.random.get_rng_state()
        second = augment.draw(EVERYTHING, 32, 32, generator(5))
        assert torch.equal(torch.random.get_rng_state(), state)  # and leaves torch's alone
    other = augment.draw(EVERYTHING, 32, 32, generator(6))
    for a, b, c in zip(first, second, other, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
