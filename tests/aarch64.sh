#!/usr/bin/env bash
# Builds the component for aarch64 as a person would for a Jetson, and runs the result under
# emulation: the demo publishes through a real Mosquitto. Takes from 10 to 40 minutes, so it is no
# part of tests/run.sh.
#
#   tests/aarch64.sh [--sysroot DIRECTORY] [--jobs N]
#
#   --sysroot DIRECTORY  a sysroot that artifacts/sysroot.sh made before; default: made anew in
#                        the target directory, from Debian 11 (glibc 2.31, as JetPack 5 has)
#   --jobs N             how many compilers run at a time; default: cargo's own
#
# Needs Debian or Ubuntu and Rust; installs what is missing (sudo when you are not root). Rust's
# standard library for aarch64 comes from "rustup target add". Where that cannot be had, put
# Rust's source of exactly the compiler's version where the toolchain looks for it,
# "$(rustc --print sysroot)/lib/rustlib/src/rust" ("rustup component add rust-src", or Debian's
# package rust-src); it is then built along (-Zbuild-std), and EI_BUILD_STD=yes asks for that in
# any case.
#
# Prints what it saw, one line each; ends with 0 when everything was as it must be, 1 when
# something was not, 2 when it could not be tried.
set -euo pipefail

readonly TRIPLE=aarch64-unknown-linux-gnu
readonly MULTIARCH=aarch64-linux-gnu
# What the README promises: JetPack 5's C library, and the size of the stripped binary.
readonly GLIBC=2.31
readonly LIMIT=$((15 * 1000 * 1000))
readonly MESSAGES=5
# Seconds: to the broker's first answer, and to that many messages of an emulated program.
readonly BROKER_WAIT=10
readonly DEMO_WAIT=120

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
PATH="$PATH:$HOME/.cargo/bin:/usr/sbin"
sysroot=
processes=()
scratch=$(mktemp -d)

fail() {
    printf 'aarch64: FAILED: %s\n' "$*" >&2
    exit 1
}

refuse() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

saw() {
    printf 'aarch64: %s\n' "$*"
}

# shellcheck disable=SC2317 # called at the end
clean_up() {
    local process
    for process in ${processes[@]+"${processes[@]}"}; do
        kill "$process" 2>/dev/null || true
    done
    wait
    rm -rf "$scratch"
}
trap clean_up EXIT

parse_arguments() {
    while (($# > 0)); do
        case $1 in
        --help | -h)
            sed -n '2,/^set /{ s/^# \{0,1\}//p; }' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        --sysroot | --jobs)
            (($# >= 2)) || refuse "$1 needs a value; see --help"
            case $1 in
            --sysroot) sysroot=$2 ;;
            --jobs) export CARGO_BUILD_JOBS=$2 ;;
            esac
            shift
            ;;
        *) refuse "unknown argument $1; see --help" ;;
        esac
        shift
    done
}

# ------------------------------------------------------------------------------------------- tools

install_tools() {
    local package missing=() as_root=()
    command -v apt-get >/dev/null || refuse "this needs Debian or Ubuntu"
    command -v cargo >/dev/null || refuse "Rust is needed: see https://rustup.rs, then run this again"
    for package in pkg-config gcc libc6-dev "gcc-$MULTIARCH" "libc6-dev-arm64-cross" qemu-user-static \
        mosquitto mosquitto-clients debian-archive-keyring; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing+=("$package")
    done
    ((${#missing[@]} > 0)) || return 0
    if (($(id -u) != 0)); then
        command -v sudo >/dev/null || refuse "as root, install: ${missing[*]}"
        as_root=(sudo)
    fi
    saw "installing ${missing[*]}"
    ${as_root[@]+"${as_root[@]}"} apt-get update -qq
    ${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
    # Debian starts a broker on port 1883 when the package is installed; this script starts its own.
    if [[ " ${missing[*]} " == *" mosquitto "* ]] && command -v systemctl >/dev/null; then
        ${as_root[@]+"${as_root[@]}"} systemctl disable --now mosquitto >/dev/null 2>&1 || true
    fi
}

# package.sh builds the standard library itself where there is none but its source.
provide_standard_library() {
    local library
    library=$(rustc --print sysroot)/lib/rustlib
    if [[ ${EI_BUILD_STD:-no} == yes ]]; then
        saw "standard library: from source, because EI_BUILD_STD is yes"
    elif [[ -d $library/$TRIPLE ]]; then
        saw "standard library: $library/$TRIPLE"
        return
    elif command -v rustup >/dev/null && rustup target add "$TRIPLE" >"$scratch/rustup" 2>&1 &&
        [[ -d $library/$TRIPLE ]]; then
        saw "standard library: from rustup"
        return
    fi
    [[ -d $library/src/rust/library/std ]] || {
        [[ ! -e $scratch/rustup ]] || cat "$scratch/rustup" >&2
        refuse "no standard library for $TRIPLE: neither rustup's nor Rust's source in $library/src/rust; see --help"
    }
    saw "standard library: built from $library/src/rust"
}

# ------------------------------------------------------------------------------------------- build

# Sets $binary.
build() {
    local begun=$SECONDS
    # Own and persistent: neither a native build nor this one costs the other anything.
    CARGO_TARGET_DIR=$(cargo_target)/aarch64
    export CARGO_TARGET_DIR
    if [[ -z $sysroot ]]; then
        sysroot=$CARGO_TARGET_DIR/sysroot
        [[ -d $sysroot/usr/lib/$MULTIARCH/pkgconfig ]] || "$root/artifacts/sysroot.sh" --arch arm64 "$sysroot"
    fi
    "$root/artifacts/package.sh" any-bucket --target aarch64 --sysroot "$sysroot" --out "$scratch/out" >"$scratch/package.log" ||
        { tail -n 20 "$scratch/package.log" >&2; fail "the build"; }
    binary=$(echo "$scratch"/out/artifacts/*/*/aarch64/ei-greengrass)
    saw "built and packaged in $((SECONDS - begun)) s"
}

cargo_target() {
    (cd "$root" && cargo metadata --no-deps --format-version 1 --locked) |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

check_binary() {
    local size needs
    size=$(wc -c <"$binary")
    needs=$("$MULTIARCH-objdump" -T "$binary" | grep -o 'GLIBC_2[0-9.]*' | sort -uV | tail -n 1)
    needs=${needs#GLIBC_}
    saw "binary: $size bytes stripped, runs on glibc $needs and newer"
    ((size < LIMIT)) || fail "the binary has $size bytes, $LIMIT are promised"
    [[ $(printf '%s\n%s\n' "$needs" "$GLIBC" | sort -V | tail -n 1) == "$GLIBC" ]] ||
        fail "the binary needs glibc $needs; JetPack 5 has $GLIBC"
}

# --------------------------------------------------------------------------------------------- run

# Runs an arm64 program with the sysroot's libraries and GStreamer plugins. GStreamer's plugin
# scanner is an arm64 program too, which this machine cannot start by itself: plugins are looked at
# in process.
emulated() {
    exec env GST_PLUGIN_SYSTEM_PATH_1_0="$sysroot/usr/lib/$MULTIARCH/gstreamer-1.0" \
        GST_REGISTRY_1_0="$scratch/registry" GST_REGISTRY_FORK=no HOME="$scratch" \
        qemu-aarch64-static -L "$sysroot" "$@"
}

check_start() {
    local version library
    version=$(emulated "$binary" --version) || fail "the binary does not start under emulation"
    library=$(emulated "$sysroot/lib/$MULTIARCH/libc.so.6" | head -n 1)
    saw "emulated: $version starts with ${library%.}"
}

start_broker() {
    local begun=$SECONDS
    port=$((20000 + RANDOM % 10000))
    printf 'listener %s 127.0.0.1\nallow_anonymous true\n' "$port" >"$scratch/mosquitto.conf"
    mosquitto -c "$scratch/mosquitto.conf" >"$scratch/mosquitto.log" 2>&1 &
    processes+=($!)
    until mosquitto_pub -p "$port" -t here -m here 2>/dev/null; do
        ((SECONDS - begun < BROKER_WAIT)) || { cat "$scratch/mosquitto.log" >&2; fail "Mosquitto did not start"; }
        sleep 0.1
    done
}

# The built-in model and the demo, each in an emulator of its own: a program started by an emulated
# one would be the machine's to run, and only some machines know how.
check_demo() {
    local begun=$SECONDS demo subscriber status=0
    emulated "$binary" builtin-model ball "$scratch/model.sock" >"$scratch/model.log" 2>&1 &
    processes+=($!)
    until [[ -S $scratch/model.sock ]]; do
        ((SECONDS - begun < DEMO_WAIT)) || { cat "$scratch/model.log" >&2; fail "the emulated model did not start"; }
        sleep 0.1
    done
    mosquitto_sub -p "$port" -t '/edgeimpulse/device/+/inference/output' -C "$MESSAGES" -W "$DEMO_WAIT" \
        >"$scratch/messages" 2>"$scratch/subscriber.log" &
    subscriber=$!
    emulated "$binary" demo --mqtt "mqtt://127.0.0.1:$port" --model "$scratch/model.sock" --set preview=no \
        >"$scratch/demo.log" 2>&1 &
    demo=$!
    processes+=("$demo")
    wait "$subscriber" || {
        cat "$scratch/demo.log" "$scratch/subscriber.log" >&2
        fail "the emulated demo published fewer than $MESSAGES inferences within $DEMO_WAIT s"
    }
    saw "emulated: $MESSAGES inferences at the broker $((SECONDS - begun)) s after the start; the last: $(tail -n 1 "$scratch/messages" | cut -c 1-300)"
    grep -q '"label":"ball"' "$scratch/messages" || fail "no ball was seen: $(cat "$scratch/messages")"
    kill -TERM "$demo"
    wait "$demo" || status=$?
    ((status == 0)) || { cat "$scratch/demo.log" >&2; fail "the emulated demo ended with $status after SIGTERM"; }
    saw "emulated: ended with 0 after SIGTERM"
}

parse_arguments "$@"
install_tools
provide_standard_library
build
check_binary
check_start
start_broker
check_demo
saw "passed"
