# shellcheck shell=sh disable=SC2154,SC2016 # variables of run.sh and package_fakes.sh; variables of the fakes
# What a package has beside the binary: the list of its crates, licences, sums, signatures and archives.

# shellcheck source=tests/artifacts/package_fakes.sh
. "$here/package_fakes.sh"

# A fake cargo whose tools write the name of the target into their results.
tools_of_the_inventory='case "$1" in
    install) for last in "$@"; do :; done
        bin=$(dirname "$0")/../target/tools/bin
        mkdir -p "$bin" && printf "#!/bin/sh\n" >"$bin/${last%@*}" && chmod +x "$bin/${last%@*}"
        echo "\"${last%@*} ${last#*@} (registry)\"" >>"$(dirname "$0")/../target/tools/.crates.toml" ;;
    tree) printf "ei-greengrass v2.0.0 (/somewhere)\nserde v1.0.0 (*)\n%s" "${CRATE:-}" ;;
    cyclonedx) while [ "$1" != --target ]; do shift; done; target=$2
        while [ "$1" != --override-filename ]; do shift; done
        echo "{ \"ref\": \"path+file://$PWD#2.0.0\", \"target\": \"$target\", \"x#serde@1.0.0\" }" >"$2.json"; echo {} >"src/lanczos/$2.json" ;;
    about) while [ "$1" != --output-file ]; do shift; done; echo "  serde 1.0.0" >"$2" ;;
    esac'

inventory_is_beside_the_artifacts() {
    repository_of_the_test
    mkdir -p "$sandbox/repository/src/lanczos" "$sandbox/target/tools"
    toolchain none "$tools_of_the_inventory"
    PATH=$sandbox/bin package my-bucket 2.0.0 --target amd64
    same 0 "$status"
    # Each tool has a version of its own, in the target directory.
    same 3 "$(grep -c -e "--locked --force --root $sandbox/target/tools .*cargo-[a-z]*@[0-9]*\.[0-9]*\.[0-9]*\$" "$sandbox/calls")"
    # Without the feature, cargo installs nothing and succeeds.
    has "$sandbox/calls" '--features cli cargo-about@'
    has "$sandbox/calls" 'cargo auditable build --release --locked'
    artifacts=$sandbox/build/artifacts/EdgeImpulseServiceComponent/2.0.0
    has "$artifacts/amd64/ei-greengrass.cdx.json" '"target": "x86_64-unknown-linux-gnu"'
    # Nothing names this machine, and nothing stays in the source.
    has "$artifacts/amd64/ei-greengrass.cdx.json" '"path+file:///ei-greengrass#2.0.0"'
    same '  serde 1.0.0' "$(cat "$artifacts/amd64/THIRD-PARTY-LICENCES.txt")"
    same '' "$(find "$repository" -name '.sbom*')"
    # The recipe lists none of it: Greengrass Lite reads a limited number of objects.
    same 2 "$(grep -c 'Uri:' "$sandbox"/build/recipes/*.yaml)"
    # A crate of the binary that it lacks.
    CRATE='libc v0.2.1 (proc-macro)' PATH=$sandbox/bin package my-bucket 2.0.0 --target amd64
    same 2 "$status"
    has "$sandbox/err" 'the bill of materials lacks the crate libc 0.2.1'
    : >"$sandbox/calls"
    PATH=$sandbox/bin package my-bucket 2.0.0 --target amd64
    same 0 "$status"
    has_not "$sandbox/calls" 'cargo install'
}
it "package: the list of crates and the licences lie beside the artifacts, made by pinned tools that are built once" inventory_is_beside_the_artifacts

builds_are_told_nothing_of_this_machine() {
    repository_of_the_test
    toolchain none
    HOME=$sandbox/home
    PATH=$sandbox/bin package my-bucket --target amd64 --no-inventory
    same 0 "$status"
    for place in "$repository=/ei-greengrass" "$sandbox/home/.cargo=/cargo" "$sandbox/target=/target"; do
        has "$sandbox/environment" "--remap-path-prefix=$place"
        has "$sandbox/environment" "-ffile-prefix-map=$place"
    done
    has "$sandbox/environment" 'SOURCE_DATE_EPOCH=315532800'
    has "$sandbox/environment" "CARGO_TARGET_DIR=$sandbox/target/component"
    SOURCE_DATE_EPOCH=1700000000 PATH=$sandbox/bin package my-bucket --target amd64 --no-inventory
    has "$sandbox/environment" 'SOURCE_DATE_EPOCH=1700000000'
    SOURCE_DATE_EPOCH=yesterday PATH=$sandbox/bin package my-bucket --target amd64 --no-inventory
    same 2 "$status"
    has "$sandbox/err" "SOURCE_DATE_EPOCH is 'yesterday'; accepted: seconds since 1970"
    RUSTFLAGS='-C target-cpu=native' PATH=$sandbox/bin package my-bucket --target amd64 --no-inventory
    has "$sandbox/out" "a build without '-C target-cpu=native' gives another binary"
}
it "package: both compilers replace the directories of this machine" builds_are_told_nothing_of_this_machine

the_place_of_a_tool_is_in_no_symbol() {
    mkdir -p "$sandbox/bin"
    # As cargo-auditable and cargo do.
    printf '#!/bin/sh\nRUSTC_WORKSPACE_WRAPPER=$0 exec "$CARGO" "$2" --locked\n' >"$sandbox/bin/auditable"
    printf '#!/bin/sh\necho "$* ${RUSTC_WRAPPER:-none} ${RUSTC_WORKSPACE_WRAPPER:-none}"\n' >"$sandbox/bin/cargo"
    chmod +x "$sandbox"/bin/*
    same "build --locked $sandbox/bin/auditable none" "$(env -u EI_CARGO -u RUSTC_WRAPPER -u RUSTC_WORKSPACE_WRAPPER \
        CARGO="$sandbox/bin/cargo" EI_AUDITABLE="$sandbox/bin/auditable" "$repository/artifacts/package/auditable/cargo-auditable" auditable build)"
}
it "package: the place of the tool that lists the crates in the binary is in no symbol" the_place_of_a_tool_is_in_no_symbol

every_file_has_its_sum() {
    elf "$sandbox/a" "$aarch64"
    elf "$sandbox/b" "$amd64"
    package my-bucket 2.0.0 --binary aarch64="$sandbox/a" --binary amd64="$sandbox/b"
    same 0 "$status"
    cd "$sandbox/build/artifacts/EdgeImpulseServiceComponent/2.0.0" || exit
    same "$(find . -type f ! -name SHA256SUMS | sed 's|^\./||' | LC_ALL=C sort)" "$(sed 's/^[0-9a-f]*  //' SHA256SUMS)"
    sha256sum --quiet --check SHA256SUMS
    # install.sh has those of the binaries.
    same "$(grep ei-greengrass SHA256SUMS)" "$(sed -n "/^SUMS='/,/'\$/p" install.sh | sed "s/^SUMS='//; s/'\$//")"
    sh -n install.sh
}
it "package: SHA256SUMS has every file, and install.sh has the sums of the binaries" every_file_has_its_sum

# release DIRECTORY [OPTION]...: the binary is the head of an executable, so an emulator stands in for the kernel.
release() {
    directory=$1
    shift
    mkdir -p "$sandbox/emulator" "$sandbox/root/usr/lib/x86_64-linux-gnu/pkgconfig"
    printf '#!/bin/sh\nshift 3\n[ "$1" = generate ] || exit 0\nmkdir -p "$2/man/man1" && echo page >"$2/man/man1/ei-greengrass.1"\n' \
        >"$sandbox/emulator/qemu-x86_64-static"
    chmod +x "$sandbox/emulator/qemu-x86_64-static"
    status=0
    PATH=$sandbox/emulator:$PATH "$repository/artifacts/package.sh" --release "$directory" 2.0.0 --sysroot "$sandbox/root" "$@" \
        >"$sandbox/out" 2>"$sandbox/err" || status=$?
}

archives_have_the_same_bytes() {
    elf "$sandbox/b" "$amd64"
    SOURCE_DATE_EPOCH=1700000000
    export SOURCE_DATE_EPOCH
    release "$sandbox/one" --binary amd64="$sandbox/b"
    same 0 "$status"
    same 'SHA256SUMS ei-greengrass-2.0.0-amd64.tar.gz ' "$(cd "$sandbox/one" && printf '%s ' *)"
    (cd "$sandbox/one" && sha256sum --quiet --check SHA256SUMS)
    (
        umask 077
        touch -d 2001-01-01 "$sandbox/b"
        TZ=Asia/Tokyo release "$sandbox/two" --binary amd64="$sandbox/b"
    )
    cmp "$sandbox/one/ei-greengrass-2.0.0-amd64.tar.gz" "$sandbox/two/ei-greengrass-2.0.0-amd64.tar.gz"
    listing=$(TZ=UTC tar --numeric-owner -tvzf "$sandbox/one/ei-greengrass-2.0.0-amd64.tar.gz")
    printf '%s\n' "$listing" >"$sandbox/listing"
    same '' "$(grep -v ' 0/0 .* 2023-11-14 22:13 ' "$sandbox/listing" || true)"
    for name in ei-greengrass install.sh LICENSE SHA256SUMS share/man/man1/ei-greengrass.1; do
        has "$sandbox/listing" "ei-greengrass-2.0.0-amd64/$name"
    done
}
it "package: --release writes the same bytes at another time, umask and time zone" archives_have_the_same_bytes

archives_are_taken_as_binaries() {
    elf "$sandbox/b" "$amd64"
    release "$sandbox/release" --binary amd64="$sandbox/b"
    archive=$sandbox/release/ei-greengrass-2.0.0-amd64.tar.gz
    package my-bucket 2.0.0 --binary amd64="$archive"
    same 0 "$status"
    cmp "$sandbox/b" "$sandbox/build/artifacts/EdgeImpulseServiceComponent/2.0.0/amd64/ei-greengrass"
    # A file that does not belong to the sums.
    rm -r "$sandbox/build"
    mkdir "$sandbox/open"
    tar -xzf "$archive" -C "$sandbox/open"
    printf x >>"$sandbox/open/ei-greengrass-2.0.0-amd64/ei-greengrass"
    tar -czf "$sandbox/changed.tar.gz" -C "$sandbox/open" ei-greengrass-2.0.0-amd64
    package my-bucket 2.0.0 --binary amd64="$sandbox/changed.tar.gz"
    refuses 'are not those of its SHA256SUMS; load it again'
    head -c 200 "$archive" >"$sandbox/cut.tar.gz"
    package my-bucket 2.0.0 --binary amd64="$sandbox/cut.tar.gz"
    refuses 'cannot be unpacked; load it again'
}
it "package: an archive of a release is taken as a binary, after its sums were checked" archives_are_taken_as_binaries

release_without_an_emulator_is_refused() {
    elf "$sandbox/b" "$arm"
    release "$sandbox/release" --binary arm="$sandbox/b"
    same 2 "$status"
    has "$sandbox/err" 'the man page and the completions for arm cannot be written'
    has "$sandbox/err" 'qemu-user-static'
    for option in --publish '--region eu-west-1' '--out build' '--set a=b'; do
        # shellcheck disable=SC2086 # two words
        release "$sandbox/release" --binary arm="$sandbox/b" $option
        same 2 "$status"
        has "$sandbox/err" 'does not publish'
    done
}
it "package: --release says what it needs, and what does not fit it" release_without_an_emulator_is_refused

# A minisign that signs with the text of its key.
fake_minisign() {
    mkdir -p "$sandbox/signer"
    cat >"$sandbox/signer/minisign" <<'FAKE'
#!/bin/sh
mode=$1
shift
while [ $# -gt 0 ]; do
    case $1 in
    -s | -p) key=$2 ;;
    -m) file=$2 ;;
    -x) signature=$2 ;;
    -t) comment=$2 ;;
    esac
    case $1 in -q) shift ;; *) shift 2 ;; esac
done
made="$(tail -n 1 "$key") $(sha256sum <"$file")"
case $mode in
-S) printf 'untrusted comment: x\n%s\ntrusted comment: %s\n' "$made" "$comment" >"$signature" ;;
-V) grep -qxF "$made" "$signature" || { echo "Signature verification failed" >&2; exit 1; } ;;
esac
FAKE
    chmod +x "$sandbox/signer/minisign"
    printf 'untrusted comment: minisign encrypted secret key\nSECRET\n' >"$sandbox/key"
    PATH=$sandbox/signer:$PATH
}

sums_are_signed() {
    elf "$sandbox/b" "$amd64"
    fake_minisign
    package my-bucket 2.0.0 --binary amd64="$sandbox/b" --sign "$sandbox/key"
    same 0 "$status"
    artifacts=$sandbox/build/artifacts/EdgeImpulseServiceComponent/2.0.0
    minisign -V -p "$sandbox/key" -m "$artifacts/SHA256SUMS" -x "$artifacts/SHA256SUMS.minisig"
    has "$artifacts/SHA256SUMS.minisig" 'trusted comment: ei-greengrass 2.0.0 SHA256SUMS'
    has "$artifacts/install.sh" "SIGNATURE='untrusted comment: x"
    sh -n "$artifacts/install.sh"
    release "$sandbox/release" --binary amd64="$sandbox/b" --sign "$sandbox/key"
    same 0 "$status"
    minisign -V -p "$sandbox/key" -m "$sandbox/release/SHA256SUMS" -x "$sandbox/release/SHA256SUMS.minisig"
}
it "package: --sign signs the sums, those in install.sh too" sums_are_signed

unusable_keys_are_refused() {
    elf "$sandbox/b" "$amd64"
    package my-bucket --binary amd64="$sandbox/b" --sign "$sandbox/none"
    refuses "--sign '$sandbox/none' does not exist"
    package my-bucket --binary amd64="$sandbox/b" --sign "$sandbox/b"
    refuses 'is neither a secret key of minisign'
    toolchain none
    printf -- '-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n' >"$sandbox/key"
    PATH=$sandbox/bin package my-bucket --binary amd64="$sandbox/b" --sign "$sandbox/key"
    refuses 'needs cosign, which is not installed'
}
it "package: a key that cannot sign is refused before anything is built" unusable_keys_are_refused
