#!/bin/sh
# Sets up what is missing, and plays simulations of the delivery of messages on all cores. Prints the seeds that failed, each with the events before;
# exit code 1 when there is one. EI_SHOW_EVENTS=1 prints every event of a seed.
# Usage: tests/simulate.sh SEEDS [FIRST]   (FIRST: the first seed, default 1; "tests/simulate.sh 1 SEED" repeats one)
set -eu
[ $# -ge 1 ] || { sed -n 4p "$0" >&2; exit 2; }
cd "$(dirname "$0")/.."
PATH="$PATH:$HOME/.cargo/bin"
sh tests/setup.sh test
EI_SIMULATED_SEEDS=$1
EI_FIRST_SEED=${2:-1}
export EI_SIMULATED_SEEDS EI_FIRST_SEED
# Optimized, a seed takes an eighth of the time; everything is then compiled once more, which takes minutes.
if [ "$EI_SIMULATED_SEEDS" -gt 1000 ]; then
    CARGO_PROFILE_TEST_OPT_LEVEL=1
    export CARGO_PROFILE_TEST_OPT_LEVEL
fi
cargo test --locked --lib -- --nocapture simulation::every_message
