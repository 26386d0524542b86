"""Train SupCon networks: dense ones, or ones pruned gradually while they learn.

An encoder learns with the supervised contrastive loss, then a linear classifier on it.
Reads the data set, writes models/ and the curves in pies/.

Example:
  python clr_training.py --dataset digits --models_number 10 --pruning_percentages 0.0,0.9
"""

import sys

from common import options, runtime


def main() -> int:
    args = options.training(__doc__, learner="SupCon").parse_args()
    # Only now: torch takes seconds to import.
    from common.experiments import training

    return training.run(args)


if __name__ == "__main__":
    sys.exit(runtime.main(main))
