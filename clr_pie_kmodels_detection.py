"""Which test images do pruned SupCon networks forget?

Reads models/, writes pies/: PIEs, and with flags Q-Scores and UMAP.

Example:
  python clr_pie_kmodels_detection.py --dataset digits --models_number 10 --plot_q_score --plot_umap
"""

import sys

from common import options, runtime


def main() -> int:
    args = options.pie_detection(__doc__, learner="SupCon").parse_args()
    # Only now: torch takes seconds to import.
    from common.experiments import pie_detection

    return pie_detection.run(args)


if __name__ == "__main__":
    sys.exit(runtime.main(main))
