# shellcheck shell=bash disable=SC2154 # variables of package.sh
# The tools that only packaging needs. package.sh builds them once, at these versions, into target/tools.

readonly AUDITABLE=cargo-auditable@0.7.7
readonly CYCLONEDX=cargo-cyclonedx@0.5.9
readonly ABOUT=cargo-about@0.9.3

# Puts the tools into PATH, and builds those that are missing or of another version.
provide_tools() {
    local tool name version features tools=$target_directory/tools
    for tool in "$AUDITABLE" "$CYCLONEDX" "$ABOUT"; do
        name=${tool%@*} version=${tool#*@} features=()
        # Without this feature only its library is built, and cargo reports no error.
        [[ $tool != "$ABOUT" ]] || features=(--features cli)
        ! grep -qsF "\"$name $version (" "$tools/.crates.toml" || continue
        say "package: building $name $version into $tools (once)"
        # Without what the environment sets for the build of a project.
        env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u RUSTC_WORKSPACE_WRAPPER -u CARGO_BUILD_TARGET -u CARGO_TARGET_DIR \
            cargo install --quiet --locked --force --root "$tools" ${features[@]+"${features[@]}"} "$tool" || true
        [[ -x $tools/bin/$name ]] ||
            fail "$name $version cannot be built; with --no-inventory the package has no list of its crates and needs no further tool"
    done
    export EI_AUDITABLE=$tools/bin/cargo-auditable
    PATH=$root/artifacts/package/auditable:$tools/bin:$PATH
}
