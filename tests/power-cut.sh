#!/bin/sh
# Sets up what is missing, records the program, and starts it after many simulated power cuts. Prints how many there were; exit code 1 when
# one of them lost something.
# Usage: tests/power-cut.sh [STATES [STARTS [SEED]]]   (default: 5000 states, 40 starts of the program, a random seed, which is printed)
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:$HOME/.cargo/bin"
sh tests/setup.sh test
POWER_CUT_STATES=${1:-5000}
POWER_CUT_STARTS=${2:-40}
POWER_CUT_SEED=${3:-$(date +%s)}
export POWER_CUT_STATES POWER_CUT_STARTS POWER_CUT_SEED
echo "States: $POWER_CUT_STATES, starts: $POWER_CUT_STARTS, seed: $POWER_CUT_SEED"
cargo test --locked --test integration power_cut -- --nocapture
