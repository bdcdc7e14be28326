#!/bin/sh
# Installs what building and testing needs on Debian or Ubuntu, and does nothing where everything is there.
# Usage: tests/setup.sh [build|demo|test]   (build: the compiler and its libraries; demo: and what runs; test: and what tests)
set -eu

packages="pkg-config gcc libc6-dev libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev"
plugins="gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
case ${1:-test} in
    build) ;;
    demo) packages="$packages $plugins" ;;
    test) packages="$packages $plugins mosquitto chromium shellcheck" ;;
    *) echo "'$1' is not known; accepted: build, demo, test" >&2; exit 2 ;;
esac

# rustup installs here; a fresh shell may not have it on its PATH yet.
PATH="$PATH:$HOME/.cargo/bin"
command -v cargo >/dev/null || { echo "Rust is needed: see https://rustup.rs, then run this again." >&2; exit 1; }

missing=""
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

root=""
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "As root, install:$missing" >&2; exit 1; }
    root=sudo
fi
echo "Installing:$missing"
$root apt-get update -qq
# shellcheck disable=SC2086 # a list of words
$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
case "$missing" in
    # Debian starts a broker on port 1883 when the package is installed. The tests start their own on a free port.
    *mosquitto*) if command -v systemctl >/dev/null; then $root systemctl disable --now mosquitto >/dev/null 2>&1 || true; fi ;;
esac
