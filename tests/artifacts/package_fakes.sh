# shellcheck shell=sh disable=SC2034,SC2154,SC2016 # variables of the tests; variables of run.sh; variables of the fakes
# What the tests of artifacts/package.sh share: fake binaries, a fake cargo, a copy of the repository.

# elf FILE MACHINE: the head of an executable, MACHINE as two octal bytes.
elf() {
    printf '\177ELF\002\001\001\000\000\000\000\000\000\000\000\000\003\000%bGLIBC_2.17 GLIBC_2.31' "$2" >"$1"
}
aarch64='\0267\0000'
amd64='\0076\0000'
arm='\0050\0000'

# No test asks the AWS CLI of this machine.
mkdir -p "$scratch/no-aws"
printf '#!/bin/sh\nexit 255\n' >"$scratch/no-aws/aws"
chmod +x "$scratch/no-aws/aws"
PATH=$scratch/no-aws:$PATH

# same_script FILE: the install step of the repository, with sums in it.
same_script() {
    awk -v line="SUMS=''" '/^SUMS=/ { print line; inside = 1 } inside { if (/\047$/) inside = 0; next } { print }' "$1" |
        cmp - "$repository/artifacts/install.sh" || fail 'another install.sh'
}

package() {
    status=0
    "$repository/artifacts/package.sh" "$@" --out "$sandbox/build" >"$sandbox/out" 2>"$sandbox/err" || status=$?
}

refuses() {
    same 2 "$status"
    has "$sandbox/err" "$1"
    [ ! -e "$sandbox/build" ] || fail 'something was written'
}

# A copy of the scripts, with a recipe that a test may change.
repository_of_the_test() {
    mkdir -p "$sandbox/repository/artifacts" "$sandbox/repository/recipes"
    cp -r "$repository"/artifacts/*.sh "$repository/artifacts/package" "$sandbox/repository/artifacts/"
    cp "$repository/Cargo.toml" "$sandbox/repository/"
    recipe=$sandbox/repository/recipes/EdgeImpulseLinuxRunnerServiceComponent.yaml
    cp "$repository/recipes/EdgeImpulseLinuxRunnerServiceComponent.yaml" "$recipe"
    repository=$sandbox/repository
}

# toolchain TARGET [BODY]: a fake toolchain on x86-64 that notes each build and its environment. cargo then runs BODY.
toolchain() {
    mkdir -p "$sandbox/bin" "$sandbox/target/component/release" "$sandbox/rust/lib/rustlib/$1" \
        "$sandbox/sysroot/usr/lib/aarch64-linux-gnu/pkgconfig"
    elf "$sandbox/target/component/release/ei-greengrass" "$amd64"
    mkdir -p "$sandbox/target/component/aarch64-unknown-linux-gnu/release"
    elf "$sandbox/target/component/aarch64-unknown-linux-gnu/release/ei-greengrass" "$aarch64"
    for tool in bash sh env cat sed awk head tail tr od grep sort uname dirname mkdir install rm cp wc \
        cut mktemp mv find xargs sha256sum chmod; do
        ln -s "$(command -v "$tool")" "$sandbox/bin/$tool"
    done
    printf '#!/bin/sh\ncase "$*" in\n-vV) echo "host: x86_64-unknown-linux-gnu" ;;\n*) echo "%s/rust" ;;\nesac\n' "$sandbox" >"$sandbox/bin/rustc"
    printf '#!/bin/sh\ncase "$1" in\nmetadata) echo "{\\"target_directory\\":\\"%s/target\\"}" ;;\n*) echo "cargo $*" >>"%s/calls"; env >"%s/environment" ;;\nesac\n%s\n' \
        "$sandbox" "$sandbox" "$sandbox" "${2:-}" >"$sandbox/bin/cargo"
    for tool in aarch64-linux-gnu-gcc cc pkg-config; do
        printf '#!/bin/sh\n' >"$sandbox/bin/$tool"
    done
    # Hides the Rust of this machine.
    HOME=$sandbox
    chmod +x "$sandbox"/bin/*
}
