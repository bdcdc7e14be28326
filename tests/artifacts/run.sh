#!/bin/sh
# Tests of the recipe and of the scripts in artifacts/: tests/artifacts/run.sh [WORD]
# With WORD it runs only the tests whose name contains it. The tests change nothing outside a temporary
# directory and use no network. Prints "N passed, N failed" at the end; exit code 1 if a test failed.
set -u

here=$(cd "$(dirname "$0")" && pwd -P)
# shellcheck disable=SC2034 # used by the tests
repository=$(cd "$here/../.." && pwd -P)
only=${1:-}
passed=0
failed=0
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
trap 'exit 143' TERM INT HUP

# Runs a function as a test, in its own process and directory: it "NAME" FUNCTION
it() {
    case $1 in
    *"$only"*) ;;
    *) return 0 ;;
    esac
    sandbox=$scratch/$((passed + failed))
    mkdir "$sandbox"
    # Not as the condition of an if: "set -e" would have no effect there.
    (
        set -e
        "$2"
    ) >"$sandbox/report" 2>&1
    # shellcheck disable=SC2181
    if [ $? = 0 ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED: %s\n' "$1"
        sed 's/^/    /' "$sandbox/report"
    fi
}

# ------------------------------------------------------------------------------------ expectations

fail() {
    printf '%s\n' "$*"
    for file in "$sandbox/out" "$sandbox/err" "$sandbox/calls"; do
        [ ! -s "$file" ] || { printf -- '-- %s:\n' "${file##*/}" && cat "$file"; }
    done
    exit 1
}

# has FILE TEXT: a line of the file contains the text, literally.
has() {
    grep -qF -e "$2" "$1" || fail "expected in ${1##*/}: $2"
}

has_not() {
    ! grep -qF -e "$2" "$1" || fail "not expected in ${1##*/}: $2"
}

# same WANTED FOUND
same() {
    [ "$1" = "$2" ] || fail "expected '$1', found '$2'"
}

for tests in "$here"/*_test.sh; do
    # shellcheck source=/dev/null
    . "$tests"
done

printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
