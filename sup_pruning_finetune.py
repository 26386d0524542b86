"""Prune dense supervised networks in one shot by global magnitude, then fine-tune them.

Reads and writes models/.

Example:
  python sup_pruning_finetune.py --dataset digits --models_number 10 --pruning_percentages 0.5,0.9
"""

import sys

from common import options, runtime


def main() -> int:
    args = options.pruning_finetune(__doc__, learner="supervised").parse_args()
    # Only now: torch takes seconds to import.
    from common.experiments import pruning_finetune

    return pruning_finetune.run(args)


if __name__ == "__main__":
    sys.exit(runtime.main(main))
