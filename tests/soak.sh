#!/bin/sh
# Sets up what is missing, builds the release binary, and breaks something around it again and again. Prints a table while it
# runs, and at the end a table of faults and a verdict; exit code 1 when something was lost or grew.
# Usage: tests/soak.sh [MINUTES [SEED]]
#            random faults at full speed (default: 60 minutes, a random seed, which is printed)
#        tests/soak.sh day --compressed [MINUTES [SEED]]
#            24 hours of a device with a camera, in so many minutes (default: 36)
#        tests/soak.sh day [HOURS [SEED]]
#            the same in real time (default: 24 hours)
#        tests/soak.sh outage [TIMES]
#            memory before, during and after outages of 20 s at full speed (default: 3)
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:$HOME/.cargo/bin"
sh tests/setup.sh test
# The program is the release build; the harness around it needs no optimization.
# SOAK_BINARY: another binary than that of this clone.
if [ -z "${SOAK_BINARY:-}" ]; then
    cargo build --locked --release
    SOAK_BINARY=${CARGO_TARGET_DIR:-$PWD/target}/release/ei-greengrass
fi
export SOAK_BINARY
cargo test --locked --bench soak --no-run
# A group of its own, so that nothing outlives this script however the soak ends.
setsid cargo test --quiet --locked --bench soak -- "$@" &
group=$!
trap 'kill -INT -- "-$group" 2>/dev/null' INT TERM
status=0
wait "$group" || status=$?
# A signal interrupts the wait: the tables are still to come.
while kill -0 "$group" 2>/dev/null; do wait "$group" || status=$?; done
kill -KILL -- "-$group" 2>/dev/null || true
exit "$status"
