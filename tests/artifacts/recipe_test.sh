# shellcheck shell=sh disable=SC2154 # repository comes from run.sh
# The recipe: what Greengrass Lite and the classic nucleus require beyond the schema.

recipe=$repository/recipes/EdgeImpulseLinuxRunnerServiceComponent.yaml

recipe_fits_into_lite() {
    size=$(wc -c <"$recipe")
    [ "$size" -le 8196 ] || fail "$size bytes"
}
it "the recipe is not longer than what Lite reads" recipe_fits_into_lite

# Lite cuts a script at any other brace, and runs the rest.
scripts_have_no_other_braces() {
    same 3 "$(grep -c '{artifacts:path}' "$recipe")"
    other=$(grep '{artifacts:path}' "$recipe" | sed 's/{artifacts:path}//g' | grep '[{}]' || true)
    same '' "$other"
}
it "scripts have no braces except those of Greengrass" scripts_have_no_other_braces

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
it "the manifests differ only in the architecture, and each is for every runtime" manifests_differ_in_the_architecture_only

# Classic puts all artifacts into one directory, by their file name.
artifacts_have_the_names_that_the_scripts_use() {
    names=$(sed -n 's/^ *- Uri: .*\///p' "$recipe" | sort -u | tr '\n' ' ')
    same 'ei-greengrass install.sh ' "$names"
    # The script is an argument of sh, so it needs no permission. Execute includes Read on both nuclei.
    same 3 "$(grep -A 2 '/ei-greengrass$' "$recipe" | grep -c 'Execute: ALL')"
}
it "artifacts have the names that the scripts use, and the binary may be executed" artifacts_have_the_names_that_the_scripts_use

no_step_is_changed_by_the_configuration() {
    # Lite up to 2.6.0 writes Setenv into a shell script without quotes. The program asks the nucleus instead.
    has_not "$recipe" Setenv
    has_not "$recipe" 'configuration:'
    # Greengrass kills a run step with a Timeout after that time.
    same 1 "$(grep -c 'Timeout:' "$recipe")"
    has_not "$recipe" 'startup'
}
it "no configuration passes through a shell, and run has no time limit" no_step_is_changed_by_the_configuration

token_exchange_service_may_restart() {
    # With HARD, Lite stops the component for good when the service stops.
    has "$recipe" '    DependencyType: SOFT'
    has_not "$recipe" HARD
}
it "a restart of the token exchange service does not end the component" token_exchange_service_may_restart

recipe_has_the_version_of_the_program() {
    version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$repository/Cargo.toml" | head -n 1)
    has "$recipe" "ComponentVersion: \"$version\""
    same 6 "$(grep -c "s3://YOUR_S3_ARTIFACT_BUCKET/artifacts/EdgeImpulseServiceComponent/$version/" "$recipe")"
}
it "the recipe has the version of the program" recipe_has_the_version_of_the_program

scripts_pass_shellcheck() {
    command -v shellcheck >/dev/null 2>&1 || fail 'shellcheck is missing; tests/setup.sh installs it'
    cd "$repository" || exit
    shellcheck -x artifacts/*.sh artifacts/package/*.sh tests/artifacts/*.sh
}
it "the scripts pass shellcheck" scripts_pass_shellcheck
