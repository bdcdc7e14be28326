#!/usr/bin/env bash
# Packages the Greengrass component: builds the binary for each target, copies the artifacts into the
# directories that S3 gets, writes the recipe for your bucket with the manifests of the targets that
# were built, and prints the AWS commands that publish it. The first command lists the files of this
# version in the bucket, because existing files must never be replaced: Greengrass checks their
# digests. The others upload the files and register the component.
#
#   artifacts/package.sh BUCKET [VERSION] [OPTION]...
#
#   BUCKET                S3 bucket of the artifacts; it must exist
#   VERSION               component version, x.y.z; default: the version in Cargo.toml
#   --target TARGET       build for TARGET, a Rust triple or aarch64, amd64, arm; may be repeated;
#                         default: this machine, unless --binary is given
#   --binary ARCH=FILE    use FILE, which was built before, as the binary for aarch64, amd64 or
#                         arm; may be repeated
#   --sysroot DIRECTORY   build against the libraries in DIRECTORY (made by artifacts/sysroot.sh),
#                         needed for another architecture; may be repeated, each target uses the
#                         one for its architecture
#   --region REGION       AWS region of the bucket and the component; default: that of the AWS CLI
#   --out DIRECTORY       directory of the results; default: build/ in the repository
#   --publish             run the AWS commands instead of printing them
#
# Builds for another machine use cargo-zigbuild if it is installed (pip install ziglang cargo-zigbuild),
# else the cross compiler (Debian: gcc-aarch64-linux-gnu, gcc-arm-linux-gnueabihf). Install the
# standard library of the target with "rustup target add". If it is not installed, it is built from
# Rust's source in lib/rustlib/src/rust of the toolchain (rustup component rust-src, or Debian's
# package rust-src of exactly the compiler's version). EI_BUILD_STD=yes in the environment always
# builds it from source.
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
set -euo pipefail

readonly COMPONENT=EdgeImpulseLinuxRunnerServiceComponent
readonly PREFIX=artifacts/EdgeImpulseServiceComponent
# Greengrass Lite reads at most this many bytes of a recipe.
readonly RECIPE_LIMIT=8196
# The oldest glibc that a build with zig must run on: the one of JetPack 5.
readonly GLIBC=2.31

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
out=$root/build
# The directory of rustup; a new shell may not have it in its PATH yet.
PATH="$PATH:${HOME:-/root}/.cargo/bin"
bucket='' version='' region='' publish=no
targets=() sysroots=()
declare -A binaries=()

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

say() {
    printf '%s\n' "$*"
}

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
        --target | --binary | --sysroot | --region | --out)
            (($# >= 2)) || fail "$1 needs a value; see --help"
            take_option "$1" "$2"
            shift
            ;;
        -*) fail "unknown option $1; see --help" ;;
        *)
            if [[ -z $bucket ]]; then
                bucket=$1
            elif [[ -z $version ]]; then
                version=$1
            else
                fail "there is one argument too many: $1; see --help"
            fi
            ;;
        esac
        shift
    done
    [[ -n $bucket ]] || fail "the name of the bucket is missing; see --help"
    check_bucket
    [[ -n $version ]] || version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1)
    check_version
    if ((${#targets[@]} + ${#binaries[@]} == 0)); then
        local machine
        machine=$(architecture_of "$(uname -m | sed 's/^armv[78].*/arm/')")
        targets=("$machine")
    fi
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
        binaries[$architecture]=${2#*=}
        ;;
    --sysroot)
        [[ -d $2/usr/lib ]] || fail "--sysroot '$2' has no usr/lib; make one with artifacts/sysroot.sh"
        sysroots+=("$(cd "$2" && pwd -P)")
        [[ ${sysroots[-1]} != *[[:space:]]* ]] || fail "--sysroot '$2': compilers do not accept a path with white space"
        ;;
    --region)
        [[ $2 =~ ^[a-z]{2}(-[a-z]+)+-[0-9]+$ ]] || fail "--region '$2' is not an AWS region, for example eu-west-1"
        region=$2
        ;;
    --out) out=$2 ;;
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

# Sets the environment that makes cargo use the sysroot $1 for the target $2 with library directory $3.
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
    export "CARGO_TARGET_${upper}_RUSTFLAGS=-C link-arg=--sysroot=$sysroot -C link-arg=-B$sysroot/usr/lib/$3 \
-C link-arg=-L$sysroot/usr/lib/$3 -C link-arg=-L$sysroot/lib/$3 \
-C link-arg=-Wl,-rpath-link,$sysroot/usr/lib/$3:$sysroot/lib/$3"
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

# Builds for one architecture and adds the binary to binaries.
build() {
    local architecture=$1 triple multiarch host sysroot library target_directory
    local command=(cargo build --release --locked)
    triple=$(triple_of "$architecture")
    multiarch=$(multiarch_of "$architecture")
    sysroot=$(sysroot_for "$multiarch")
    check_tools "$([[ -n $sysroot ]] && echo no || echo yes)"
    host=$(rustc -vV | sed -n 's/^host: //p')
    target_directory=$(cd "$root" && cargo metadata --no-deps --format-version 1 --locked |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')

    if [[ $triple == "$host" && -z $sysroot ]]; then
        say "package: building for this machine"
        (cd "$root" && "${command[@]}")
        binaries[$architecture]=$target_directory/release/ei-greengrass
        return
    fi

    [[ -n $sysroot ]] ||
        fail "there is no sysroot for $triple: make one with artifacts/sysroot.sh and pass it with --sysroot"
    library=$(rustc --print sysroot)/lib/rustlib
    (
        use_sysroot "$sysroot" "$triple" "$multiarch"
        if command -v cargo-zigbuild >/dev/null; then
            command=(cargo zigbuild --release --locked --target "$triple.$GLIBC")
        else
            command+=(--target "$triple")
        fi
        if [[ ! -d $library/$triple || ${EI_BUILD_STD:-no} == yes ]]; then
            [[ -d $library/src/rust/library/std ]] ||
                fail "there is no standard library for $triple (rustup target add $triple) and no source of Rust ($library/src/rust)"
            export RUSTC_BOOTSTRAP=1
            command+=("-Zbuild-std=std,panic_abort")
        fi
        say "package: building for $triple with $sysroot"
        cd "$root" && "${command[@]}"
    )
    binaries[$architecture]=$target_directory/$triple/release/ei-greengrass
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
    install -m 755 "$root/artifacts/install.sh" "$directory/install.sh"
    for architecture in "${!binaries[@]}"; do
        check_binary "$architecture" "${binaries[$architecture]}"
        mkdir "$directory/$architecture"
        install -m 755 "${binaries[$architecture]}" "$directory/$architecture/ei-greengrass"
    done
}

# Writes the recipe with bucket, version, and only the manifests of the architectures that have a binary.
write_recipe() {
    local size
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
    size=$(wc -c <"$recipe")
    ((size <= RECIPE_LIMIT)) || fail "$recipe has $size bytes; Greengrass Lite reads $RECIPE_LIMIT"
    say "package: recipe $recipe ($size bytes)"
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
        say "To publish, run the first command. Run the others only if it lists nothing (else give a new VERSION):"
        say "  $(typed s3 ls "$place/")"
        say "  $(typed "${upload[@]}")"
        say "  $create"
        say "With the development kit, run instead of the last command:"
        say "  $(printf 'cd %q' "$out") && gdk component build && gdk component publish"
        return
    fi
    command -v aws >/dev/null || fail "the AWS CLI (aws) is missing; without --publish this script prints the commands"
    say "package: publishing to $bucket"
    refuse_existing "$place" "$create"
    run_aws "${upload[@]}" ||
        fail "the upload failed; correct the cause, remove the uploaded files with '$(typed s3 rm --recursive "$place/")', and publish again"
    run_aws "${register[@]}" ||
        fail "the files are in $place, but version $version could not be registered; if it exists already, give a new VERSION, else correct the cause and run '$create'"
}

parse_arguments "$@"
for target in ${targets[@]+"${targets[@]}"}; do
    build "$target"
done
mkdir -p "$out"
out=$(cd "$out" && pwd -P)
lay_out
write_recipe
write_gdk_config
publish
