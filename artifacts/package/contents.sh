# shellcheck shell=bash disable=SC2154 # variables of package.sh
# What the package has beside the binary: the list of its crates, their licences, sums, signatures, archives.

readonly SBOM=ei-greengrass.cdx.json
readonly LICENCES=THIRD-PARTY-LICENCES.txt

# Writes the bill of materials of the build for one triple, in CycloneDX: write_sbom TRIPLE FILE
write_sbom() {
    local name=.sbom-$$
    (
        cd "$root" || exit
        # One for each member of the workspace.
        trap 'rm -f "$name.json" src/lanczos/"$name.json" src/sandbox_calls/"$name.json" tests/fuzz/"$name.json"' EXIT
        cargo cyclonedx --quiet --format json --spec-version 1.5 --target "$1" --no-build-deps --override-filename "$name" ||
            fail "cargo-cyclonedx failed"
        # It names the directory of the source, which is another on each machine.
        sed "s|path+file://$root|path+file:///ei-greengrass|g" "$name.json" >"$2"
    )
}

# Writes the licences of all crates, for all architectures: write_licences FILE
write_licences() {
    (
        cd "$root" || exit
        cargo about --color never generate --locked --offline --fail --config "$here/package/licences.toml" --output-file "$1" "$here/package/licences.hbs"
    ) || fail "cargo-about failed: a crate has no licence, or one that artifacts/package/licences.toml does not accept"
}

# Fails if a crate in the binary is missing in the bill of materials or the licences: check_inventory TRIPLE DIRECTORY
check_inventory() {
    local crate crates
    crates=$(cd "$root" && cargo tree --locked --edges normal --target "$1" --prefix none --format '{p}' --package ei-greengrass) ||
        fail "cargo tree failed"
    while read -r crate; do
        grep -qF "#${crate/ /@}\"" "$2/$SBOM" || fail "the bill of materials lacks the crate $crate"
        grep -qF "  $crate" "$2/$LICENCES" || fail "the licences lack the crate $crate"
    # Crates of this project have a path behind the version.
    done < <(printf '%s\n' "$crates" | sed -n 's/ (proc-macro)//; s/ (\*)//; s/^\([^ ]*\) v\([^ ]*\)$/\1 \2/p' | sort -u)
}

# Prints the sums of all files below a directory, as "sha256sum --check" reads them.
sums_of() {
    (cd "$1" && find . -type f ! -name 'SHA256SUMS*' | sed 's|^\./||' | LC_ALL=C sort | tr '\n' '\0' | xargs -0 sha256sum)
}

# write_sums DIRECTORY: writes SHA256SUMS, and signs it if there is a key.
write_sums() {
    sums_of "$1" >"$1/SHA256SUMS.new"
    mv "$1/SHA256SUMS.new" "$1/SHA256SUMS"
    [[ -z $key ]] || sign "$1/SHA256SUMS"
}

# Refuses a key that no installed tool can use, before anything is built.
check_key() {
    if head -n 1 "$key" 2>/dev/null | grep -q 'minisign'; then
        signer=minisign
    elif grep -qs 'PRIVATE KEY' "$key" || [[ $key == *://* ]]; then
        signer=cosign
    elif [[ -e $key ]]; then
        fail "--sign '$key' is neither a secret key of minisign (minisign -G) nor one of cosign (cosign generate-key-pair)"
    else
        fail "--sign '$key' does not exist; accepted: a secret key of minisign (minisign -G) or of cosign (cosign generate-key-pair)"
    fi
    command -v "$signer" >/dev/null || fail "--sign '$key' needs $signer, which is not installed"
}

# Writes the signature of a file beside it: FILE.minisig or FILE.bundle. minisign asks for the password of its key.
sign() {
    case $signer in
    minisign)
        # The usual comment has the time of the signature.
        minisign -S -s "$key" -c "signature of ei-greengrass" -t "ei-greengrass $version $(basename "$1")" -m "$1" -x "$1.minisig"
        ;;
    cosign) cosign sign-blob --yes --key "$key" --tlog-upload=false --bundle "$1.bundle" "$1" ;;
    esac || fail "$signer could not sign $1"
}

# Writes install.sh with the sums of the binaries, which it checks before it runs one, and their signature:
# write_install_script FILE ARCHITECTURE...
write_install_script() {
    local target=$1 architecture scratch signature='' line
    shift
    scratch=$(mktemp -d)
    for architecture in "$@"; do
        printf '%s  %s/ei-greengrass\n' "$(sha256sum <"${binaries[$architecture]}" | cut -d' ' -f1)" "$architecture"
    done | LC_ALL=C sort -k 2 >"$scratch/sums"
    if [[ -n $key ]]; then
        sign "$scratch/sums"
        signature=$(cat "$scratch"/sums.*)
    fi
    while IFS= read -r line; do
        case $line in
        "SUMS=''") printf "SUMS='%s'\n" "$(cat "$scratch/sums")" ;;
        "SIGNATURE=''") printf "SIGNATURE='%s'\n" "$signature" ;;
        *) printf '%s\n' "$line" ;;
        esac
    done <"$root/artifacts/install.sh" >"$target"
    chmod 755 "$target"
    rm -r "$scratch"
}

# Runs the binary for an architecture on this machine: with its own libraries, else with those of the sysroot, else under
# emulation. run_binary ARCHITECTURE ARGUMENT...
run_binary() {
    local binary=${binaries[$1]} multiarch sysroot emulator loader
    multiarch=$(multiarch_of "$1")
    sysroot=$(sysroot_for "$multiarch")
    emulator=qemu-${multiarch%%-*}-static
    shift
    if "$binary" --version >/dev/null 2>&1; then
        "$binary" "$@"
        return
    fi
    for loader in "$sysroot"/lib/"$multiarch"/ld-linux*.so*; do
        [[ -n $sysroot && -x $loader ]] || continue
        if "$loader" --library-path "$sysroot/lib/$multiarch:$sysroot/usr/lib/$multiarch" "$binary" --version >/dev/null 2>&1; then
            "$loader" --library-path "$sysroot/lib/$multiarch:$sysroot/usr/lib/$multiarch" "$binary" "$@"
            return
        fi
    done
    command -v "$emulator" >/dev/null && [[ -n $sysroot ]] && "$emulator" -L "$sysroot" "$binary" "$@"
}

# The inventory of a build: bill of materials, licences. make_inventory ARCHITECTURE TRIPLE
make_inventory() {
    local directory=$target_directory/inventory/$1
    say "package: listing the crates and their licences for $1"
    rm -rf "$directory"
    mkdir -p "$directory"
    write_sbom "$2" "$directory/$SBOM"
    write_licences "$directory/$LICENCES"
    check_inventory "$2" "$directory"
    inventories[$1]=$directory
}

# Copies the inventory of an architecture, if there is one: copy_inventory ARCHITECTURE DIRECTORY
copy_inventory() {
    [[ -n ${inventories[$1]:-} ]] || return 0
    install -m 644 "${inventories[$1]}/$SBOM" "${inventories[$1]}/$LICENCES" "$2"
}

# An archive for each architecture, from which a fleet can be equipped without a compiler.
write_archives() {
    local architecture name directory scratch
    scratch=$(mktemp -d)
    for architecture in "${!binaries[@]}"; do
        check_binary "$architecture" "${binaries[$architecture]}"
        name=ei-greengrass-$version-$architecture
        directory=$scratch/$name
        mkdir -p "$directory"
        install -m 755 "${binaries[$architecture]}" "$directory/ei-greengrass"
        write_install_script "$directory/install.sh" "$architecture"
        copy_inventory "$architecture" "$directory"
        install -m 644 "$root/LICENSE" "$directory"
        run_binary "$architecture" generate "$directory/share" >/dev/null ||
            fail "the man page and the completions for $architecture cannot be written, because its binary does not start on this machine; install its emulator (Debian: qemu-user-static)"
        write_sums "$directory"
        pack "$directory" "$out/$name.tar.gz"
        [[ ! -e $directory/$SBOM ]] || install -m 644 "$directory/$SBOM" "$out/$name.cdx.json"
        say "package: $out/$name.tar.gz"
    done
    rm -r "$scratch"
    write_sums "$out"
}

# Unpacks an archive of write_archives and checks its sums: take_archive ARCHITECTURE FILE
take_archive() {
    local directory
    [[ -n $unpacked ]] || { unpacked=$(mktemp -d) && trap 'rm -rf "$unpacked"' EXIT; }
    directory=$unpacked/$1
    mkdir -p "$directory"
    tar -xzf "$2" --strip-components=1 --no-same-owner -C "$directory" ||
        fail "--binary $1: $2 cannot be unpacked; load it again"
    (cd "$directory" && sha256sum --quiet --check SHA256SUMS) >&2 ||
        fail "--binary $1: the files in $2 are not those of its SHA256SUMS; load it again"
    binaries[$1]=$directory/ei-greengrass
    [[ ! -e $directory/$SBOM ]] || inventories[$1]=$directory
}
