#!/bin/sh
# Mutation testing: changes one place of the code after the other and runs the tests of that part, which must fail. Prints the changes that no test
# notices ("MISSED"). Needs cargo-mutants (cargo install cargo-mutants --locked). Works in a copy below target/, with what is built there already.
# Usage: tests/mutants.sh AREA [K/N]   (AREA: report, uplink, cache or config; K/N: every Nth change, from the Kth on, counted from 0)
set -eu
[ $# -ge 1 ] || { sed -n 4p "$0" >&2; exit 2; }
cd "$(dirname "$0")/.."
PATH="$PATH:$HOME/.cargo/bin"
area=$1
shard=${2:-0/1}
# The tests that must notice: those of the part; for the uplink also some simulations.
case $area in
report) set -- report:: ;;
uplink) set -- uplink:: simulation::every_message ;;
cache) set -- cache:: ;;
config) set -- config:: ;;
*) sed -n 4p "$0" >&2; exit 2 ;;
esac
copy=target/mutants
mkdir -p "$copy/target/debug"
tar -c --exclude=./target --exclude=./build --exclude=./.git . | tar -x -C "$copy"
if [ ! -d "$copy/target/debug/deps" ] && [ -d target/debug/deps ]; then
    cp -a --reflink=auto target/debug/build target/debug/.fingerprint target/debug/deps "$copy/target/debug/"
fi
# Quick builds: no debug information, and only what has changed is compiled again.
CARGO_PROFILE_DEV_DEBUG=0
CARGO_INCREMENTAL=1
EI_SIMULATED_SEEDS=${EI_SIMULATED_SEEDS:-8}
export CARGO_PROFILE_DEV_DEBUG CARGO_INCREMENTAL EI_SIMULATED_SEEDS
cd "$copy"
exec cargo mutants --in-place --baseline=skip --timeout 180 --build-timeout 900 --file "src/$area/**" --shard "$shard" --sharding round-robin \
    --output target --cargo-arg=--locked -- --lib -- "$@"
