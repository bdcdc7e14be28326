#!/bin/sh
# Sets up what is missing, builds, and runs all tests of the default run. Arguments go to `cargo test`.
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:$HOME/.cargo/bin"
sh tests/setup.sh test
# Most tests wait for a process, a socket or a clock: twice as many as cores run at once.
RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}
export RUST_TEST_THREADS
kept=$(mktemp -d)
trap 'rm -rf "$kept"' EXIT
trap 'exit 143' TERM INT HUP
# Both parts run, whatever the first one finds.
status=0
{ cargo test --locked --workspace --no-fail-fast "$@" 2>&1 || touch "$kept/failed"; } | tee "$kept/output"
sh tests/artifacts/run.sh || status=$?
# Thousands of lines may lie between a failure and the end of the output.
if [ -e "$kept/failed" ]; then
  status=1
  echo "cargo test failed:"
  grep -A 3 "^thread '.* panicked at\|^error" "$kept/output" || true
fi
exit "$status"
