#!/bin/sh
# Coverage-guided fuzzing with libFuzzer, one target after the other. Without TARGET all of them share the time. Exit code 1 when an input
# made a target panic, hang or take too much memory; the inputs are below target/fuzz/findings.
# Usage: tests/fuzz.sh MINUTES [TARGET]
#        tests/fuzz.sh run TARGET FILE...    (runs these inputs only)
# It needs no nightly compiler. The address sanitizer, which would need one, is left out: this program is safe Rust.
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:$HOME/.cargo/bin"
usage() { sed -n 's/^# Usage: //p; s/^#        //p' "$0" >&2; exit 2; }
[ $# -ge 1 ] || usage

sh tests/setup.sh build
command -v g++ >/dev/null || { echo "libFuzzer is compiled with g++: install it (Debian, Ubuntu: the package g++)" >&2; exit 1; }
host=$(rustc -vV | sed -n 's/^host: //p')
directory=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
# Build scripts and procedural macros must not be compiled with counters. They are those without a target.
RUSTC_WRAPPER=$PWD/tests/fuzz/rustc.sh cargo build --locked --quiet --target-dir "$directory" --target "$host" -p fuzz --bin guided \
    --features libfuzzer
# The default of a process that libFuzzer starts would end it when a client of the server leaves.
trap '' PIPE
program=$directory/$host/debug/guided
all=$(find tests/fuzz/corpus -mindepth 1 -maxdepth 1 -type d -exec basename {} \; | sort)

if [ "$1" = run ]; then
    [ $# -ge 3 ] || usage
    export FUZZ_TARGET="$2"
    shift 2
    exec "$program" "$@"
fi

case $1 in *[!0-9]* | "") usage ;; esac
targets=${2:-$all}
seconds=$(($1 * 60 / $(echo "$targets" | wc -l)))
status=0
for target in $targets; do
    [ -d "tests/fuzz/corpus/$target" ] || { echo "'$target' is not a target; accepted:" "$(echo "$all" | tr '\n' ' ')" >&2; exit 2; }
    # What is found beyond the kept corpus is used again by the next run.
    mkdir -p "$directory/corpus/$target" "$directory/findings"
    log=$directory/$target.log
    echo "$target: $seconds s"
    FUZZ_TARGET=$target "$program" -max_total_time=$seconds -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=512 -print_final_stats=1 \
        -artifact_prefix="$directory/findings/$target-" "$directory/corpus/$target" "tests/fuzz/corpus/$target" >"$log" 2>&1 || {
        status=1
        echo "FOUND: see $log"
    }
    grep -E 'stat::number_of_executed_units|stat::peak_rss_mb|Test unit written' "$log" || true
done
exit $status
