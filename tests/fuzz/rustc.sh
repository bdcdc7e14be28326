#!/bin/sh
# Cargo calls this in place of rustc (RUSTC_WRAPPER) for the coverage-guided fuzzing of tests/fuzz.sh. This program and the parsers
# it uses are compiled with the counters that libFuzzer reads; all other crates are compiled as always. The options are stable ones.
set -eu

crate="" target=""
previous=""
for argument; do
    case $previous in
        --crate-name) crate=$argument ;;
        --target) target=$argument ;;
    esac
    previous=$argument
done

# Without a target it is a build script, a procedural macro, or a library for one of these.
[ -n "$target" ] || exec "$@"

case $crate in
    ei_greengrass | fuzz | guided | lanczos) ;;
    serde_json | serde_yaml_ng | unsafe_libyaml | base64 | shlex | url | percent_encoding | form_urlencoded | idna) ;;
    rumqttc | tungstenite | httparse | multer | mime | aws_smithy_eventstream | greengrass_ipc | redb) ;;
    image | zune_core | zune_jpeg | png | fdeflate | miniz_oxide | image_webp | gif | weezl) ;;
    *) exec "$@" ;;
esac
# Optimised, but with the checks of a development build.
exec "$@" -C opt-level=1 -C debug-assertions=on -C overflow-checks=on -C passes=sancov-module \
    -C llvm-args=-sanitizer-coverage-level=4 \
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters \
    -C llvm-args=-sanitizer-coverage-pc-table \
    -C llvm-args=-sanitizer-coverage-trace-compares
