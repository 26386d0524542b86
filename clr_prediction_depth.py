"""How deep in SupCon networks are test images decided, and are PIEs decided later?

Reads models/, writes pies/.

Example:
  python clr_prediction_depth.py --dataset digits --models_number 10
"""

import sys

from common import options, runtime


def main() -> int:
    args = options.prediction_depth(__doc__, learner="SupCon").parse_args()
    # Only now: torch takes seconds to import.
    from common.experiments import prediction_depth

    return prediction_depth.run(args)


if __name__ == "__main__":
    sys.exit(runtime.main(main))
