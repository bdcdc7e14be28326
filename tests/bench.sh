#!/bin/sh
# Sets up what is missing, builds the release binary, and prints its figures on this machine as a table.
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:$HOME/.cargo/bin"
sh tests/setup.sh test
exec cargo bench --locked --bench pipeline
