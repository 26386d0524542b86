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

# The demo: the whole study on digits. Two workers, each with its own log and half of the cores.

run() { # run WORKER STEP SCRIPT FLAGS… : one script on digits, its output in the worker's log
    local worker=$1 step=$2 code
    shift 2
    echo "$step" >"logs/digits/demo_$worker.step"
    while true; do
        code=0
        "$python" "$1" --dataset digits --models_number 10 "${@:2}" \
            >>"logs/digits/demo_$worker.log" 2>&1 || code=$?
        [ "$code" = 8 ] || break # 8: the other worker makes the last of these networks
        sleep 1
    done
    rm "logs/digits/demo_$worker.step"
    return "$code"
}

networks() { # networks WORKER PREFIX : all networks of one learner
    local worker=$1 train=$2_training.py finetune=$2_pruning_finetune.py highest=0.97
    # chained by &&, because set -e does not hold where the caller looks at the exit code
    # 20 of those that PIE detection compares with replicates, 10 of the others
    run "$worker" "dense" "$train" --models_number 20 &&
        run "$worker" "GMP" "$train" --pruning_percentages $highest --pruning_method GMP &&
        run "$worker" "later GMP" "$train" --pruning_percentages $highest \
            --pruning_method later_GMP &&
        run "$worker" "one-shot $highest" "$finetune" --pruning_percentages $highest \
            --models_number 20 &&
        run "$worker" "one-shot" "$finetune" --pruning_percentages 0.5,0.9
}

help() { # with the networks of SupCon that are still missing
    [ "$(count models/digits 'SupCon_*_head.pt')" -ge 80 ] || networks 1 clr
}

pies() { # pies WORKER PREFIX
    run "$1" "PIEs of $2" "$2_pie_kmodels_detection.py" --plot_q_score --plot_umap \
        --replicate_index_start 10 && touch "logs/digits/demo_pies_$2.done"
}

depths() { # depths WORKER PREFIX
    run "$1" "depths of $2" "$2_prediction_depth.py" && touch "logs/digits/demo_depths_$2.done"
}

count() { # count FOLDER PATTERN… : files of any of these names
    local folder=$1 names=(-false)
    shift
    for pattern in "$@"; do names+=(-o -name "$pattern"); done
    find "$folder" -maxdepth 1 \( "${names[@]}" \) | wc -l
}

work_done() { # in fine-tunings of one network, which all take about the same time
    local models=models/digits
    echo $((3 * $(count $models 'supervised_dense_*' 'supervised_*GMP_*') +
        4 * $(count $models 'SupCon_dense_*_head.pt' 'SupCon_*GMP_*_head.pt') +
        $(count $models 'supervised_global_*' 'SupCon_global_*_head.pt') +
        15 * $(count logs/digits 'demo_*.done')))
}

progress() { # progress STARTED WORK-AT-THE-START : what both workers are at, and how long it takes
    local now left=$((420 - $(work_done))) spent=$((SECONDS - $1)) remaining="" line step
    now=$((420 - left - $2))
    [ $now -le 8 ] || remaining="; about $(((spent * left / now + 30) / 60)) min left"
    line="$((spent / 60)):$(printf %02d $((spent % 60)))"
    line+=" | supervised: $(count models/digits 'supervised_*.pt') of 80 networks"
    line+=" | SupCon: $(count models/digits 'SupCon_*_head.pt') of 80"
    # between two steps there may be no file
    step=$(cat logs/digits/demo_*.step 2>/dev/null | paste -sd+ | sed 's/+/ and /' || true)
    line+="${step:+ | now $step}$remaining"
    if [ -t 1 ]; then printf '\r\033[K%s' "$line"; else echo "$line"; fi
}

demo() {
    local started=$SECONDS cores before first second failed=0
    cores=$("$python" -c 'import os; print(os.cpu_count())')
    export OMP_NUM_THREADS=$((cores > 3 ? cores / 2 : 1))
    rm -f logs/digits/demo_*
    before=$(work_done)
    echo "the whole study on digits: 160 networks, then their analyses (logs/digits/demo_*.log)"
    # SupCon takes longer: the first worker helps with it, then each analyses its own networks.
    { networks 1 sup && help && pies 1 sup && depths 1 sup; } &
    first=$!
    { networks 2 clr && pies 2 clr && depths 2 clr; } &
    second=$!
    while kill -0 $first 2>/dev/null || kill -0 $second 2>/dev/null; do
        sleep 1
        [ $(((SECONDS - started) % 5)) != 0 ] || progress "$started" "$before"
    done
    for worker in "$first" "$second"; do wait "$worker" || failed=$?; done
    echo
    if [ "$failed" != 0 ]; then
        tail -n 3 logs/digits/demo_*.log >&2
        exit "$failed"
    fi
    "$python" -m common.report.summary pies/digits
    echo
    echo "the page to look at: file://$PWD/pies/digits/index.html"
    echo "the study took $((SECONDS - started)) s on $cores CPU cores"
}

check() { # check [--all] ARGUMENTS-OF-PYTEST…
    local bin which=(-m "not slow")
    if [ "${1:-}" = --all ]; then
        shift
        which=(--cov --cov-report=term --cov-fail-under=95)
    fi
    bin=$(dirname "$python")
    "$bin/ruff" check .
    "$bin/ruff" format --check .
    "$bin/lint-imports"
    "$python" -m pytest -n 2 "${which[@]}" "$@" # -n 0 behind it: in one process
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
