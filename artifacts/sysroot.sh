#!/bin/sh
# Makes a sysroot, to build the component for another architecture or an older system: a directory
# with the C library and GStreamer of an old Debian release. The binary then runs with the glibc of
# that release and with every newer one (bullseye has 2.31, as JetPack 5; JetPack 6 has 2.35).
#
#   artifacts/sysroot.sh [--arch arm64|armhf|amd64] [--suite NAME] [--mirror URL] DIRECTORY
#
# Packages are downloaded and unpacked into DIRECTORY with a separate apt configuration. Nothing is
# installed, and the package lists of this machine do not change. Needs apt-get, dpkg-deb and the keys
# of Debian's archive (Debian, or Ubuntu with the package debian-archive-keyring), but no root.
#
# Example:
#   artifacts/sysroot.sh build/sysroot-arm64
#   artifacts/package.sh my-bucket --target aarch64-unknown-linux-gnu --sysroot build/sysroot-arm64
set -eu

KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
# gstreamer1.0-plugins-base is needed to run the result under qemu-user, the others are needed to link.
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
        [ -z "$directory" ] || fail "only one directory is accepted: $directory or $1"
        directory=$1
        ;;
    esac
    shift
done

[ -n "$directory" ] || fail "the directory is missing; see --help"
case $arch in
arm64 | armhf | amd64) ;;
*) fail "--arch '$arch' is unknown; accepted: arm64, armhf, amd64" ;;
esac
case $suite in
'' | *[!a-z-]*) fail "--suite '$suite' is not a Debian suite, for example bullseye or bookworm" ;;
esac
for tool in apt-get dpkg-deb realpath; do
    command -v "$tool" >/dev/null 2>&1 || fail "$tool is missing: run this on Debian or Ubuntu"
done
[ -r "$KEYRING" ] || fail "$KEYRING is missing: apt-get install debian-archive-keyring"

mkdir -p "$directory"
directory=$(cd "$directory" && pwd -P)
case $directory in
/ | *[[:space:]]*) fail "'$directory' cannot be a sysroot; accepted: a directory other than /, without white space in its path" ;;
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
# In newer releases the packages put everything under /usr, but libc.so still names /lib.
[ -e "$directory/lib" ] || ln -s usr/lib "$directory/lib"

# An absolute link would point out of the sysroot, to files of this machine.
find "$directory" -path "$state" -prune -o -type l -lname '/*' -print | while IFS= read -r link; do
    target=$directory$(readlink "$link")
    ln -sfn "$(realpath -ms --relative-to="$(dirname "$link")" "$target")" "$link"
done
rm -rf "$state"
printf 'sysroot: %s packages of %s %s in %s\n' "$count" "$suite" "$arch" "$directory"
