# shellcheck shell=sh disable=SC2154,SC2016 # variables of run.sh; variables of the fakes
# artifacts/package.sh with fake binaries, a fake cargo and a fake AWS CLI.

# shellcheck source=tests/artifacts/package_fakes.sh
. "$here/package_fakes.sh"

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
    same_script "$artifacts/install.sh"
    for pair in a:aarch64 b:amd64 c:arm; do
        has "$artifacts/install.sh" "$(sha256sum <"${pair%:*}" | cut -d' ' -f1)  ${pair#*:}/ei-greengrass"
    done
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
# The questions for regions are not noted; the answers are in the files "region" and "location", if they are there.
aws_cli() {
    mkdir -p "$sandbox/bin"
    : >"$sandbox/calls"
    {
        printf '#!/bin/sh\nsandbox=%s\n' "$sandbox"
        echo 'case "$*" in
            "configure get region") exec cat "$sandbox/region" ;;
            "s3api get-bucket-location --bucket my-bucket "*) exec cat "$sandbox/location" ;;
        esac
        echo "$*" >>"$sandbox/calls"'
        echo "$1"
        echo 'case "$*" in "s3 ls "*) exit 1 ;; esac'
    } >"$sandbox/bin/aws"
    chmod +x "$sandbox/bin/aws"
}

publish() {
    PATH=$sandbox/bin:$PATH package my-bucket 2.0.0 --binary amd64="$sandbox/b" --publish "$@"
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

linux_component_uses_existing_files() {
    elf "$sandbox/b" "$amd64"
    aws_cli 'case "$*" in
        "s3 ls s3://my-bucket/artifacts/EdgeImpulseServiceComponent/2.0.0/") echo "2026-11-23 15:00:00 24837 install.sh"; exit 0 ;;
        esac'
    publish --component linux
    same 0 "$status"
    same 'ls create-component-version ' "$(called)"
    has "$sandbox/calls" "fileb://$sandbox/build/recipes/EdgeImpulseLinuxServiceComponent"
    has "$sandbox/out" 'has the files already; they are the same for both components'
    # A version of this component that exists already is not registered again.
    aws_cli 'case "$*" in
        "s3 ls "*) echo "2026-11-23 15:00:00 24837 install.sh"; exit 0 ;;
        *create-component-version*) exit 254 ;;
        esac'
    publish --component linux
    same 2 "$status"
    has "$sandbox/err" 'version 2.0.0 could not be registered; if it exists already, give a new VERSION'
    # Without files it uploads them, as the runner does.
    aws_cli ''
    publish --component linux
    same 0 "$status"
    same 'ls ls cp create-component-version ' "$(called)"
    # If the bucket cannot be listed, nothing is uploaded.
    aws_cli 'echo "An error occurred (AccessDenied)" >&2; exit 254'
    publish --component linux
    same 2 "$status"
    same 'ls ls ' "$(called)"
    has "$sandbox/err" 's3:ListBucket'
}
it "package: --publish of the linux component uses the files that the runner has uploaded" linux_component_uses_existing_files

bad_buckets_are_refused() {
    elf "$sandbox/b" "$amd64"
    package my.bucket --binary amd64="$sandbox/b"
    refuses 'the certificate of S3 (*.s3.REGION.amazonaws.com) does not hold for such a name'
    for bucket in My-Bucket ab -bucket bucket- my_bucket a..b 192.168.0.1 'b; rm -rf /' s3://my-bucket \
        my-bucket/x xn--bucket YOUR_S3_ARTIFACT_BUCKET "$(printf '%064d' 0)"; do
        package "$bucket" --binary amd64="$sandbox/b"
        same 2 "$status"
        [ ! -e "$sandbox/build" ] || fail "$bucket: something was written"
    done
}
it "package: bad bucket names are refused" bad_buckets_are_refused

# in_region LOCATION [OPTION]...: packages for a bucket in LOCATION, as S3 names it.
in_region() {
    echo "$1" >"$sandbox/location"
    shift
    rm -rf "$sandbox/build"
    PATH=$sandbox/bin:$PATH package my-bucket 2.0.0 --binary amd64="$sandbox/b" "$@"
}

buckets_of_other_regions_are_refused() {
    unset AWS_REGION AWS_DEFAULT_REGION
    elf "$sandbox/b" "$amd64"
    aws_cli ''
    in_region eu-west-1 --region us-east-1
    refuses "the bucket 'my-bucket' is in eu-west-1, the component in us-east-1"
    has "$sandbox/err" 'https://my-bucket.s3.us-east-1.amazonaws.com'
    in_region EU --region eu-west-1
    same 0 "$status"
    in_region None --region us-east-1
    same 0 "$status"
    in_region None --region eu-west-1
    refuses "is in us-east-1, the component in eu-west-1"
    # Without --region the region is that of the AWS CLI.
    echo eu-central-1 >"$sandbox/region"
    in_region eu-west-1
    refuses 'the component in eu-central-1'
    AWS_REGION=eu-west-1
    export AWS_REGION
    in_region eu-west-1
    same 0 "$status"
    # An AWS CLI that knows nothing is no reason to fail.
    unset AWS_REGION
    for answer in '' 'Unable to locate credentials'; do
        in_region "$answer" --region us-east-1
        same 0 "$status"
    done
    rm "$sandbox/region"
    in_region eu-west-1
    same 0 "$status"
    printf '#!/bin/sh\nexit 254\n' >"$sandbox/bin/aws"
    in_region eu-west-1 --region us-east-1
    same 0 "$status"
}
it "package: a bucket in another region than the component is refused, if the AWS CLI knows it" buckets_of_other_regions_are_refused

# add_keys N: adds N keys to the recipe's configuration.
add_keys() {
    awk -v n="$1" '{ print } /^    Parameters:/ { for (i = 0; i < n; i++) print "      key" i ": x" }' "$recipe" >"$recipe.new"
    mv "$recipe.new" "$recipe"
}

recipes_with_too_many_objects_are_refused() {
    elf "$sandbox/a" "$aarch64"
    elf "$sandbox/b" "$amd64"
    elf "$sandbox/c" "$arm"
    repository_of_the_test
    set -- my-bucket 2.0.0 --binary aarch64="$sandbox/a" --binary amd64="$sandbox/b" --binary arm="$sandbox/c"
    package "$@"
    same 0 "$status"
    has_not "$sandbox/out" warning
    objects=$(sed -n 's/.* \([0-9]*\) of 255 objects.*/\1/p' "$sandbox/out")
    room=$(((255 - objects) / 2))
    add_keys "$room"
    package "$@"
    same 0 "$status"
    has "$sandbox/out" "$((objects + 2 * room)) of 255 objects"
    has "$sandbox/out" 'warning: AWS may store this recipe with all optional keys'
    add_keys 3
    package "$@"
    same 2 "$status"
    has "$sandbox/err" "has $((objects + 2 * room + 6)) objects with the digests that AWS adds, and Greengrass Lite reads 255"
    has "$sandbox/err" 'Remove at least 3 keys of DefaultConfiguration'
    # Fewer architectures have room for them.
    package my-bucket 2.0.0 --binary amd64="$sandbox/b"
    same 0 "$status"
}
it "package: a recipe with more objects than Lite reads is refused" recipes_with_too_many_objects_are_refused

recipes_are_counted_in_every_notation() {
    elf "$sandbox/b" "$amd64"
    repository_of_the_test
    counted() {
        package my-bucket 2.0.0 --binary amd64="$sandbox/b"
        sed -n 's/.* \([0-9]*\) of 255 objects.*/\1/p' "$sandbox/out"
    }
    before=$(counted)
    # Nine keys, and lists of one and two entries.
    cat >"$recipe.more" <<'YAML'
    accessControl: # a: comment
      aws.greengrass.ipc.pubsub:
        "name: with colon":
          operations:
            - "aws.greengrass#PublishToTopic"
          resources: ["a, b",
            c] # d
      flow: {x: {y: 'it''s: [1]'}}
      text: |
        no: key
        - no item
YAML
    sed -i "/^  DefaultConfiguration:/r $recipe.more" "$recipe"
    same $((before + 21)) "$(counted)"
}
it "package: lists, braces and texts in a recipe are counted as Lite does" recipes_are_counted_in_every_notation

local_deployment() {
    elf "$sandbox/b" "$amd64"
    status=0
    "$repository/artifacts/package.sh" --local "$sandbox/local" --binary amd64="$sandbox/b" "$@" \
        >"$sandbox/out" 2>"$sandbox/err" || status=$?
}

local_deployment_is_laid_out() {
    name=EdgeImpulseLinuxRunnerServiceComponent
    local_deployment 2.1.0
    same 0 "$status"
    cmp "$sandbox/b" "$sandbox/local/artifacts/$name/2.1.0/ei-greengrass"
    same_script "$sandbox/local/artifacts/$name/2.1.0/install.sh"
    has "$sandbox/local/artifacts/$name/2.1.0/install.sh" "SUMS='$(sha256sum <"$sandbox/b" | cut -d' ' -f1)  amd64/ei-greengrass'"
    [ -x "$sandbox/local/artifacts/$name/2.1.0/ei-greengrass" ] || fail 'not executable'
    recipe=$sandbox/local/recipes/$name-2.1.0.yaml
    has "$recipe" 'ComponentVersion: "2.1.0"'
    # Lite uses the first manifest and would download what it lists; the classic nucleus uses the second.
    same 'aws_nucleus_lite "*" ' "$(awk '$1 == "runtime:" { printf "%s ", $2 }' "$recipe")"
    same '[] Artifacts: ' "$(awk '$1 == "Artifacts:" { printf "%s ", $NF }' "$recipe")"
    same 2 "$(grep -c '      architecture: amd64' "$recipe")"
    same 'ei-greengrass install.sh ' "$(sed -n 's/^ *- Uri: .*\///p' "$recipe" | tr '\n' ' ')"
    has_not "$recipe" YOUR_S3_ARTIFACT_BUCKET
    has "$sandbox/out" "sudo ggl-cli deploy --recipe-dir $sandbox/local/recipes --artifacts-dir $sandbox/local/artifacts --add-component $name=2.1.0"
    has "$sandbox/out" "greengrass-cli deployment create --recipeDir $sandbox/local/recipes --artifactDir $sandbox/local/artifacts --merge $name=2.1.0"
    has "$sandbox/out" 'Text file busy'
    has "$sandbox/out" "ggl-cli deploy --remove-component $name"
    # Files of an older version would be copied over those of the running one.
    touch "$sandbox/local/recipes/another.component-1.0.0.yaml"
    local_deployment 2.2.0
    same 2.2.0 "$(ls "$sandbox/local/artifacts/$name")"
    same "$name-2.2.0.yaml another.component-1.0.0.yaml " "$(cd "$sandbox/local/recipes" && printf '%s ' *)"
}
it "package: --local lays out a deployment for both nuclei and prints their commands" local_deployment_is_laid_out

local_versions_are_new() {
    local_deployment
    same 0 "$status"
    has_not "$sandbox/out" 'Text file busy'
    version=$(ls "$sandbox"/local/artifacts/*)
    # Lite splits the name of a recipe at its last "-". The classic nucleus reads numbers below 2^31.
    patch=$(echo "$version" | sed -n 's/^2\.0\.\([0-9]*\)$/\1/p')
    [ "$patch" -gt 1700000000 ] || fail "version $version"
    [ "$patch" -lt 2147483648 ] || fail "version $version"
    local_deployment 2.1.0-rc.1
    same 2 "$status"
    has "$sandbox/err" "'2.1.0-rc.1' cannot be deployed locally"
}
it "package: --local makes a version of its own each time, which both nuclei read" local_versions_are_new

local_deployment_has_its_configuration() {
    local_deployment 2.1.0 --set ei_local_model_file=builtin:ball --set "preview_host=it's \\ # \"x\"" --set iotcore_backoff=1
    same 0 "$status"
    recipe=$(ls "$sandbox"/local/recipes/*)
    has "$recipe" "      ei_local_model_file: 'builtin:ball'"
    has "$recipe" "      preview_host: 'it''s \\ # \"x\"'"
    same 1 "$(grep -c '      ei_local_model_file:' "$recipe")"
    same 1 "$(grep -c '      iotcore_backoff:' "$recipe")"
    for setting in preview 'a b=c' "x=1
y"; do
        local_deployment 2.1.0 --set "$setting"
        same 2 "$status"
        has "$sandbox/err" 'accepted: KEY=VALUE'
    done
}
it "package: --set puts configuration into the recipe of a local deployment" local_deployment_has_its_configuration

unusable_local_arguments_are_refused() {
    elf "$sandbox/a" "$aarch64"
    local_deployment 2.1.0 --binary aarch64="$sandbox/a"
    same 2 "$status"
    has "$sandbox/err" 'a local deployment holds one architecture, and these were given: aarch64, amd64'
    local_deployment my-bucket 2.1.0
    has "$sandbox/err" '--local needs no bucket'
    for option in --publish '--region eu-west-1' '--out build'; do
        # shellcheck disable=SC2086 # two words
        local_deployment 2.1.0 $option
        same 2 "$status"
        has "$sandbox/err" 'does not publish'
    done
    package my-bucket --set preview=no --binary amd64="$sandbox/b"
    refuses '--set needs --local'
    [ ! -e "$sandbox/local" ] || fail 'something was written'
}
it "package: arguments that do not fit --local are refused" unusable_local_arguments_are_refused

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
    PATH=$sandbox/bin package my-bucket --target x86_64-unknown-linux-gnu --no-inventory
    same 0 "$status"
    same 'cargo build --release --locked' "$(cat "$sandbox/calls")"
    cmp "$sandbox/target/component/release/ei-greengrass" "$sandbox"/build/artifacts/*/*/amd64/ei-greengrass
}
it "package: the target of this machine is built with an ordinary locked release build" native_build_is_locked

cross_build_uses_the_sysroot() {
    toolchain aarch64-unknown-linux-gnu
    PATH=$sandbox/bin package my-bucket --target aarch64 --sysroot "$sandbox/sysroot" --no-inventory
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
    PATH=$sandbox/bin package my-bucket --target aarch64 --sysroot "$sandbox/sysroot" --no-inventory
    same 0 "$status"
    same 'cargo zigbuild --release --locked --target aarch64-unknown-linux-gnu.2.31' "$(cat "$sandbox/calls")"
}
it "package: cargo-zigbuild is used if it is installed" zigbuild_pins_the_c_library

missing_standard_library_is_built_or_named() {
    toolchain none
    PATH=$sandbox/bin package my-bucket --target aarch64 --sysroot "$sandbox/sysroot" --no-inventory
    refuses 'rustup target add aarch64-unknown-linux-gnu'
    mkdir -p "$sandbox/rust/lib/rustlib/src/rust/library/std"
    PATH=$sandbox/bin package my-bucket --target aarch64 --sysroot "$sandbox/sysroot" --no-inventory
    same 0 "$status"
    has "$sandbox/calls" '-Zbuild-std=std,panic_abort'
    has "$sandbox/environment" RUSTC_BOOTSTRAP=1
    rm "$sandbox/calls"
    mkdir "$sandbox/rust/lib/rustlib/aarch64-unknown-linux-gnu"
    PATH=$sandbox/bin EI_BUILD_STD=yes package my-bucket --target aarch64 --sysroot "$sandbox/sysroot" --no-inventory
    has "$sandbox/calls" '-Zbuild-std=std,panic_abort'
}
it "package: a missing standard library is built from source, or the error says how to get it" missing_standard_library_is_built_or_named

cross_build_without_sysroot_is_refused() {
    toolchain aarch64-unknown-linux-gnu
    PATH=$sandbox/bin package my-bucket --target aarch64
    refuses 'artifacts/sysroot.sh'
}
it "package: the error of a cross build without a sysroot says how to make one" cross_build_without_sysroot_is_refused
