#!/usr/bin/env bash
# Set up the study; safe to run again.
#   bash setup.sh          makes the folders
#   bash setup.sh --demo   installs what is needed, then runs the whole study on digits
#   bash setup.sh --test   installs what is needed, then runs the linters and the fast tests;
#                          with --all behind it all tests, and their coverage
# Packages go into the active virtual environment or conda environment, else into .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

scaffold() {
    mkdir -p data models logs pies
    for dataset in cifar10 digits; do
        mkdir -p "models/$dataset" "logs/$dataset"
        for learner in supervised SupCon; do
            mkdir -p "pies/$dataset/$learner/"{pies_distribution,q_score,umap,prediction_depth}
        done
    done
}

install() { # install REQUIREMENTS… : only what is missing; sets $python
    if [ -n "${VIRTUAL_ENV:-}" ]; then
        python="$VIRTUAL_ENV/bin/python"
    elif [ -n "${CONDA_PREFIX:-}" ] && [ -x "$CONDA_PREFIX/bin/python" ]; then
        python="$CONDA_PREFIX/bin/python"
    else
        [ -x .venv/bin/python ] || python3 -m venv .venv
        python=".venv/bin/python"
    fi
    echo "installing what is missing of $* for $python"
    local arguments=()
    for file in "$@"; do arguments+=(-r "$file"); done
    "$python" -m pip install --quiet --disable-pip-version-check "${arguments[@]}"
}

study() { # study PREFIX : all experiments of one learning method, on digits
    local highest=0.97
    local common=(--dataset digits --models_number 10)
    # chained by &&, because set -e does not hold where the caller looks at the exit code
    "$python" "$1_training.py" "${common[@]}" &&
        "$python" "$1_training.py" "${common[@]}" \
            --pruning_method GMP --pruning_percentages $highest &&
        "$python" "$1_training.py" "${common[@]}" \
            --pruning_method later_GMP --pruning_percentages $highest &&
        "$python" "$1_pruning_finetune.py" "${common[@]}" \
            --pruning_percentages 0.5,0.9,$highest &&
        # the dense networks and the sparsest pruned ones once more, with other ids
        "$python" "$1_training.py" "${common[@]}" --index_start 10 &&
        "$python" "$1_pruning_finetune.py" "${common[@]}" --index_start 10 \
            --pruning_percentages $highest &&
        "$python" "$1_pie_kmodels_detection.py" "${common[@]}" --plot_q_score --plot_umap \
            --replicate_index_start 10 &&
        "$python" "$1_prediction_depth.py" "${common[@]}"
}

demo() {
    local started=$SECONDS failed=0 cores
    cores=$("$python" -c 'import os; print(os.cpu_count())')
    # Both learning methods at once, each on half of the cores.
    export OMP_NUM_THREADS=$((cores > 3 ? cores / 2 : 1))
    echo "running the whole study on digits, both learning methods at once (some minutes);"
    echo "this is SupCon, supervised writes to logs/digits/demo_supervised.log"
    study sup >logs/digits/demo_supervised.log 2>&1 &
    local supervised=$!
    study clr 2>&1 | tee logs/digits/demo_SupCon.log || failed=$?
    wait $supervised || { failed=$? && cat logs/digits/demo_supervised.log; }
    [ "$failed" = 0 ] || exit "$failed"
    echo
    "$python" -m common.report.summary pies/digits
    echo
    echo "tables and figures:"
    find pies/digits \( -name '*.csv' -o -name '*.png' \) -not -path '*/training/*' | sort
    echo "pies/digits/index.html  <- the page to look at"
    echo "loss and accuracy of every training: pies/digits/{supervised,SupCon}/training/*.png"
    echo
    echo "the study took $((SECONDS - started)) s on $cores CPU cores"
}

check() { # check [--all] ARGUMENTS-OF-PYTEST…
    local bin which=(-m "not slow" -n 2)
    if [ "${1:-}" = --all ]; then
        shift
        which=(--cov --cov-report=term --cov-fail-under=95)
    fi
    bin=$(dirname "$python")
    "$bin/ruff" check .
    "$bin/ruff" format --check .
    "$bin/lint-imports"
    "$python" -m pytest "${which[@]}" "$@"
}

case "${1:-}" in
    "" | --demo | --test) scaffold ;;
    *) echo "setup.sh: $1: give --demo, --test, or nothing" >&2 && exit 2 ;;
esac
case "${1:-}" in
    "") echo "made data, models, logs and pies; next: bash setup.sh --demo" ;;
    --demo) install requirements.txt && demo ;;
    --test) install requirements.txt tests/requirements.txt && shift && check "$@" ;;
esac
