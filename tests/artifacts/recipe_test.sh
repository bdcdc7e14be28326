# shellcheck shell=sh disable=SC2154 # repository comes from run.sh
# The recipe: what Greengrass Lite and the classic nucleus ask of it beyond the schema.

recipe=$repository/recipes/EdgeImpulseLinuxRunnerServiceComponent.yaml

recipe_fits_into_lite() {
    size=$(wc -c <"$recipe")
    [ "$size" -le 8196 ] || fail "$size bytes"
}
it "the recipe fits into what Lite reads" recipe_fits_into_lite

# Lite cuts a script off at any other brace, and runs what is left.
scripts_hold_no_strange_braces() {
    same 9 "$(grep -c 'Script:' "$recipe")"
    strange=$(grep 'Script:' "$recipe" | sed 's/{artifacts:path}//g' | grep '[{}]' || true)
    same '' "$strange"
    # No configuration value ever becomes a shell word.
    has_not "$recipe" 'configuration:/Parameters/'
}
it "scripts hold no braces but Greengrass's own" scripts_hold_no_strange_braces

manifests_differ_in_the_architecture_only() {
    awk -v directory="$sandbox" '/^  - Platform:/ { n++ } n { print > (directory "/manifest" n) }' "$recipe"
    [ ! -e "$sandbox/manifest4" ] || fail "four manifests"
    for pair in 1:aarch64 2:amd64 3:arm; do
        name=${pair#*:}
        manifest=$sandbox/manifest${pair%%:*}
        has "$manifest" "      architecture: $name"
        has "$manifest" '      runtime: "*"'
        sed "s/$name/ARCHITECTURE/" "$manifest" >"$manifest.common"
        cmp "$sandbox/manifest1.common" "$manifest.common" || fail "$name differs"
    done
}
it "the manifests differ in the architecture only, strict ones, each for every runtime" manifests_differ_in_the_architecture_only

# Classic puts artifacts flat by their file name.
artifact_names_are_those_the_scripts_call() {
    names=$(sed -n 's/^ *- Uri: .*\///p' "$recipe" | sort -u | tr '\n' ' ')
    same 'ei-greengrass install.sh ' "$names"
    same 6 "$(grep -c 'Execute: ALL' "$recipe")"
    same 6 "$(grep -c 'Read: ALL' "$recipe")"
}
it "artifacts have the names that the scripts call, and may be executed" artifact_names_are_those_the_scripts_call

configuration_reaches_install_and_run() {
    same 3 "$(grep -c '^      Setenv:$' "$recipe")"
    same 3 "$(grep -c '^        CONFIG_PARAMETERS: "{configuration:/Parameters}"$' "$recipe")"
    # A run step with a Timeout would be killed after it.
    same 3 "$(grep -c 'Timeout:' "$recipe")"
    has_not "$recipe" 'startup'
}
it "the whole configuration reaches every step, and run has no time limit" configuration_reaches_install_and_run

version_is_the_programs() {
    version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$repository/Cargo.toml" | head -n 1)
    has "$recipe" "ComponentVersion: \"$version\""
    same 6 "$(grep -c "s3://YOUR_S3_ARTIFACT_BUCKET/artifacts/EdgeImpulseServiceComponent/$version/" "$recipe")"
}
it "the recipe has the version of the program" version_is_the_programs

scripts_pass_shellcheck() {
    command -v shellcheck >/dev/null 2>&1 || fail 'shellcheck is missing; tests/setup.sh installs it'
    shellcheck "$repository"/artifacts/*.sh "$repository"/tests/artifacts/*.sh
}
it "the scripts pass shellcheck" scripts_pass_shellcheck
