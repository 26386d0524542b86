"""Schedules as plain data: rates, steps and pruning events by hand, and each recipe's numbers."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from common import recipes, study
from common.data import augment
from common.learning import methods
from common.learning.losses import collapse_value
from common.learning.schedule import Pruning, Schedule
from common.model import wide_resnet
from common.recipes import WINDOWS, Augmentation, Config, Window
from common.runtime import EXIT_ARGUMENTS, Failure

ConfigOf = Callable[..., Config]
ONE_SHOT = {"pruning_method": "global", "sparsity": 0.9}
KINDS = [
    ("supervised", {}, ["network"]),
    ("SupCon", {}, ["encoder", "head"]),
    ("supervised", ONE_SHOT, ["finetune"]),
    ("SupCon", ONE_SHOT | {"finetune_loss": "cross_entropy"}, ["finetune"]),
    ("SupCon", ONE_SHOT | {"finetune_loss": "supcon"}, ["encoder", "head"]),
]


def schedule_of(**changes: Any) -> Schedule:
    """One epoch of a hundred images at once."""
    plain = {"name": "network", "augmentation": Augmentation(), "epochs": 1, "batch_size": 100}
    return Schedule(**plain | {"learning_rate": 2.0, "momentum": 0.9} | changes)


# Rates, steps and events


def test_steps_of_an_epoch_are_rounded_up() -> None:
    schedule = schedule_of(batch_size=16, epochs=3)
    table = {1: 1, 15: 1, 16: 1, 17: 2, 32: 2, 44: 3}
    assert {n: schedule.steps_per_epoch(n) for n in table} == table
    assert {n: schedule.n_steps(n) for n in table} == {n: 3 * steps for n, steps in table.items()}


@pytest.mark.parametrize(
    ("recipe", "table"),
    [
        ({}, {0.0: 2.0, 0.5: 2.0, 0.999: 2.0}),
        (
            {"milestones": (0.25, 0.5), "gamma": 0.1},
            {0.0: 2.0, 0.2499: 2.0, 0.25: 0.2, 0.4999: 0.2, 0.5: 0.02, 0.99: 0.02},
        ),
        ({"warmup": 0.2}, {0.0: 0.0, 0.05: 0.5, 0.1: 1.0, 0.15: 1.5, 0.2: 2.0, 0.9: 2.0}),
        (
            {"cosine": True},
            {0.0: 2.0, 0.25: 1 + math.sqrt(0.5), 0.5: 1.0, 0.75: 1 - math.sqrt(0.5), 1 - 1e-9: 0.0},
        ),
        (
            {"cosine": True, "warmup": 0.2},
            {0.0: 0.0, 0.1: 1.0, 0.2: 2.0, 0.4: 1 + math.sqrt(0.5), 0.6: 1.0},
        ),
        (
            {"milestones": (0.1, 0.5), "gamma": 0.2, "warmup": 0.3},
            {0.15: 1.0, 0.3: 0.4, 0.5: 0.08},
        ),
        ({"warmup": 1.0}, {0.0: 0.0, 0.5: 1.0, 0.75: 1.5}),
        ({"cosine": True, "warmup": 1.0}, {0.0: 0.0, 0.5: 1.0, 0.75: 1.5}),
    ],
)
def test_learning_rates(recipe: dict[str, Any], table: dict[float, float]) -> None:
    schedule = schedule_of(**recipe)
    for progress, rate in table.items():
        assert schedule.learning_rate_at(progress) == pytest.approx(rate, abs=1e-12), progress


def test_pruning_events_are_in_steps_of_the_stage() -> None:
    """1,000 steps: 100 epochs of ten batches."""
    window = Window(0.1, 0.2, 6)
    by_window = Pruning(window, 0.8, "magnitude", "uniform")
    by_flags = dataclasses.replace(by_window, begin_step=10, end_step=31, frequency=10)

    def events(plan: Pruning | None) -> dict[int, float]:
        return schedule_of(epochs=100, batch_size=16, pruning=plan).pruning_events(152)

    assert events(by_window) == by_window.events(1000)
    assert list(events(by_window)) == [100, 120, 140, 160, 180, 200]
    assert events(by_flags) == pytest.approx({10: 0.0, 20: 0.7, 30: 0.8})
    assert events(None) == events(dataclasses.replace(by_flags, window=None)) == {}
    with pytest.raises(Failure, match="--end_step"):
        events(dataclasses.replace(by_flags, end_step=1000))


def events_of(window: Window, final: float, n_steps: int, **steps: int) -> dict[int, float]:
    return Pruning(window, final, "magnitude", "uniform", **steps).events(n_steps)


@pytest.mark.parametrize("final", [0.3, 0.9, 0.975, 1 / 3])
@pytest.mark.parametrize(
    ("window", "n_steps", "steps"),
    [
        ("GMP", 80_155, {}),
        ("later_GMP", 24_500, {}),
        ("GMP", 315, {}),
        ("later_GMP", 20, {}),
        ("GMP", 5000, {"begin_step": 100, "end_step": 1117, "frequency": 50}),
        ("later_GMP", 5000, {"frequency": 7}),
    ],
)
def test_every_event_follows_the_formula_and_the_last_is_exactly_final(
    window: str, final: float, n_steps: int, steps: dict[str, int]
) -> None:
    events = events_of(WINDOWS[window], final, n_steps, **steps)
    times = list(events)
    begin, last = times[0], times[-1]
    gaps = {b - a for a, b in itertools.pairwise(times)}
    assert len(gaps) == 1
    for step, sparsity in events.items():
        share = (step - begin) / (last - begin)
        assert sparsity == pytest.approx(final - final * (1 - share) ** 3, abs=1e-12)
    assert events[begin] == 0
    assert events[last] == final  # not approximately
    values = list(events.values())
    assert values == sorted(values)
    assert last < n_steps


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_given_steps_are_kept_whatever_the_window(window: Window) -> None:
    for n_steps, steps, expected in (
        (5000, (100, 1117, 50), range(100, 1101, 50)),
        (5000, (0, 10, 5), [0, 5, 10]),
        (1000, (0, 999, 333), [0, 333, 666, 999]),  # the last step may be an event
    ):
        given = dict(zip(("begin_step", "end_step", "frequency"), steps, strict=True))
        assert list(events_of(window, 0.9, n_steps, **given)) == list(expected)


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_windows_mean_the_same_at_every_length(window: Window) -> None:
    begin, end, _ = window
    for n_steps in (2_000, 7_777, 80_155, 1_000_000):
        times = list(events_of(window, 0.9, n_steps))
        assert times[0] / n_steps == pytest.approx(begin, abs=1e-3)
        assert times[-1] / n_steps <= end + 1e-3
        assert times[-1] / n_steps == pytest.approx(end, rel=0.2)


@pytest.mark.parametrize(
    ("n_steps", "steps"),
    [
        (1000, {"begin_step": 500, "end_step": 400}),
        (1000, {"begin_step": 500, "end_step": 500}),
        (1000, {"begin_step": 500, "end_step": 1000, "frequency": 100}),
        (1000, {"begin_step": 1000, "end_step": 2000, "frequency": 10}),
        (1000, {"begin_step": 0, "end_step": 50, "frequency": 51}),
        (1000, {"begin_step": 400, "end_step": 500, "frequency": 600}),
        (1, {}),
    ],
)
def test_steps_that_do_not_fit_are_refused(n_steps: int, steps: dict[str, int]) -> None:
    with pytest.raises(Failure) as failure:
        events_of(WINDOWS["GMP"], 0.9, n_steps, **steps)
    assert failure.value.code == EXIT_ARGUMENTS
    message = str(failure.value)
    assert "--end_step" in message
    assert str(n_steps) in message
    assert "\n" not in message


# What each configuration becomes


@pytest.mark.parametrize(("learner", "changes", "names"), KINDS)
def test_schedules_are_plain_data_and_need_no_network(
    config_of: ConfigOf,
    monkeypatch: pytest.MonkeyPatch,
    learner: str,
    changes: dict[str, Any],
    names: list[str],
) -> None:
    def refuse(*arguments: Any, **more: Any) -> None:
        raise AssertionError("a network is built")

    monkeypatch.setattr(wide_resnet.WideResNet, "__init__", refuse)
    monkeypatch.setattr(wide_resnet.ProjectionHead, "__init__", refuse)
    config = config_of(learner, **changes)
    found = methods.schedules(config)
    assert [schedule.name for schedule in found] == names
    for schedule in found:
        assert json.loads(json.dumps(dataclasses.asdict(schedule)))["name"] == schedule.name
    assert {schedule.name for schedule in found} <= methods.STAGES.keys()
    with pytest.raises(AssertionError, match="a network is built"):
        methods.new_modules(config, 10, 0)


def test_a_training_takes_every_number_from_its_configuration(config_of: ConfigOf) -> None:
    numbers = {"epochs": 8, "batch_size": 12, "learning_rate": 0.3, "momentum": 0.8}
    numbers |= {"weight_decay": 0.01, "nesterov": True}
    pruned = {"pruning_method": "later_GMP", "sparsity": 0.7, "criterion": "random"}
    steps = {"begin_step": 2, "end_step": 9, "frequency": 3}
    flags = numbers | pruned | steps | {"allocation": "global", "decay": "weights"}
    flags |= {"cosine_annealing": True, "warmup_epochs": 1.5}
    window = Window(0.10, 0.194, 38)
    by_flags = Pruning(window, 0.7, "random", "global", **steps)
    shifts = Augmentation(crop_padding=1)
    main = {"warmup": 1.5 / 8, "cosine": True, "decays_weights_only": True, "pruning": by_flags}
    (network,) = methods.schedules(config_of("supervised", **flags))
    assert network == Schedule("network", shifts, **numbers, **main)
    (plain,) = methods.schedules(config_of("supervised", **numbers, warmup_epochs=9))
    falls = (5 / 205, 30 / 205, 50 / 205, 80 / 205)
    assert plain == Schedule("network", shifts, **numbers, milestones=falls, warmup=1.0)

    flags |= {"temperature": 0.2, "base_temperature": 0.1, "min_crop_area": 0.3}
    flags |= {"head_epochs": 4, "batch_size_head": 9, "head_views": 3, "head_crop_padding": 0.25}
    encoder, head = methods.schedules(config_of("SupCon", **flags))
    views = Augmentation(resized_crop_area=(0.3, 1.0), jitter=(0.4, 0.4, 0, 0))
    views = views._replace(jitter_probability=0.8)
    collapsed = collapse_value(24, 0.2, 0.1)
    assert encoder == Schedule(
        "encoder", views, **numbers, **main, n_views=2, collapsed_loss=collapsed
    )
    # Steps given by flags count the encoder's; the classifier's come from the same fractions.
    by_window = Pruning(window, 0.7, "random", "global")
    assert head == Schedule(
        "head", Augmentation(crop_padding=2), 4, 9, 0.1, 0.9, milestones=(0.6, 0.75, 0.9),
        gamma=0.2, cached_views=3, pruning=by_window,
    )  # fmt: skip


@pytest.mark.parametrize("learner", study.LEARNERS)
def test_finetuning_is_at_a_constant_rate_and_prunes_nothing(
    config_of: ConfigOf, learner: str
) -> None:
    """Also where the configuration lacks what only contrastive learning needs."""
    config = config_of(learner, **ONE_SHOT, epochs=7, batch_size=12, learning_rate=0.3)
    config = {key: value for key, value in config.items() if key not in recipes.CONTRASTIVE_ONLY}
    (finetune,) = methods.schedules(config)
    plan = Pruning(None, 0.9, "magnitude", "uniform")
    same = {"nesterov": True, "pruning": plan}
    shifts = Augmentation(crop_padding=1)
    assert finetune == Schedule("finetune", shifts, 7, 12, 0.3, 0.9, **same)
    if learner == "SupCon":
        config = config_of(learner, **ONE_SHOT, finetune_loss="supcon", head_epochs=4)
        encoder, head = methods.schedules(config)
        assert (encoder.n_views, encoder.nesterov, encoder.pruning) == (2, True, plan)
        assert (head.epochs, head.nesterov, head.pruning) == (4, False, plan)
        rates = [encoder.learning_rate_at(progress) for progress in (0.0, 0.5, 0.99)]
        assert rates == [0.05] * 3


def schedules_of_preset(learner: str, preset: str, **changes: Any) -> list[Schedule]:
    """The schedules that scripts make from this preset's numbers."""
    config = recipes.NETWORK[preset] | recipes.TRAINING[learner][preset]
    config |= {"learner": learner, "preset": preset, "pruning_method": "dense", "sparsity": 0.0}
    config |= {"dataset": "cifar10", "momentum": recipes.MOMENTUM}
    return methods.schedules(config | {"base_temperature": recipes.BASE_TEMPERATURE} | changes)


def test_the_released_recipe_of_supervised_learning() -> None:
    """205 epochs of 391 steps, a tenth after 5, 30, 50 and 80 epochs; pruned from step 1,000 on to
    step 20,000 every 500."""
    steps = dict.fromkeys(("begin_step", "end_step", "frequency"))
    pruned = {"pruning_method": "GMP", "sparsity": 0.9, "allocation": "uniform", **steps}
    (schedule,) = schedules_of_preset("supervised", "paper", **pruned)
    assert (schedule.steps_per_epoch(50_000), schedule.n_steps(50_000)) == (391, 80_155)
    for epoch in range(205):
        falls = sum(epoch >= milestone for milestone in (5, 30, 50, 80))
        for step in (epoch * 391, epoch * 391 + 390):
            rate = schedule.learning_rate_at(step / 80_155)
            assert rate == pytest.approx(0.1**falls), (epoch, step)
    events = list(schedule.pruning_events(50_000))
    assert (len(events), events[0], events[1] - events[0]) == (39, 1002, 500)
    assert (schedule.nesterov, schedule.decays_weights_only) == (False, False)


def test_the_released_recipe_of_supcon() -> None:
    """500 epochs of 49 steps at one rate; the classifier's falls to a fifth at 60, 75 and 90 %."""
    encoder, head = schedules_of_preset("SupCon", "paper")
    assert (encoder.n_steps(50_000), encoder.learning_rate_at(0.99)) == (24_500, 0.05)
    assert encoder.collapsed_loss == pytest.approx(54.46, abs=0.005)
    rates = [head.learning_rate_at(epoch / 100) for epoch in (0, 59, 60, 74, 75, 89, 90, 99)]
    expected = [0.1, 0.1, 0.02, 0.02, 0.004, 0.004, 0.0008, 0.0008]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(
    ("learner", "peak"), [("supervised", (1.25, 25, 0.2)), ("SupCon", (6, 60, 0.25))]
)
def test_the_fast_recipe_warms_up_and_falls_as_a_half_cosine(
    learner: str, peak: tuple[float, int, float]
) -> None:
    warmup, epochs, highest = peak
    schedule = schedules_of_preset(learner, "fast")[0]
    for epoch in range(epochs):
        cosine = (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup))) / 2
        expected = highest * (epoch / warmup if epoch < warmup else cosine)
        assert schedule.learning_rate_at(epoch / epochs) == pytest.approx(expected, abs=1e-12)
    assert (schedule.nesterov, schedule.decays_weights_only) == (True, True)


# Augmentation


def all_views(config_of: ConfigOf, **changes: Any) -> dict[str, list[Augmentation]]:
    """The augmentations of every stage of both learners, in training and fine-tuning: those of
    contrastive stages, and the others."""
    found: dict[str, list[Augmentation]] = {"contrastive": [], "classification": []}
    for learner, kind, _ in KINDS:
        for schedule in methods.schedules(config_of(learner, **kind, **changes)):
            views = "contrastive" if schedule.n_views == 2 else "classification"
            found[views].append(schedule.augmentation)
    assert (len(found["contrastive"]), len(found["classification"])) == (2, 5)
    return found


@pytest.mark.parametrize("preset", recipes.NETWORK)
@pytest.mark.parametrize("dataset", ["digits", "svhn", "cifar10", "cifar100", "a/folder"])
def test_only_images_that_stay_what_they_are_are_mirrored(
    config_of: ConfigOf, preset: str, dataset: str
) -> None:
    """Numbers are never mirrored. No image is turned upside down."""
    is_number, draws = dataset in ("digits", "svhn"), torch.Generator().manual_seed(0)
    for views in all_views(config_of, preset=preset, dataset=dataset).values():
        for augmentation in views:
            drawn = augment.draw(augmentation, 500, 32, draws)
            if is_number or preset == "digits":
                assert drawn.flips is None or not drawn.flips.any()
            else:
                assert not drawn.flips[:, 0].any()
                assert 150 < int(drawn.flips[:, 1].sum()) < 350


@pytest.mark.parametrize(("image_size", "padding"), [(8, 1), (32, 4), (64, 8), (224, 28)])
def test_crops_are_padded_by_an_eighth_of_the_side_except_for_the_fast_classifier(
    config_of: ConfigOf, image_size: int, padding: int
) -> None:
    for preset in recipes.NETWORK:
        found = all_views(config_of, preset=preset, dataset="cifar10", image_size=image_size)
        of_head = 0 if preset == "fast" else padding
        assert {view.crop_padding for view in found["classification"]} == {padding, of_head}
        assert {view.crop_padding for view in found["contrastive"]} == {0}
        head = schedules_of_preset("SupCon", preset, dataset="cifar10", image_size=image_size)[1]
        assert head.augmentation.crop_padding == of_head


def test_the_released_quirk_flips_photographs_upside_down_where_they_are_classified(
    config_of: ConfigOf,
) -> None:
    photographs = {"preset": "paper", "dataset": "cifar10"}
    found = all_views(config_of, **photographs, released_quirks=True)
    plain = all_views(config_of, **photographs)
    assert found["contrastive"] == plain["contrastive"]
    assert {view.vertical_flip for view in plain["classification"]} == {0.0}
    flipped = [view._replace(vertical_flip=0.5) for view in plain["classification"]]
    assert found["classification"] == flipped


def test_contrastive_views_differ_more_than_classified_ones(config_of: ConfigOf) -> None:
    """The recipe of SupCon's authors: crops, colours, grey."""
    found = all_views(config_of, preset="paper", dataset="cifar10")
    by_the_authors = Augmentation((0.2, 1.0), 0, 0.5, 0.0, (0.4, 0.4, 0.4, 0.1), 0.8, 0.2)
    assert set(found["contrastive"]) == {by_the_authors}
    assert set(found["classification"]) == {Augmentation(crop_padding=4, horizontal_flip=0.5)}
