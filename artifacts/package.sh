#!/usr/bin/env bash
# Packages the Greengrass component: builds the binary for each target, copies the artifacts into the
# directories that S3 gets, writes the recipe for your bucket with the manifests of the targets that
# were built, and prints the AWS commands that publish it. The first command lists the files of this
# version in the bucket, because existing files must never be replaced: Greengrass checks their
# digests. The others upload the files and register the component.
#
#   artifacts/package.sh BUCKET [VERSION] [OPTION]...
#   artifacts/package.sh --local DIRECTORY [VERSION] [OPTION]...
#   artifacts/package.sh --release DIRECTORY [VERSION] [OPTION]...
#
#   BUCKET                S3 bucket of the artifacts; it must exist, in the region of the devices, and
#                         its name must have no dots (Greengrass Lite cannot download from others)
#   VERSION               component version, x.y.z; default: the version in Cargo.toml
#   --target TARGET       build for TARGET, a Rust triple or aarch64, amd64, arm; may be repeated;
#                         default: this machine, unless --binary is given
#   --binary ARCH=FILE    use FILE, which was built before, as the binary for aarch64, amd64 or
#                         arm; may be repeated. FILE may be an archive (.tar.gz) made by --release
#   --sysroot DIRECTORY   build against the libraries in DIRECTORY (made by artifacts/sysroot.sh),
#                         needed for another architecture; may be repeated, each target uses the
#                         one for its architecture
#   --region REGION       AWS region of the bucket and the component; default: that of the AWS CLI
#   --out DIRECTORY       directory of the results; default: build/ in the repository
#   --publish             run the AWS commands instead of printing them
#   --sign KEY            sign the sums with the secret key KEY of minisign or cosign
#   --no-inventory        no list of the crates in the binary and beside it, and no licences. Their tools
#                         are built once, into target/tools, which takes some minutes
#   --local DIRECTORY     lay out a deployment without AWS, for one architecture, and print the
#                         commands that deploy it on a device with this directory. Without VERSION
#                         each run makes a new version, because a nucleus cannot replace the files of
#                         a running one
#   --release DIRECTORY   write an archive for each architecture, with everything that --binary needs
#                         elsewhere, and their sums
#   --component NAME      runner (default), or linux for EdgeImpulseLinuxServiceComponent, which collects
#                         data without a model. Both have the same files; those that the bucket has are
#                         not uploaded again for linux
#   --set KEY=VALUE       with --local: a configuration key in the recipe (a local deployment on
#                         Greengrass Lite has no other configuration); may be repeated
#
# Builds for another machine use cargo-zigbuild if it is installed (pip install ziglang cargo-zigbuild),
# else the cross compiler (Debian: gcc-aarch64-linux-gnu, gcc-arm-linux-gnueabihf). Install the
# standard library of the target with "rustup target add". If it is not installed, it is built from
# Rust's source in lib/rustlib/src/rust of the toolchain (rustup component rust-src, or Debian's
# package rust-src of exactly the compiler's version). EI_BUILD_STD=yes in the environment always
# builds it from source.
#
# The same source, compiler and libraries give the same bytes in every directory and at any time, which
# tests/reproducible.sh shows. Every file of an archive has the time of the commit (or SOURCE_DATE_EPOCH).
#
# Needs bash 4 or newer. A build needs Rust, a C compiler, pkg-config and GStreamer's development files
# ("sh tests/setup.sh build" installs all but Rust on Debian and Ubuntu). --publish needs the AWS CLI.
#
# Publishing needs the permissions s3:ListBucket, s3:PutObject and s3:GetObject for the bucket, and
# greengrass:CreateComponentVersion.
#
# With the Greengrass development kit (gdk): copy the artifacts with the printed "aws s3 cp". Then run
# "gdk component build" and "gdk component publish" in the output directory instead of the last
# command. The kit uploads nothing and does not change the addresses in the recipe.
#
# Examples:
#   artifacts/package.sh my-bucket
#   artifacts/sysroot.sh build/sysroot-arm64
#   artifacts/package.sh my-bucket --target aarch64 --sysroot build/sysroot-arm64 --publish
#   artifacts/package.sh --local build/local --set ei_local_model_file=builtin:ball
#   artifacts/package.sh --release build/release --sign ~/.minisign/minisign.key
#   artifacts/package.sh my-bucket --binary aarch64=ei-greengrass-2.0.0-aarch64.tar.gz
set -euo pipefail

COMPONENT=EdgeImpulseLinuxRunnerServiceComponent
readonly LINUX_COMPONENT=EdgeImpulseLinuxServiceComponent
readonly PREFIX=artifacts/EdgeImpulseServiceComponent
# Greengrass Lite reads at most this many bytes of a recipe.
readonly RECIPE_LIMIT=8196
# Greengrass Lite reads at most this many objects of a recipe: GG_MAX_OBJECT_SUBOBJECTS in gg/object.h
# of aws-greengrass-component-sdk.
readonly OBJECT_LIMIT=255
# The form of a region's name.
readonly REGION='^[a-z]{2}(-[a-z]+)+-[0-9]+$'
# The oldest glibc that a build with zig must run on: the one of JetPack 5.
readonly GLIBC=2.31

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
here=$root/artifacts
out=$root/build
# The directory of rustup; a new shell may not have it in its PATH yet.
PATH="$PATH:${HOME:-/root}/.cargo/bin"
bucket='' version='' region='' publish=no local_directory='' release_directory=''
inventory=yes key='' signer='' unpacked='' target_directory=''
targets=() sysroots=() settings=() words=()
# The binary and the directory of the inventory of each architecture.
declare -A binaries=() inventories=()

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

say() {
    printf '%s\n' "$*"
}

# shellcheck source=artifacts/package/tools.sh
. "$here/package/tools.sh"
# shellcheck source=artifacts/package/reproducible.sh
. "$here/package/reproducible.sh"
# shellcheck source=artifacts/package/contents.sh
. "$here/package/contents.sh"

# ---------------------------------------------------------------------------------------- arguments

# Prints Greengrass's name of an architecture for any usual name.
architecture_of() {
    case $1 in
    aarch64 | arm64 | aarch64-unknown-linux-gnu) echo aarch64 ;;
    amd64 | x86_64 | x86_64-unknown-linux-gnu) echo amd64 ;;
    arm | armv7 | armhf | armv7-unknown-linux-gnueabihf) echo arm ;;
    *) fail "'$1' is not supported; accepted: aarch64, amd64, arm, or their Rust targets aarch64-unknown-linux-gnu, x86_64-unknown-linux-gnu, armv7-unknown-linux-gnueabihf" ;;
    esac
}

triple_of() {
    case $1 in
    aarch64) echo aarch64-unknown-linux-gnu ;;
    amd64) echo x86_64-unknown-linux-gnu ;;
    arm) echo armv7-unknown-linux-gnueabihf ;;
    esac
}

# Prints Debian's name of the library directory and of the cross tools.
multiarch_of() {
    case $1 in
    aarch64) echo aarch64-linux-gnu ;;
    amd64) echo x86_64-linux-gnu ;;
    arm) echo arm-linux-gnueabihf ;;
    esac
}

# S3's naming rules, so that a typing error is found before the build.
check_bucket() {
    local rule='3 to 63 characters of a-z, 0-9, "-" and ".", first and last a letter or digit'
    [[ $bucket != YOUR_S3_ARTIFACT_BUCKET ]] || fail "replace YOUR_S3_ARTIFACT_BUCKET by the name of your bucket"
    [[ $bucket =~ ^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$ ]] || fail "'$bucket' is not an S3 bucket name: $rule"
    [[ $bucket != *..* ]] || fail "'$bucket' is not an S3 bucket name: two dots in a row"
    [[ ! $bucket =~ ^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+$ ]] || fail "'$bucket' is not an S3 bucket name: an IP address"
    [[ $bucket != xn--* && $bucket != *-s3alias ]] || fail "'$bucket' is not an S3 bucket name: reserved by S3"
    [[ $bucket != *.* ]] ||
        fail "the bucket '$bucket' has a dot in its name: Greengrass Lite downloads from https://BUCKET.s3.REGION.amazonaws.com, and the certificate of S3 (*.s3.REGION.amazonaws.com) does not hold for such a name; use a bucket without dots"
}

# Refuses a bucket in another region than the component. Says nothing if the AWS CLI cannot answer.
check_region() {
    local wanted=${region:-${AWS_REGION:-${AWS_DEFAULT_REGION:-}}} actual
    command -v aws >/dev/null || return 0
    [[ -n $wanted ]] || wanted=$(aws configure get region 2>/dev/null) || return 0
    actual=$(aws s3api get-bucket-location --bucket "$bucket" --output text --query LocationConstraint \
        --cli-connect-timeout 5 --cli-read-timeout 10 ${region:+--region "$region"} 2>/dev/null </dev/null) || return 0
    # S3's names from before there were regions.
    case $actual in
    None | null) actual=us-east-1 ;;
    EU) actual=eu-west-1 ;;
    esac
    [[ $wanted =~ $REGION && $actual =~ $REGION && $actual != "$wanted" ]] || return 0
    fail "the bucket '$bucket' is in $actual, the component in $wanted: a device with Greengrass Lite downloads from https://$bucket.s3.$wanted.amazonaws.com (its own region) and fails; use a bucket in $wanted, or --region $actual if the devices are there"
}

check_version() {
    [[ $version =~ ^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?$ && ${#version} -le 64 ]] ||
        fail "'$version' is not a component version; accepted: x.y.z, for example 2.0.0 or 2.0.1-rc.1"
}

parse_arguments() {
    while (($# > 0)); do
        case $1 in
        --help | -h)
            sed -n '2,/^set /{ s/^# \{0,1\}//p; }' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        --publish) publish=yes ;;
        --no-inventory) inventory=no ;;
        --target | --binary | --sysroot | --region | --out | --local | --release | --set | --component | --sign)
            (($# >= 2)) || fail "$1 needs a value; see --help"
            take_option "$1" "$2"
            shift
            ;;
        -*) fail "unknown option $1; see --help" ;;
        *) words+=("$1") ;;
        esac
        shift
    done
    if [[ -n $local_directory ]]; then
        take_local_words
    elif [[ -n $release_directory ]]; then
        take_release_words
    else
        take_bucket_words
    fi
    check_version
    if ((${#targets[@]} + ${#binaries[@]} == 0)); then
        local machine
        machine=$(architecture_of "$(uname -m | sed 's/^armv[78].*/arm/')")
        targets=("$machine")
    fi
    [[ -z $local_directory ]] || check_one_architecture
    [[ -z $key ]] || check_key
}

take_bucket_words() {
    bucket=${words[0]:-} version=${words[1]:-}
    ((${#words[@]} <= 2)) || fail "there is one argument too many: ${words[2]}; see --help"
    [[ -n $bucket ]] || fail "the name of the bucket is missing; see --help"
    ((${#settings[@]} == 0)) ||
        fail "--set needs --local: the configuration of a published component belongs into its deployment"
    check_bucket
    [[ -n $version ]] || version=$(program_version)
    check_region
}

take_release_words() {
    ((${#words[@]} <= 1)) || fail "--release needs no bucket; accepted: --release DIRECTORY [VERSION]"
    [[ $publish == no && -z $region && $out == "$root/build" && ${#settings[@]} == 0 ]] ||
        fail "--release writes to its own directory and does not publish: leave --publish, --region, --out and --set out"
    version=${words[0]:-$(program_version)}
}

take_local_words() {
    ((${#words[@]} <= 1)) || fail "--local needs no bucket; accepted: --local DIRECTORY [VERSION]"
    [[ $publish == no && -z $region && $out == "$root/build" ]] ||
        fail "--local writes to its own directory and does not publish: leave --publish, --region and --out out"
    [[ -z $release_directory ]] || fail "--local and --release cannot be combined"
    # A trial needs no list of its crates.
    inventory=no
    version=${words[0]:-}
    # A version of its own for each run, below 2^31 until 2038, the limit of the classic nucleus.
    [[ -n $version ]] || version=$(program_version | sed 's/[^.]*$//')$(date +%s)
    [[ ! $version =~ ^[0-9.]+- ]] ||
        fail "'$version' cannot be deployed locally: Greengrass Lite takes what follows the last '-' of a recipe's file name as the version; accepted: x.y.z"
}

program_version() {
    sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1
}

# A local deployment has one directory for all files of a version, so there is only one ei-greengrass.
check_one_architecture() {
    local all
    all=$(printf '%s\n' ${targets[@]+"${targets[@]}"} "${!binaries[@]}" | grep . | sort -u)
    [[ $all != *$'\n'* ]] ||
        fail "a local deployment holds one architecture, and these were given: ${all//$'\n'/, }; make a directory for each"
}

take_option() {
    local architecture
    case $1 in
    --target)
        architecture=$(architecture_of "$2")
        targets+=("$architecture")
        ;;
    --binary)
        [[ $2 == *=* ]] || fail "--binary '$2': accepted: ARCH=FILE, for example aarch64=./ei-greengrass"
        architecture=$(architecture_of "${2%%=*}")
        [[ -f ${2#*=} ]] || fail "--binary ${2%%=*}: the file '${2#*=}' does not exist"
        case $2 in
        *.tar.gz) take_archive "$architecture" "${2#*=}" ;;
        *) binaries[$architecture]=${2#*=} ;;
        esac
        ;;
    --sysroot)
        [[ -d $2/usr/lib ]] || fail "--sysroot '$2' has no usr/lib; make one with artifacts/sysroot.sh"
        sysroots+=("$(cd "$2" && pwd -P)")
        [[ ${sysroots[-1]} != *[[:space:]]* ]] || fail "--sysroot '$2': compilers do not accept a path with white space"
        ;;
    --region)
        [[ $2 =~ $REGION ]] || fail "--region '$2' is not an AWS region, for example eu-west-1"
        region=$2
        ;;
    --out) out=$2 ;;
    --component)
        case $2 in
        runner) ;;
        linux) COMPONENT=$LINUX_COMPONENT ;;
        *) fail "--component '$2': accepted: runner, linux" ;;
        esac
        ;;
    --local)
        [[ -n $2 ]] || fail "--local needs a directory"
        local_directory=$2
        ;;
    --release)
        [[ -n $2 ]] || fail "--release needs a directory"
        release_directory=$2
        ;;
    --sign) key=$2 ;;
    --set)
        [[ $2 =~ ^[a-z0-9_]+= && $2 != *$'\n'* ]] || fail "--set '$2': accepted: KEY=VALUE in one line, for example ei_local_model_file=builtin:ball"
        settings+=("$2")
        ;;
    esac
}

# ------------------------------------------------------------------------------------------ building

# Prints the sysroot that has library directory $1, or nothing.
sysroot_for() {
    local directory
    for directory in ${sysroots[@]+"${sysroots[@]}"}; do
        if [[ -d $directory/usr/lib/$1/pkgconfig ]]; then
            echo "$directory"
            return
        fi
    done
}

# Sets the environment that makes cargo use the sysroot $1 for the target $2 with library directory $3,
# and link_flags, what the compiler of Rust needs for it.
use_sysroot() {
    local sysroot=$1 lower upper
    lower=${2//-/_}
    upper=${lower^^}
    export PKG_CONFIG_ALLOW_CROSS=1
    export PKG_CONFIG_SYSROOT_DIR=$sysroot
    export PKG_CONFIG_LIBDIR=$sysroot/usr/lib/$3/pkgconfig:$sysroot/usr/share/pkgconfig
    ! command -v cargo-zigbuild >/dev/null || return 0

    command -v "$3-gcc" >/dev/null ||
        fail "no compiler for $2: install gcc-$3 (Debian), or cargo-zigbuild (pip install ziglang cargo-zigbuild)"
    export "CC_$lower=$3-gcc" "CFLAGS_$lower=--sysroot=$sysroot"
    export "CARGO_TARGET_${upper}_LINKER=$3-gcc"
    # Without -B gcc links its own newer start-up files, and with an older glibc the constructors then
    # do not run, without any message. Without -L it also links its own newer libgcc_s.
    link_flags=(-C "link-arg=--sysroot=$sysroot" -C "link-arg=-B$sysroot/usr/lib/$3"
        -C "link-arg=-L$sysroot/usr/lib/$3" -C "link-arg=-L$sysroot/lib/$3"
        -C "link-arg=-Wl,-rpath-link,$sysroot/usr/lib/$3:$sysroot/lib/$3")
}

# Fails with one line that names all missing tools. check_tools yes|no: whether the libraries of this
# machine are used.
check_tools() {
    local lacking=()
    command -v cargo >/dev/null && command -v rustc >/dev/null || lacking+=("Rust (https://rustup.rs)")
    command -v cc >/dev/null || lacking+=("a C compiler (gcc libc6-dev)")
    if ! command -v pkg-config >/dev/null; then
        lacking+=("pkg-config")
    fi
    if [[ $1 == yes ]] && ! pkg-config --exists gstreamer-1.0 gstreamer-app-1.0 gstreamer-video-1.0 2>/dev/null; then
        lacking+=("GStreamer's development files (libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev)")
    fi
    ((${#lacking[@]} == 0)) || {
        local list
        list=$(printf ', %s' "${lacking[@]}")
        fail "the build needs what this machine lacks: ${list#, }; on Debian or Ubuntu install Rust, then run: sh $root/tests/setup.sh build"
    }
}

# Builds for one architecture and adds the binary to binaries, and its inventory to inventories. The
# build has a directory of its own, so that its flags do not make other builds compile everything again.
build() {
    local architecture=$1 triple multiarch host sysroot library directory
    local command=(cargo)
    triple=$(triple_of "$architecture")
    multiarch=$(multiarch_of "$architecture")
    sysroot=$(sysroot_for "$multiarch")
    check_tools "$([[ -n $sysroot ]] && echo no || echo yes)"
    host=$(rustc -vV | sed -n 's/^host: //p')
    target_directory=$(cd "$root" && cargo metadata --no-deps --format-version 1 --locked |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
    directory=$target_directory/component

    [[ -n $sysroot || $triple == "$host" ]] ||
        fail "there is no sysroot for $triple: make one with artifacts/sysroot.sh and pass it with --sysroot"
    if [[ $inventory == yes ]]; then
        provide_tools
        command+=(auditable)
    fi
    if [[ -z $sysroot ]]; then
        say "package: building for this machine"
        (
            reproducible_flags "$triple"
            cd "$root" && CARGO_TARGET_DIR=$directory "${command[@]}" build --release --locked
        )
        binaries[$architecture]=$directory/release/ei-greengrass
    else
        library=$(rustc --print sysroot)/lib/rustlib
        (
            link_flags=()
            use_sysroot "$sysroot" "$triple" "$multiarch"
            if command -v cargo-zigbuild >/dev/null; then
                command+=(zigbuild --release --locked --target "$triple.$GLIBC")
            else
                command+=(build --release --locked --target "$triple")
            fi
            if [[ ! -d $library/$triple || ${EI_BUILD_STD:-no} == yes ]]; then
                [[ -d $library/src/rust/library/std ]] ||
                    fail "there is no standard library for $triple (rustup target add $triple) and no source of Rust ($library/src/rust)"
                export RUSTC_BOOTSTRAP=1
                command+=("-Zbuild-std=std,panic_abort")
            fi
            say "package: building for $triple with $sysroot"
            reproducible_flags "$triple" ${link_flags[@]+"${link_flags[@]}"}
            cd "$root" && CARGO_TARGET_DIR=$directory "${command[@]}"
        )
        binaries[$architecture]=$directory/$triple/release/ei-greengrass
    fi
    [[ $inventory == no ]] || make_inventory "$architecture" "$triple"
}

# Refuses a binary for another architecture, which would only fail on the device ("Exec format error").
check_binary() {
    local wanted machine needs
    case $1 in
    aarch64) wanted=b700 ;;
    amd64) wanted=3e00 ;;
    arm) wanted=2800 ;;
    esac
    [[ $(head -c 4 "$2" | od -An -tx1 | tr -d ' \n') == 7f454c46 ]] || fail "$2 is not a Linux executable (ELF)"
    machine=$(od -An -tx1 -j18 -N2 "$2" | tr -d ' \n')
    [[ $machine == "$wanted" ]] || fail "$2 is not built for $1 (ELF machine $machine, not $wanted)"
    needs=$(grep -ao 'GLIBC_2\.[0-9]*' "$2" | sort -uV | tail -n 1 || true)
    say "package: $1: $2${needs:+ (runs on glibc ${needs#GLIBC_} and newer)}"
}

# ------------------------------------------------------------------------------------------- results

lay_out() {
    local directory=$out/$PREFIX/$version architecture
    rm -rf "$directory"
    mkdir -p "$directory"
    write_install_script "$directory/install.sh" "${!binaries[@]}"
    for architecture in "${!binaries[@]}"; do
        check_binary "$architecture" "${binaries[$architecture]}"
        mkdir "$directory/$architecture"
        install -m 755 "${binaries[$architecture]}" "$directory/$architecture/ei-greengrass"
        copy_inventory "$architecture" "$directory/$architecture"
    done
    write_sums "$directory"
}

# Writes the recipe with bucket, version, and only the manifests of the architectures that have a binary.
write_recipe() {
    recipe=$out/recipes/$COMPONENT-$version.yaml
    mkdir -p "$out/recipes"
    awk -v bucket="$bucket" -v version="$version" -v built=" ${!binaries[*]} " '
        function flush() { if (keep) printf "%s", block; block = ""; keep = 1 }
        BEGIN { keep = 1 }
        /^  - Platform:/ { flush() }
        $1 == "architecture:" { keep = index(built, " " $2 " ") > 0 }
        /^ComponentVersion:/ { $0 = "ComponentVersion: \"" version "\"" }
        /- Uri:/ { sub(/YOUR_S3_ARTIFACT_BUCKET/, bucket); sub(/EdgeImpulseServiceComponent\/[^\/]*/, "EdgeImpulseServiceComponent/" version) }
        { block = block $0 "\n" }
        END { flush() }
    ' "$root/recipes/$COMPONENT.yaml" >"$recipe"
}

# Refuses a recipe that Greengrass Lite does not read.
check_recipe() {
    local size objects cloud
    size=$(wc -c <"$recipe")
    ((size <= RECIPE_LIMIT)) || fail "$recipe has $size bytes; Greengrass Lite reads $RECIPE_LIMIT"
    read -r objects cloud < <(count_objects "$recipe")
    ((objects <= OBJECT_LIMIT)) ||
        fail "$recipe has $objects objects with the digests that AWS adds, and Greengrass Lite reads $OBJECT_LIMIT (a map has two for each entry, a list one). \
Remove at least $(((objects - OBJECT_LIMIT + 1) / 2)) keys of DefaultConfiguration from recipes/$COMPONENT.yaml (a key that is absent has the program's default), or package fewer architectures"
    say "package: recipe $recipe ($size bytes, $objects of $OBJECT_LIMIT objects)"
    ((cloud <= OBJECT_LIMIT)) ||
        say "package: warning: AWS may store this recipe with all optional keys, $cloud objects, and Greengrass Lite then refuses it: use fewer keys or architectures"
}

# Prints two numbers for the recipe $1: its objects as Greengrass Lite counts them (two for each entry
# of a map, one for each entry of a list), with Digest, Algorithm and Unarchive of each artifact, which
# AWS adds; and the same with every other key that AWS adds to the recipes it shows: ComponentType,
# Lifecycle of each manifest, Permission, Read and Execute of each artifact.
# Reads block style, and texts, {} and [] in one or several lines.
count_objects() {
    awk '
        # The objects of a collection in braces or brackets; level and used outlive the line.
        function flow(text,   i, c, n) {
            gsub(/\\.|\047\047/, "xx", text)
            for (i = 1; i <= length(text); i++) {
                c = substr(text, i, 1)
                if (quote != "") { if (c == quote) quote = ""; continue }
                if (c == "#" && (i == 1 || substr(text, i - 1, 1) == " ")) break
                if (c == " ") continue
                if (c == ",") { used[level] = 0; begins = 1; continue }
                if (c == "]" || c == "}") { level--; if (level == 0) break; continue }
                if (level > 0 && !used[level]) { n += kind[level] == "{" ? 2 : 1; used[level] = 1 }
                if (c == "[" || c == "{") { level++; kind[level] = c; used[level] = 0; begins = 1; continue }
                if (begins && (c == "\"" || c == "\047")) quote = c
                begins = c == ":"
            }
            return n
        }
        # The length of the key at the begin of the text, with its colon; 0: there is no key.
        function key_length(text,   c, end) {
            c = substr(text, 1, 1)
            if (c == "[" || c == "{") return 0
            gsub(/\\.|\047\047/, "xx", text)
            if (c == "\"" || c == "\047") {
                end = index(substr(text, 2), c) + 1
                return end > 1 && substr(text, end + 1) ~ /^ *:( |$)/ ? end + index(substr(text, end + 1), ":") : 0
            }
            sub(/ #.*/, "", text)
            if (text ~ /:$/ && index(text, ": ") == 0) return length(text)
            return index(text, ": ")
        }
        # The quote that the text opens and does not close, or nothing.
        function open_quote(text,   c) {
            c = substr(text, 1, 1)
            if (c != "\"" && c != "\047") return ""
            return closes(substr(text, 2), c) ? "" : c
        }
        function closes(text, c) {
            if (c == "\"") gsub(/\\./, "", text); else gsub(/\047\047/, "", text)
            return index(text, c) > 0
        }
        { sub(/\r$/, ""); sub(/[ \t]+$/, "") }
        quoted != "" { if (closes($0, quoted)) quoted = ""; next }
        level > 0 { objects += flow($0); next }
        { match($0, /^ */); column = RLENGTH; text = substr($0, column + 1) }
        text == "" { next }
        scalar != "" { if (column > scalar) next; scalar = "" }
        text ~ /^#/ || text ~ /^---/ { next }
        {
            while (text ~ /^-( |$)/) {
                objects++
                parent = column
                sub(/^-/, "", text); column++
                match(text, /^ */); column += RLENGTH; text = substr(text, RLENGTH + 1)
            }
            length_of_key = key_length(text)
            if (length_of_key) {
                key = substr(text, 1, length_of_key - 1)
                gsub(/["\047 ]/, "", key)
                seen[key]++
                objects += 2
                parent = column
                text = substr(text, length_of_key + 1)
                sub(/^ */, "", text)
            }
            sub(/^![^ ]* */, "", text)
            if (text ~ /^[|>]/) scalar = parent
            else if (text ~ /^[[{]/) objects += flow(text)
            else quoted = open_quote(text)
        }
        END {
            artifacts = seen["Uri"]
            added = 3 * artifacts - seen["Digest"] - seen["Algorithm"] - seen["Unarchive"]
            optional = 1 - seen["ComponentType"] + seen["Platform"] + 3 * artifacts - seen["Permission"] - seen["Read"] - seen["Execute"]
            print objects + 2 * added, objects + 2 * (added + optional)
        }
    ' "$1"
}

# For publishing with the development kit (gdk), see the top. Its artifact directory stays empty, so
# that the kit creates no bucket and changes no address in the recipe.
write_gdk_config() {
    local gdk_region=${region:-${AWS_REGION:-${AWS_DEFAULT_REGION:-us-east-1}}}
    cp "$recipe" "$out/recipe.yaml"
    cat >"$out/gdk-config.json" <<JSON
{
  "component": {
    "$COMPONENT": {
      "author": "EdgeImpulse",
      "version": "$version",
      "build": {
        "build_system": "custom",
        "custom_build_command": ["sh", "-c", "mkdir -p greengrass-build/recipes greengrass-build/artifacts/$COMPONENT/$version && cp recipe.yaml greengrass-build/recipes/"]
      },
      "publish": { "bucket": "$bucket", "region": "$gdk_region" }
    }
  },
  "gdk_version": "1.3.0"
}
JSON
}

# Prints an AWS command, quoted for a shell.
typed() {
    printf 'aws%s' "$(printf ' %q' "$@" ${region:+--region "$region"})"
}

run_aws() {
    aws "$@" ${region:+--region "$region"}
}

# Refuses the upload if the bucket has files of this version: a registered version cannot be deployed
# any more after its files have changed.
refuse_existing() {
    local place=$1 create=$2 listed result=0
    listed=$(run_aws s3 ls "$place/") || result=$?
    # 1: there are no files.
    ((result <= 1)) ||
        fail "'$(typed s3 ls "$place/")' failed with exit code $result, and nothing was uploaded; the bucket must exist, and you need s3:ListBucket on it"
    [[ -z $listed ]] ||
        fail "$place/ has files already, and nothing was uploaded: a change of these files would break the version that is registered with them. Give a new VERSION. \
Only if $version was never registered (an earlier run failed before the registration): register these files with '$create', or remove them with '$(typed s3 rm --recursive "$place/")' and publish again"
}

publish() {
    local place=s3://$bucket/$PREFIX/$version
    local upload=(s3 cp --recursive "$out/$PREFIX/$version" "$place")
    local register=(greengrassv2 create-component-version --inline-recipe "fileb://$recipe")
    local create
    create=$(typed "${register[@]}")
    if [[ $publish == no ]]; then
        local advice="Run the others only if it lists nothing (else give a new VERSION):"
        [[ $COMPONENT != "$LINUX_COMPONENT" ]] || advice="If it lists the files of this version, leave out the second, else run all:"
        say "To publish, run the first command. $advice"
        say "  $(typed s3 ls "$place/")"
        say "  $(typed "${upload[@]}")"
        say "  $create"
        say "With the development kit, run instead of the last command:"
        say "  $(printf 'cd %q' "$out") && gdk component build && gdk component publish"
        return
    fi
    command -v aws >/dev/null || fail "the AWS CLI (aws) is missing; without --publish this script prints the commands"
    say "package: publishing to $bucket"
    if [[ $COMPONENT == "$LINUX_COMPONENT" && -n $(run_aws s3 ls "$place/" || true) ]]; then
        say "package: $place/ has the files already; they are the same for both components"
        run_aws "${register[@]}" || fail "version $version could not be registered; if it exists already, give a new VERSION, else correct the cause and run '$create'"
        return
    fi
    refuse_existing "$place" "$create"
    run_aws "${upload[@]}" ||
        fail "the upload failed; correct the cause, remove the uploaded files with '$(typed s3 rm --recursive "$place/")', and publish again"
    run_aws "${register[@]}" ||
        fail "the files are in $place, but version $version could not be registered; if it exists already, give a new VERSION, else correct the cause and run '$create'"
}

# ------------------------------------------------------------------------------------------- local

# Lays out recipes/ and artifacts/ as both nuclei read them. Removes older versions of the component
# from the directory: the nucleus copies everything, and cannot replace the files of a running version.
lay_out_local() {
    local architecture=${!binaries[*]} artifacts
    check_binary "$architecture" "${binaries[$architecture]}"
    mkdir -p "$local_directory"
    out=$(cd "$local_directory" && pwd -P)
    rm -rf "$out/artifacts/$COMPONENT" "$out/recipes/$COMPONENT"-*.yaml
    artifacts=$out/artifacts/$COMPONENT/$version
    mkdir -p "$artifacts"
    write_install_script "$artifacts/install.sh" "$architecture"
    install -m 755 "${binaries[$architecture]}" "$artifacts/ei-greengrass"
    bucket=local-deployment
    write_recipe
    complete_local_recipe "$architecture"
    check_recipe
}

# The recipe of a local deployment: the values of --set, and a manifest for Greengrass Lite before the
# other one. Lite takes the files of a local deployment as they are if it knows the component from local
# deployments only, and downloads the listed artifacts otherwise: so there it lists none. The classic
# nucleus sets the permissions of the listed artifacts and downloads none that is there.
complete_local_recipe() {
    local setting key
    for setting in ${settings[@]+"${settings[@]}"}; do
        key=${setting%%=*}
        KEY=$key VALUE=${setting#*=} awk '
            BEGIN { value = ENVIRON["VALUE"]; gsub(/\047/, "\047\047", value); line = "      " ENVIRON["KEY"] ": \047" value "\047" }
            $1 == ENVIRON["KEY"] ":" && /^      [a-z]/ { next }
            { print }
            /^    Parameters:/ { print line }
        ' "$recipe" >"$recipe.new"
        mv "$recipe.new" "$recipe"
    done
    cat >>"$recipe.new" < <(
        sed '/^  - Platform:/,$d' "$recipe"
        printf '  - Platform:\n      os: linux\n      architecture: %s\n      runtime: aws_nucleus_lite\n    Artifacts: []\n' "$1"
        sed -n '/^  - Platform:/,$p' "$recipe"
    )
    mv "$recipe.new" "$recipe"
}

print_local_commands() {
    say "To deploy, copy $out to the device and run there, with Greengrass Lite:"
    say "  $(printf 'sudo ggl-cli deploy --recipe-dir %q --artifacts-dir %q --add-component %q' "$out/recipes" "$out/artifacts" "$COMPONENT=$version")"
    say "with the classic nucleus:"
    say "  $(printf 'sudo /greengrass/v2/bin/greengrass-cli deployment create --recipeDir %q --artifactDir %q --merge %q' "$out/recipes" "$out/artifacts" "$COMPONENT=$version")"
    [[ -z ${words[0]:-} ]] ||
        say "If version $version already runs there, give another VERSION or none: its files cannot be replaced (\"Text file busy\")."
    say "Before a version can come from the cloud again, remove the local one: sudo ggl-cli deploy --remove-component $COMPONENT (classic: deployment create --remove $COMPONENT)."
}

parse_arguments "$@"
set_source_date
for target in ${targets[@]+"${targets[@]}"}; do
    build "$target"
done
if [[ -n $local_directory ]]; then
    lay_out_local
    print_local_commands
    exit
fi
if [[ -n $release_directory ]]; then
    mkdir -p "$release_directory"
    out=$(cd "$release_directory" && pwd -P)
    # The sums are those of one version.
    rm -f "$out"/ei-greengrass-* "$out"/SHA256SUMS*
    write_archives
    exit
fi
mkdir -p "$out"
out=$(cd "$out" && pwd -P)
lay_out
write_recipe
check_recipe
write_gdk_config
publish
