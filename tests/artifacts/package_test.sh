# shellcheck shell=sh disable=SC2154,SC2016 # variables of run.sh; variables of the fakes
# artifacts/package.sh with fake binaries, a fake cargo and a fake AWS CLI.

# elf FILE MACHINE: the head of an executable, MACHINE as two octal bytes.
elf() {
    printf '\177ELF\002\001\001\000\000\000\000\000\000\000\000\000\003\000%bGLIBC_2.17 GLIBC_2.31' "$2" >"$1"
}
aarch64='\0267\0000'
amd64='\0076\0000'
arm='\0050\0000'

package() {
    status=0
    "$repository/artifacts/package.sh" "$@" --out "$sandbox/build" >"$sandbox/out" 2>"$sandbox/err" || status=$?
}

refuses() {
    same 2 "$status"
    has "$sandbox/err" "$1"
    [ ! -e "$sandbox/build" ] || fail 'something was written'
}

three_binaries_are_laid_out() {
    elf "$sandbox/a" "$aarch64"
    elf "$sandbox/b" "$amd64"
    elf "$sandbox/c" "$arm"
    cd "$sandbox" || exit
    package my-bucket 2.1.0 --binary aarch64=a --binary x86_64=b --binary armv7=c
    same 0 "$status"
    artifacts=$sandbox/build/artifacts/EdgeImpulseServiceComponent/2.1.0
    cmp a "$artifacts/aarch64/ei-greengrass"
    cmp b "$artifacts/amd64/ei-greengrass"
    cmp c "$artifacts/arm/ei-greengrass"
    cmp "$repository/artifacts/install.sh" "$artifacts/install.sh"
    [ -x "$artifacts/arm/ei-greengrass" ] || fail 'not executable'
    has "$sandbox/out" 'runs on glibc 2.31 and newer'
    sed 's/YOUR_S3_ARTIFACT_BUCKET/my-bucket/; s/2\.0\.0/2.1.0/' \
        "$repository/recipes/EdgeImpulseLinuxRunnerServiceComponent.yaml" >"$sandbox/wanted"
    cmp "$sandbox/wanted" "$sandbox/build/recipes/EdgeImpulseLinuxRunnerServiceComponent-2.1.0.yaml"
}
it "package: three binaries, and the recipe for bucket and version" three_binaries_are_laid_out

recipe_holds_what_was_built() {
    elf "$sandbox/b" "$amd64"
    package my-bucket --binary amd64="$sandbox/b"
    same 0 "$status"
    recipe=$(ls "$sandbox"/build/recipes/*.yaml)
    same '      architecture: amd64' "$(grep 'architecture:' "$recipe")"
    same 2 "$(grep -c 's3://my-bucket/artifacts/EdgeImpulseServiceComponent/' "$recipe")"
    has_not "$recipe" YOUR_S3_ARTIFACT_BUCKET
    has "$recipe" 'device_name: MyEdgeImpulseDevice'
    # A second run removes the results of the first.
    elf "$sandbox/a" "$aarch64"
    package my-bucket --binary aarch64="$sandbox/a"
    same 0 "$status"
    same '      architecture: aarch64' "$(grep 'architecture:' "$recipe")"
    [ ! -e "$(dirname "$recipe")/../artifacts/EdgeImpulseServiceComponent/2.0.0/amd64" ] || fail 'amd64 is still there'
}
it "package: the recipe holds the manifests of what was built" recipe_holds_what_was_built

# Every path in the recipe is among the uploaded files.
addresses_lead_to_the_files() {
    elf "$sandbox/a" "$aarch64"
    elf "$sandbox/b" "$amd64"
    package my-bucket 2.0.1-rc.1 --binary aarch64="$sandbox/a" --binary amd64="$sandbox/b"
    same 0 "$status"
    sed -n 's/^ *- Uri: s3:\/\/my-bucket\///p' "$sandbox"/build/recipes/*.yaml >"$sandbox/addresses"
    same 4 "$(wc -l <"$sandbox/addresses" | tr -d ' ')"
    while read -r address; do
        [ -f "$sandbox/build/$address" ] || fail "$address leads nowhere"
    done <"$sandbox/addresses"
}
it "package: the recipe's addresses lead to the files" addresses_lead_to_the_files

commands_are_printed() {
    elf "$sandbox/b" "$amd64"
    package my-bucket 2.0.0 --region eu-west-1 --binary amd64="$sandbox/b"
    same 0 "$status"
    # The first command checks whether this version exists.
    same 'ls cp create-component-version' "$(awk '$1 == "aws" { printf "%s%s", sep, $3; sep = " " }' "$sandbox/out")"
    has "$sandbox/out" 'aws s3 ls s3://my-bucket/artifacts/EdgeImpulseServiceComponent/2.0.0/ --region eu-west-1'
    has "$sandbox/out" "aws s3 cp --recursive $sandbox/build/artifacts/EdgeImpulseServiceComponent/2.0.0 s3://my-bucket/artifacts/EdgeImpulseServiceComponent/2.0.0 --region eu-west-1"
    has "$sandbox/out" "aws greengrassv2 create-component-version --inline-recipe fileb://$sandbox/build/recipes/"
    has "$sandbox/build/gdk-config.json" '"publish": { "bucket": "my-bucket", "region": "eu-west-1" }'
    cmp "$sandbox/build/recipe.yaml" "$sandbox"/build/recipes/*.yaml
    has "$sandbox/out" "cd $sandbox/build && gdk component build && gdk component publish"
    # The build step of the kit puts the recipe where the kit looks for it, and no artifact.
    step=$(sed -n 's/.*"custom_build_command": \["sh", "-c", "\(.*\)"\]/\1/p' "$sandbox/build/gdk-config.json")
    (cd "$sandbox/build" && sh -c "$step")
    cmp "$sandbox/build/greengrass-build/recipes/recipe.yaml" "$sandbox/build/recipe.yaml"
    same '' "$(ls -A "$sandbox/build/greengrass-build/artifacts/EdgeImpulseLinuxRunnerServiceComponent/2.0.0")"
}
it "package: the AWS commands are printed" commands_are_printed

# aws_cli BODY: an AWS CLI that notes its calls. The bucket is empty (exit code 1) unless BODY does something else.
aws_cli() {
    mkdir -p "$sandbox/bin"
    : >"$sandbox/calls"
    {
        printf '#!/bin/sh\necho "$*" >>"%s/calls"\n%s\n' "$sandbox" "$1"
        echo 'case "$*" in "s3 ls "*) exit 1 ;; esac'
    } >"$sandbox/bin/aws"
    chmod +x "$sandbox/bin/aws"
}

publish() {
    PATH=$sandbox/bin:$PATH package my-bucket 2.0.0 --binary amd64="$sandbox/b" --publish
}

called() {
    cut -d' ' -f2 "$sandbox/calls" | tr '\n' ' '
}

publish_runs_the_commands() {
    elf "$sandbox/b" "$amd64"
    aws_cli ''
    publish
    same 0 "$status"
    same 'ls cp create-component-version ' "$(called)"
    # After a failed upload no component is created.
    aws_cli 'case "$*" in "s3 cp "*) exit 1 ;; esac'
    publish
    same 2 "$status"
    same 'ls cp ' "$(called)"
    has "$sandbox/err" "aws s3 rm --recursive s3://my-bucket/artifacts/EdgeImpulseServiceComponent/2.0.0/'"
    # After a failed registration the message names the command to repeat.
    aws_cli 'case "$*" in *create-component-version*) exit 254 ;; esac'
    publish
    same 2 "$status"
    has "$sandbox/err" "else correct the cause and run 'aws greengrassv2 create-component-version --inline-recipe fileb://$sandbox/build/recipes/"
}
it "package: --publish runs the commands and stops at the first that fails" publish_runs_the_commands

existing_version_is_not_overwritten() {
    elf "$sandbox/b" "$amd64"
    aws_cli 'case "$*" in
        "s3 ls s3://my-bucket/artifacts/EdgeImpulseServiceComponent/2.0.0/") echo "2026-11-23 15:00:00 24837 install.sh"; exit 0 ;;
        esac'
    publish
    same 2 "$status"
    same 'ls ' "$(called)"
    has "$sandbox/err" 'EdgeImpulseServiceComponent/2.0.0/ has files already, and nothing was uploaded'
    has "$sandbox/err" 'Give a new VERSION'
    has "$sandbox/err" 'aws s3 rm --recursive s3://my-bucket/'
    has "$sandbox/err" 'aws greengrassv2 create-component-version'
    # The same if it cannot be found out whether it exists.
    aws_cli 'echo "An error occurred (AccessDenied)" >&2; exit 254'
    publish
    same 2 "$status"
    same 'ls ' "$(called)"
    has "$sandbox/err" 's3:ListBucket'
}
it "package: --publish does not overwrite an existing version" existing_version_is_not_overwritten

bad_buckets_are_refused() {
    elf "$sandbox/b" "$amd64"
    for bucket in My-Bucket ab -bucket bucket- my_bucket a..b 192.168.0.1 'b; rm -rf /' s3://my-bucket \
        my-bucket/x xn--bucket YOUR_S3_ARTIFACT_BUCKET "$(printf '%064d' 0)"; do
        package "$bucket" --binary amd64="$sandbox/b"
        same 2 "$status"
        [ ! -e "$sandbox/build" ] || fail "$bucket: something was written"
    done
}
it "package: bad bucket names are refused" bad_buckets_are_refused

bad_arguments_are_refused() {
    elf "$sandbox/b" "$amd64"
    package
    refuses 'the name of the bucket is missing'
    for version in 2 2.0 v2.0.0 2.0.0/.. '2.0.0"' 02.0.0; do
        package my-bucket "$version" --binary amd64="$sandbox/b"
        refuses 'is not a component version'
    done
    package my-bucket --target riscv64
    refuses "'riscv64' is not supported"
    package my-bucket --binary "$sandbox/b"
    refuses 'accepted: ARCH=FILE'
    package my-bucket --binary amd64="$sandbox/none"
    refuses 'does not exist'
    package my-bucket --what
    refuses 'unknown option --what'
}
it "package: bad arguments are refused and named" bad_arguments_are_refused

binaries_of_other_machines_are_refused() {
    elf "$sandbox/a" "$aarch64"
    package my-bucket --binary amd64="$sandbox/a"
    same 2 "$status"
    has "$sandbox/err" 'is not built for amd64'
    echo '#!/bin/sh' >"$sandbox/script"
    package my-bucket --binary amd64="$sandbox/script"
    same 2 "$status"
    has "$sandbox/err" 'is not a Linux executable'
}
it "package: a binary of another machine is refused" binaries_of_other_machines_are_refused

# A fake toolchain on x86-64 that notes each build and its environment.
toolchain() {
    mkdir -p "$sandbox/bin" "$sandbox/target/release" "$sandbox/rust/lib/rustlib/$1" \
        "$sandbox/sysroot/usr/lib/aarch64-linux-gnu/pkgconfig"
    elf "$sandbox/target/release/ei-greengrass" "$amd64"
    mkdir -p "$sandbox/target/aarch64-unknown-linux-gnu/release"
    elf "$sandbox/target/aarch64-unknown-linux-gnu/release/ei-greengrass" "$aarch64"
    for tool in bash sh env cat sed awk head tail tr od grep sort uname dirname mkdir install rm cp wc; do
        ln -s "$(command -v "$tool")" "$sandbox/bin/$tool"
    done
    printf '#!/bin/sh\ncase "$*" in\n-vV) echo "host: x86_64-unknown-linux-gnu" ;;\n*) echo "%s/rust" ;;\nesac\n' "$sandbox" >"$sandbox/bin/rustc"
    printf '#!/bin/sh\ncase "$1" in\nmetadata) echo "{\\"target_directory\\":\\"%s/target\\"}" ;;\n*) echo "cargo $*" >>"%s/calls"; env >"%s/environment" ;;\nesac\n' \
        "$sandbox" "$sandbox" "$sandbox" >"$sandbox/bin/cargo"
    for tool in aarch64-linux-gnu-gcc cc pkg-config; do
        printf '#!/bin/sh\n' >"$sandbox/bin/$tool"
    done
    # Hides the Rust of this machine.
    HOME=$sandbox
    chmod +x "$sandbox"/bin/*
}

missing_build_tools_are_named() {
    toolchain none
    rm "$sandbox/bin/cc" "$sandbox/bin/rustc"
    printf '#!/bin/sh\nexit 1\n' >"$sandbox/bin/pkg-config"
    PATH=$sandbox/bin package my-bucket --target amd64
    refuses 'this machine lacks: Rust (https://rustup.rs), a C compiler (gcc libc6-dev), GStreamer'
    has "$sandbox/err" 'libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev'
    has "$sandbox/err" 'tests/setup.sh build'
    same 1 "$(wc -l <"$sandbox/err" | tr -d ' ')"
    [ ! -e "$sandbox/calls" ] || fail 'something was built'
    # A cross build uses the development files of the sysroot, but it needs pkg-config to find them.
    rm "$sandbox/bin/pkg-config"
    PATH=$sandbox/bin package my-bucket --target aarch64 --sysroot "$sandbox/sysroot"
    refuses 'a C compiler (gcc libc6-dev), pkg-config;'
}
it "package: missing build tools are named in one line, before anything is built" missing_build_tools_are_named

native_build_is_locked() {
    toolchain none
    PATH=$sandbox/bin package my-bucket --target x86_64-unknown-linux-gnu
    same 0 "$status"
    same 'cargo build --release --locked' "$(cat "$sandbox/calls")"
    cmp "$sandbox/target/release/ei-greengrass" "$sandbox"/build/artifacts/*/*/amd64/ei-greengrass
}
it "package: the target of this machine is built with an ordinary locked release build" native_build_is_locked

cross_build_uses_the_sysroot() {
    toolchain aarch64-unknown-linux-gnu
    PATH=$sandbox/bin package my-bucket --target aarch64 --sysroot "$sandbox/sysroot"
    same 0 "$status"
    same 'cargo build --release --locked --target aarch64-unknown-linux-gnu' "$(cat "$sandbox/calls")"
    has "$sandbox/environment" "PKG_CONFIG_SYSROOT_DIR=$sandbox/sysroot"
    has "$sandbox/environment" 'CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc'
    has "$sandbox/environment" "link-arg=-B$sandbox/sysroot/usr/lib/aarch64-linux-gnu"
    [ -f "$(echo "$sandbox"/build/artifacts/*/*/aarch64/ei-greengrass)" ] || fail 'no binary'
}
it "package: a cross build uses the sysroot's libraries and start-up files" cross_build_uses_the_sysroot

zigbuild_pins_the_c_library() {
    toolchain aarch64-unknown-linux-gnu
    ln -s cargo "$sandbox/bin/cargo-zigbuild"
    PATH=$sandbox/bin package my-bucket --target aarch64 --sysroot "$sandbox/sysroot"
    same 0 "$status"
    same 'cargo zigbuild --release --locked --target aarch64-unknown-linux-gnu.2.31' "$(cat "$sandbox/calls")"
}
it "package: cargo-zigbuild is used if it is installed" zigbuild_pins_the_c_library

missing_standard_library_is_built_or_named() {
    toolchain none
    PATH=$sandbox/bin package my-bucket --target aarch64 --sysroot "$sandbox/sysroot"
    refuses 'rustup target add aarch64-unknown-linux-gnu'
    mkdir -p "$sandbox/rust/lib/rustlib/src/rust/library/std"
    PATH=$sandbox/bin package my-bucket --target aarch64 --sysroot "$sandbox/sysroot"
    same 0 "$status"
    has "$sandbox/calls" '-Zbuild-std=std,panic_abort'
    has "$sandbox/environment" RUSTC_BOOTSTRAP=1
    rm "$sandbox/calls"
    mkdir "$sandbox/rust/lib/rustlib/aarch64-unknown-linux-gnu"
    PATH=$sandbox/bin EI_BUILD_STD=yes package my-bucket --target aarch64 --sysroot "$sandbox/sysroot"
    has "$sandbox/calls" '-Zbuild-std=std,panic_abort'
}
it "package: a missing standard library is built from source, or the error says how to get it" missing_standard_library_is_built_or_named

cross_build_without_sysroot_is_refused() {
    toolchain aarch64-unknown-linux-gnu
    PATH=$sandbox/bin package my-bucket --target aarch64
    refuses 'artifacts/sysroot.sh'
}
it "package: the error of a cross build without a sysroot says how to make one" cross_build_without_sysroot_is_refused
