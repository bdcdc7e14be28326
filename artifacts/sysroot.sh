#!/bin/sh
# Makes a sysroot for building the component for another machine or an older system: a directory
# with the C library and GStreamer of an old Debian release. The binary then runs with that
# release's glibc and every newer one (bullseye: 2.31, which is JetPack 5's; JetPack 6 has 2.35).
#
#   artifacts/sysroot.sh [--arch arm64|armhf|amd64] [--suite NAME] [--mirror URL] DIRECTORY
#
# Packages are downloaded and unpacked into DIRECTORY with an apt configuration of its own; nothing
# is installed and the machine's package lists stay as they are. Needs apt-get, dpkg-deb and Debian's
# archive keys (Debian, or Ubuntu with the package debian-archive-keyring); no root.
#
# Example:
#   artifacts/sysroot.sh build/sysroot-arm64
#   artifacts/package.sh my-bucket --target aarch64-unknown-linux-gnu --sysroot build/sysroot-arm64
set -eu

KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
# gstreamer1.0-plugins-base is for running the result under qemu-user; linking needs the others.
PACKAGES="libc6-dev libgcc-s1 libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
  gstreamer1.0-plugins-base"

arch=arm64
suite=bullseye
mirror=http://deb.debian.org/debian
directory=

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        sed -n '2,/^set /{ s/^# \{0,1\}//p; }' "$0"
        exit 0
        ;;
    --arch | --suite | --mirror)
        [ $# -ge 2 ] || fail "$1 needs a value"
        case $1 in
        --arch) arch=$2 ;;
        --suite) suite=$2 ;;
        --mirror) mirror=$2 ;;
        esac
        shift
        ;;
    -*) fail "unknown option $1; see --help" ;;
    *)
        [ -z "$directory" ] || fail "one directory, please: $directory or $1"
        directory=$1
        ;;
    esac
    shift
done

[ -n "$directory" ] || fail "which directory? See --help"
case $arch in
arm64 | armhf | amd64) ;;
*) fail "--arch '$arch' is unknown; accepted: arm64, armhf, amd64" ;;
esac
case $suite in
'' | *[!a-z-]*) fail "--suite '$suite' is no Debian suite, such as bullseye or bookworm" ;;
esac
for tool in apt-get dpkg-deb realpath; do
    command -v "$tool" >/dev/null 2>&1 || fail "$tool is missing: run this on Debian or Ubuntu"
done
[ -r "$KEYRING" ] || fail "$KEYRING is missing: apt-get install debian-archive-keyring"

mkdir -p "$directory"
directory=$(cd "$directory" && pwd -P)
case $directory in
/ | *[[:space:]]*) fail "'$directory' cannot be a sysroot: not / and without white space" ;;
esac

state=$directory/.apt
mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
: >"$state/status"
printf 'deb [signed-by=%s] %s %s main\n' "$KEYRING" "$mirror" "$suite" >"$state/sources.list"

private_apt() {
    apt-get -qq -y \
        -o APT::Architecture="$arch" -o APT::Architectures="$arch" \
        -o Dir::Etc::sourcelist="$state/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State::lists="$state/lists" -o Dir::State::status="$state/status" \
        -o Dir::Cache="$state/cache" -o Acquire::Languages=none \
        -o Acquire::Check-Valid-Until=false -o Acquire::Retries=3 \
        -o Debug::NoLocking=1 "$@"
}

printf 'sysroot: package lists of %s %s\n' "$suite" "$arch"
private_apt update
printf 'sysroot: downloading\n'
# shellcheck disable=SC2086 # the packages are words
private_apt --no-install-recommends --download-only install $PACKAGES

count=0
for package in "$state"/cache/archives/*.deb; do
    dpkg-deb -x "$package" "$directory"
    count=$((count + 1))
done
# Releases whose packages put everything under /usr: libc.so still names /lib.
[ -e "$directory/lib" ] || ln -s usr/lib "$directory/lib"

# An absolute link would lead out of the sysroot to this machine's own files.
find "$directory" -path "$state" -prune -o -type l -lname '/*' -print | while IFS= read -r link; do
    target=$directory$(readlink "$link")
    ln -sfn "$(realpath -ms --relative-to="$(dirname "$link")" "$target")" "$link"
done
rm -rf "$state"
printf 'sysroot: %s packages of %s %s in %s\n' "$count" "$suite" "$arch" "$directory"
