"""The time that the whole study on CIFAR-10 (the README's commands) takes at measured rates."""

from __future__ import annotations

from typing import Any

from common import recipes

N_TRAIN, N_TEST = 50_000, 10_000  # images of CIFAR-10
NETWORKS = 30  # of a population
TRAINED = 11  # populations of each learner: dense; GMP and later_GMP at 0.3, 0.5, 0.7, 0.9, 0.95
FINETUNED = 5  # populations of each learner: one-shot at the same sparsities
PROBED = 5  # networks of a population whose prediction depth is measured


def images(preset: str = "paper") -> dict[str, int]:
    """How many images are augmented and learned from, contrastively (in views) and with
    cross-entropy, and how many only run forward: for classifiers, accuracies, PIEs and probes."""
    supcon, supervised = (recipes.TRAINING[name][preset] for name in ("SupCon", "supervised"))
    finetuning = sum(of_learner[preset]["epochs"] for of_learner in recipes.FINETUNING.values())
    populations = 2 * (TRAINED + FINETUNED)
    epochs = TRAINED * supervised["epochs"] + FINETUNED * finetuning
    forward = NETWORKS * TRAINED * supcon["head_epochs"] * N_TRAIN
    forward += NETWORKS * populations * (10 + 1) * N_TEST
    forward += PROBED * populations * (N_TRAIN + N_TEST)
    return {
        "contrastive": NETWORKS * TRAINED * supcon["epochs"] * 2 * N_TRAIN,
        "supervised": NETWORKS * epochs * N_TRAIN,
        "forward": forward,
    }


def hours(rows: list[dict[str, Any]], precision: str) -> dict[str, dict[str, float]]:
    """Hours of the paper's recipe on this device by part, at the rates of the released ways and of
    ours with this precision. Not counted: the augmentation of a classifier's views, k-NN, files,
    figures."""
    rates = {row["stage"]: row for row in rows}
    found = {}
    for side in ("released", "ours"):

        def seconds(part: str, stage: str, side: str = side) -> float:
            return images()[part] / rates[stage][side]

        parts = {
            "contrastive": seconds("contrastive", f"SupCon step with its data, {precision}"),
            "supervised": seconds("supervised", f"supervised step with its data, {precision}"),
            "forward": seconds("forward", "forward, fp32"),
        }
        parts["all"] = sum(parts.values())
        found[side] = {part: round(value / 3600, 1) for part, value in parts.items()}
    return found
