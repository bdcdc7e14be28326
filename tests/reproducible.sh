#!/usr/bin/env bash
# Shows that the package can be built again: builds the release of the current commit twice, in directories of different
# names, with different homes of cargo, umasks, time zones and languages, one after the other, and compares every byte of
# the archives, the binary in them included. This takes as long as two release builds, so tests/run.sh does not run it.
#
#   tests/reproducible.sh [PACKAGE-OPTION]...
#
# The options go to artifacts/package.sh, for example --target aarch64 --sysroot build/sysroot-arm64.
# REPRODUCIBLE_KEEP=DIRECTORY in the environment keeps the archives there.
#
# Prints the sums of both archives. Ends with 0 if they are equal, with 1 if they are not (it then names the files that
# differ), and with 2 if one cannot be built.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
PATH="$PATH:${HOME:-/root}/.cargo/bin"
case ${1:-} in
--help | -h)
    sed -n '2,/^set /{ s/^# \{0,1\}//p; }' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac

refuse() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# In the target directory: two builds need some gigabytes, and hard links to the crates need the same disk as them.
mkdir -p "$root/target"
scratch=$(mktemp -d "$root/target/reproducible.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
one=$scratch/one
two=$scratch/a/directory/with/another/name

# A clone of the commit, with the tools of this one.
prepare() {
    git clone --quiet "$root" "$1" || refuse "the repository cannot be cloned"
    mkdir -p "$1/target"
    [[ ! -d $root/target/tools ]] || ln -s "$root/target/tools" "$1/target/tools"
}

# build DIRECTORY VARIABLE... -- OPTION...: the archive of a clone.
build() {
    local directory=$1 variables=() begun=$SECONDS
    shift
    while [[ $1 != -- ]]; do
        variables+=("$1")
        shift
    done
    shift
    env "${variables[@]}" "$directory/artifacts/package.sh" --release "$directory/build/release" "$@" >"$directory.log" 2>&1 ||
        { tail -n 30 "$directory.log" >&2; refuse "the build in $directory failed"; }
    printf 'reproducible: built in %s in %s s\n' "$directory" $((SECONDS - begun))
    # Its gigabytes are not needed any more.
    rm -rf "$directory/target"
}

cd "$root"
options=()
for option in "$@"; do
    # The clones are elsewhere.
    [[ ! -e $option ]] || option=$(realpath "$option")
    options+=("$option")
done
prepare "$one"
prepare "$two"
cargo_home=${CARGO_HOME:-$HOME/.cargo}
mkdir "$scratch/cargo"
for part in "$cargo_home"/registry "$cargo_home"/config.toml; do
    [[ ! -e $part ]] || cp -al "$part" "$scratch/cargo/" 2>/dev/null || cp -a "$part" "$scratch/cargo/"
done
(umask 022 && build "$one" TZ=UTC LC_ALL=C -- ${options[@]+"${options[@]}"})
(umask 077 && build "$two" TZ=Asia/Tokyo LC_ALL=C.UTF-8 CARGO_HOME="$scratch/cargo" -- ${options[@]+"${options[@]}"})

[[ -z ${REPRODUCIBLE_KEEP:-} ]] || { mkdir -p "$REPRODUCIBLE_KEEP" && cp "$one"/build/release/* "$REPRODUCIBLE_KEEP/"; }
status=0
for archive in "$one"/build/release/*.tar.gz; do
    other=$two/build/release/$(basename "$archive")
    sha256sum "$archive" "$other" | sed "s|$scratch/||"
    cmp -s "$archive" "$other" || {
        status=1
        for side in one two; do
            mkdir -p "$scratch/$side-open"
            tar -xzf "${!side}/build/release/$(basename "$archive")" -C "$scratch/$side-open"
        done
        diff -rq "$scratch/one-open" "$scratch/two-open" | sed "s|$scratch/||g" || true
        echo "reproducible: FAILED: $(basename "$archive") differs"
    }
done
((status != 0)) || echo "reproducible: passed: both builds gave the same bytes"
exit "$status"
