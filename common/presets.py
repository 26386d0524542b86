"""The numbers of the recipes: defaults of the flags, and what no flag changes.

`paper` is the recipe of arXiv 2207.00200 as released, its faults corrected; `digits` is small
enough that a whole study runs on two CPU cores in minutes. Milestones are fractions of the
training, so that they mean the same at every number of epochs.
"""

NETWORK = {
    "paper": {"model_depth": 16, "widen_factor": 2, "dropout": 0.0},
    "digits": {"model_depth": 10, "widen_factor": 1, "dropout": 0.0},
}
TRAINING = {
    "supervised": {
        "paper": {
            "epochs": 205,
            "batch_size": 128,
            "learning_rate": 1.0,
            "weight_decay": 5e-4,
            "cosine_annealing": False,
            "warmup_epochs": 0,
        },
        "digits": {
            "epochs": 15,
            "batch_size": 64,
            "learning_rate": 0.1,
            "weight_decay": 5e-4,
            "cosine_annealing": True,
            "warmup_epochs": 0,
        },
    },
    "SupCon": {
        "paper": {
            "epochs": 500,
            "batch_size": 1024,
            "learning_rate": 0.05,
            "weight_decay": 4e-4,
            "cosine_annealing": False,
            "warmup_epochs": 0,
            "temperature": 0.5,
            "head_epochs": 100,
            "batch_size_head": 256,
        },
        "digits": {
            "epochs": 15,
            "batch_size": 128,
            "learning_rate": 0.05,
            "weight_decay": 4e-4,
            "cosine_annealing": True,
            "warmup_epochs": 1,
            "temperature": 0.1,
            "head_epochs": 20,
            "batch_size_head": 128,
        },
    },
}
_FINETUNING = {
    "paper": {
        "epochs": 30,
        "batch_size": 128,
        "learning_rate": 1e-3,
        "pruning_percentages": [0.3, 0.5, 0.7, 0.9],
    },
    "digits": {
        "epochs": 5,
        "batch_size": 64,
        "learning_rate": 1e-2,
        "pruning_percentages": [0.5, 0.9, 0.97],
    },
}
_CONTRASTIVE = ("temperature", "head_epochs", "batch_size_head")
FINETUNING = {
    "supervised": _FINETUNING,
    "SupCon": {
        preset: flags | {name: TRAINING["SupCon"][preset][name] for name in _CONTRASTIVE}
        for preset, flags in _FINETUNING.items()
    },
}
# The released normalisation of CIFAR-10; its first std swaps two digits of 0.2470.
RELEASED_MEAN = (0.4915, 0.4823, 0.4468)
RELEASED_STD = (0.2047, 0.2435, 0.2616)
# Where the learning rate falls: the released epochs 5/30/50/80 of 205 (times 0.1 each), and for
# SupCon's classifier 60/75/90 of 100 (times 0.2).
SUPERVISED_MILESTONES = (5 / 205, 30 / 205, 50 / 205, 80 / 205)
SUPERVISED_GAMMA = 0.1
HEAD_MILESTONES = (0.60, 0.75, 0.90)
HEAD_GAMMA = 0.2
HEAD_LEARNING_RATE = 0.1
HEAD_MOMENTUM = 0.9
FINETUNING_MOMENTUM = 0.9
