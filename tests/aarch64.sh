#!/usr/bin/env bash
# Builds the component for aarch64 with the commands that the README gives for a Jetson, and runs the
# result under emulation: the demo publishes to a real Mosquitto. This takes from 10 to 40 minutes, so
# tests/run.sh does not run it.
#
#   tests/aarch64.sh [--sysroot DIRECTORY] [--jobs N]
#
#   --sysroot DIRECTORY  a sysroot made by artifacts/sysroot.sh; default: a new one in the target
#                        directory, from Debian 11 (glibc 2.31, as JetPack 5 has)
#   --jobs N             number of compilers that run at the same time; default: that of cargo
#
# Needs Debian or Ubuntu, and Rust. Installs missing packages (with sudo if you are not root). Rust's
# standard library for aarch64 comes from "rustup target add". If that is not possible, put the source
# of Rust, of exactly the compiler's version, where the toolchain looks for it:
# "$(rustc --print sysroot)/lib/rustlib/src/rust" ("rustup component add rust-src", or Debian's
# package rust-src). The library is then built from it (-Zbuild-std); EI_BUILD_STD=yes always builds
# it from source.
#
# Prints one line for each result. Ends with 0 if all checks passed, with 1 if one failed, and with 2
# if they could not be run.
set -euo pipefail

readonly TRIPLE=aarch64-unknown-linux-gnu
readonly MULTIARCH=aarch64-linux-gnu
# The README promises the glibc of JetPack 5, and the size of the stripped binary.
readonly GLIBC=2.31
readonly LIMIT=$((15 * 1000 * 1000))
readonly MESSAGES=5
# Seconds until the broker answers, and until the emulated program has published the messages.
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

result() {
    printf 'aarch64: %s\n' "$*"
}

# shellcheck disable=SC2317 # the trap calls it
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
    result "installing ${missing[*]}"
    ${as_root[@]+"${as_root[@]}"} apt-get update -qq
    ${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
    # Debian starts a broker on port 1883 after the installation; this script starts its own.
    if [[ " ${missing[*]} " == *" mosquitto "* ]] && command -v systemctl >/dev/null; then
        ${as_root[@]+"${as_root[@]}"} systemctl disable --now mosquitto >/dev/null 2>&1 || true
    fi
}

# package.sh builds the standard library if there is only its source.
provide_standard_library() {
    local library
    library=$(rustc --print sysroot)/lib/rustlib
    if [[ ${EI_BUILD_STD:-no} == yes ]]; then
        result "standard library: from source, because EI_BUILD_STD is yes"
    elif [[ -d $library/$TRIPLE ]]; then
        result "standard library: $library/$TRIPLE"
        return
    elif command -v rustup >/dev/null && rustup target add "$TRIPLE" >"$scratch/rustup" 2>&1 &&
        [[ -d $library/$TRIPLE ]]; then
        result "standard library: from rustup"
        return
    fi
    [[ -d $library/src/rust/library/std ]] || {
        [[ ! -e $scratch/rustup ]] || cat "$scratch/rustup" >&2
        refuse "there is no standard library for $TRIPLE, from rustup or as source in $library/src/rust; see --help"
    }
    result "standard library: built from $library/src/rust"
}

# ------------------------------------------------------------------------------------------- build

# Sets $binary.
build() {
    local begun=$SECONDS
    # A separate target directory: a native build and this one do not invalidate each other.
    CARGO_TARGET_DIR=$(cargo_target)/aarch64
    export CARGO_TARGET_DIR
    if [[ -z $sysroot ]]; then
        sysroot=$CARGO_TARGET_DIR/sysroot
        [[ -d $sysroot/usr/lib/$MULTIARCH/pkgconfig ]] || "$root/artifacts/sysroot.sh" --arch arm64 "$sysroot"
    fi
    "$root/artifacts/package.sh" any-bucket --target aarch64 --sysroot "$sysroot" --no-inventory --out "$scratch/out" >"$scratch/package.log" ||
        { tail -n 20 "$scratch/package.log" >&2; fail "the build failed"; }
    binary=$(echo "$scratch"/out/artifacts/*/*/aarch64/ei-greengrass)
    result "built and packaged in $((SECONDS - begun)) s"
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
    result "binary: $size bytes stripped, runs on glibc $needs and newer"
    ((size < LIMIT)) || fail "the binary has $size bytes; the limit is $LIMIT"
    [[ $(printf '%s\n%s\n' "$needs" "$GLIBC" | sort -V | tail -n 1) == "$GLIBC" ]] ||
        fail "the binary needs glibc $needs; JetPack 5 has $GLIBC"
}

# --------------------------------------------------------------------------------------------- run

# Runs an arm64 program with the libraries and GStreamer plugins of the sysroot. This machine cannot
# start GStreamer's plugin scanner, an arm64 program too, so GStreamer loads the plugins in process.
emulated() {
    exec env GST_PLUGIN_SYSTEM_PATH_1_0="$sysroot/usr/lib/$MULTIARCH/gstreamer-1.0" \
        GST_REGISTRY_1_0="$scratch/registry" GST_REGISTRY_FORK=no HOME="$scratch" \
        qemu-aarch64-static -L "$sysroot" "$@"
}

check_start() {
    local version library
    version=$(emulated "$binary" --version) || fail "the binary does not start under emulation"
    library=$(emulated "$sysroot/lib/$MULTIARCH/libc.so.6" | head -n 1)
    result "emulated: $version starts with ${library%.}"
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

# Runs the built-in model and the demo, each in its own emulator: a program that an emulated program
# starts runs without the emulator, which only some machines support.
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
    result "emulated: $MESSAGES inferences at the broker $((SECONDS - begun)) s after the start; the last: $(tail -n 1 "$scratch/messages" | cut -c 1-300)"
    grep -q '"label":"ball"' "$scratch/messages" || fail "no ball was detected: $(cat "$scratch/messages")"
    kill -TERM "$demo"
    wait "$demo" || status=$?
    ((status == 0)) || { cat "$scratch/demo.log" >&2; fail "the emulated demo ended with exit code $status after SIGTERM"; }
    result "emulated: ended with 0 after SIGTERM"
}

parse_arguments "$@"
install_tools
provide_standard_library
build
check_binary
check_start
start_broker
check_demo
result "passed"
