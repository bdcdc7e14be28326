#!/bin/sh
# Sets up what is missing, builds, and runs all tests of the default run. Arguments go to `cargo test`.
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:$HOME/.cargo/bin"
sh tests/setup.sh test
# Most tests wait for a process, a socket or a clock: twice as many as cores run at once.
RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}
export RUST_TEST_THREADS
# Both parts run, whatever the first one finds.
status=0
cargo test --locked --workspace --no-fail-fast "$@" || status=$?
sh tests/artifacts/run.sh || status=$?
exit "$status"
