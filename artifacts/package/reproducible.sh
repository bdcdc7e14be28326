# shellcheck shell=bash disable=SC2154 # variables of package.sh
# What makes two builds of the same commit, with the same compilers, give the same bytes.

# Sets the time of everything in the package: that of the commit.
set_source_date() {
    local changed=''
    if [[ -z ${SOURCE_DATE_EPOCH:-} ]]; then
        # A release without git has the time of no commit. 1980 is the oldest year that every archive format knows.
        SOURCE_DATE_EPOCH=$(git -C "$root" log -1 --format=%ct 2>/dev/null) || SOURCE_DATE_EPOCH=315532800
        changed=$(git -C "$root" status --porcelain --untracked-files=no 2>/dev/null) || changed=''
    fi
    [[ $SOURCE_DATE_EPOCH =~ ^[0-9]+$ ]] || fail "SOURCE_DATE_EPOCH is '$SOURCE_DATE_EPOCH'; accepted: seconds since 1970"
    export SOURCE_DATE_EPOCH
    [[ -z $changed ]] || say "package: the source has changes that are in no commit: nobody can build this package again"
}

# Sets the flags of both compilers that replace the directories of this machine. Directories that stand further down win.
# reproducible_flags TRIPLE [RUST-FLAG]...
reproducible_flags() {
    local lower=${1//-/_} commit place c_flags='' name
    shift
    local cargo_home=${CARGO_HOME:-${HOME:-/root}/.cargo} sysroot
    sysroot=$(rustc --print sysroot)
    commit=$(rustc -vV | sed -n 's/^commit-hash: //p')
    local places=("$root=/ei-greengrass" "$cargo_home=/cargo" "$sysroot/lib/rustlib/src/rust=/rustc/$commit" "$target_directory=/target")
    local flags=()
    for place in "${places[@]}"; do
        flags+=("--remap-path-prefix=$place")
        c_flags+=" -ffile-prefix-map=$place"
    done
    flags+=("$@")
    if [[ -n ${RUSTFLAGS:-} ]]; then
        say "package: RUSTFLAGS is set: a build without '$RUSTFLAGS' gives another binary"
        local words
        read -ra words <<<"$RUSTFLAGS"
        flags+=("${words[@]}")
    fi
    CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && printf '%s' "${flags[*]}")
    name=CFLAGS_$lower
    if [[ ${places[*]} == *[[:space:]]*[[:space:]]*[[:space:]]*[[:space:]]* ]]; then
        say "package: this directory, or that of cargo, has white space in its path: a build elsewhere gives another binary"
    else
        export "$name=${!name:-${CFLAGS:-}}$c_flags"
    fi
    export CARGO_ENCODED_RUSTFLAGS CARGO_INCREMENTAL=0
}

# pack DIRECTORY ARCHIVE: a tar.gz of the directory, with nothing of this machine and this moment in it.
pack() {
    LC_ALL=C tar --sort=name --format=ustar --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
        --mtime="@$SOURCE_DATE_EPOCH" -C "$(dirname "$1")" -cf - "$(basename "$1")" | gzip -9n >"$2"
}
