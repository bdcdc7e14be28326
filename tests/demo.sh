#!/bin/sh
# Sets up what is missing, builds, and runs the demo. Arguments go to `ei-greengrass demo`.
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:$HOME/.cargo/bin"
sh tests/setup.sh demo
echo "Building; the first time this takes some minutes."
exec cargo run --locked -- demo "$@"
