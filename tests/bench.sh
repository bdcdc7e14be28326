#!/bin/sh
# Sets up what is missing, builds the release binary, and prints its figures on this machine as tables, beside what the
# machine itself can do. About four minutes; --full takes every combination of sizes, colour and resize mode, about ten;
# unthrottled, live, studio, events, stages or times prints only this part.
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:$HOME/.cargo/bin"
sh tests/setup.sh test
exec cargo bench --locked --bench pipeline -- "$@"
