"""What the whole study on CIFAR-10, the README's commands, would take at the measured rates."""

from __future__ import annotations

from typing import Any

N_TRAIN, N_TEST = 50_000, 10_000  # images of CIFAR-10
NETWORKS = 30  # of a population
TRAINED = 11  # populations of each learner: dense; GMP and later_GMP at 0.3, 0.5, 0.7, 0.9, 0.95
FINETUNED = 5  # populations of each learner: one-shot at the same sparsities
PROBED = 5  # networks of a population whose prediction depth is measured


def images() -> dict[str, int]:
    """How many images are augmented and learned from, contrastively (in views) and with
    cross-entropy, and how many only run forward: for classifiers, which learn for 100 epochs,
    accuracies, PIEs and probes."""
    populations = 2 * (TRAINED + FINETUNED)
    contrastive = NETWORKS * TRAINED * 500 * 2 * N_TRAIN
    supervised = NETWORKS * (TRAINED * 205 + 2 * FINETUNED * 30) * N_TRAIN
    forward = NETWORKS * TRAINED * 100 * N_TRAIN
    forward += NETWORKS * populations * (10 + 1) * N_TEST
    forward += PROBED * populations * (N_TRAIN + N_TEST)
    return {"contrastive": contrastive, "supervised": supervised, "forward": forward}


def hours(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Hours on this device by part, at the rates of the released ways and of ours; what is not
    counted (k-NN, files, figures) is small beside it."""
    rates = {row["stage"]: row for row in rows}
    stages = {
        "contrastive": "SupCon step with its data",
        "supervised": "supervised step with its data",
        "forward": "forward, fp32",
    }
    found = {}
    for side in ("released", "ours"):
        parts = {part: images()[part] / rates[stage][side] / 3600 for part, stage in stages.items()}
        found[side] = {
            part: round(h, 1) for part, h in (parts | {"all": sum(parts.values())}).items()
        }
    return found
