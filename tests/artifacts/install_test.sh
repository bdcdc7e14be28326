# shellcheck shell=sh disable=SC2154,SC2016 # variables of run.sh; variables of the fakes
# artifacts/install.sh on fake machines: a PATH that holds only fakes, which note their calls, and a
# root directory in the sandbox. tests/setup/ tests what the binary does after it.

# -------------------------------------------------------------------------------------- the fakes

# fake NAME BODY: a command that notes its call and then runs BODY.
fake() {
    {
        printf '#!%s\n' "$(command -v sh)"
        printf 'printf "%%s\\n" "%s $*" >>"%s/calls"\n' "$1" "$sandbox"
        printf 'machine="%s"\n%s\n' "$sandbox" "$2"
    } >"$sandbox/bin/$1"
    chmod +x "$sandbox/bin/$1"
}

# A Debian machine on which nothing is installed.
bare_machine() {
    mkdir "$sandbox/bin" "$sandbox/artifacts" "$sandbox/tmp"
    root=$sandbox/root
    mkdir -p "$root/etc" "$root/proc"
    : >"$sandbox/installed"
    : >"$sandbox/calls"
    printf 'ID=debian\n' >"$root/etc/os-release"

    for tool in sh env cat grep sed dirname rm head tail tr cut mktemp date chmod uname; do
        ln -s "$(command -v "$tool")" "$sandbox/bin/$tool"
    done
    fake sleep ''
    fake timeout 'shift 3; exec "$@"'
    fake ldd 'cat "$machine/ldd" 2>/dev/null'
    fake id 'echo 0'
    fake dpkg-query 'grep -qx -e "$3" "$machine/installed" && echo installed'
    fake apt-get 'case " $* " in
        *" update "*)
            [ ! -e "$machine/locked" ] || exit 100
            [ -e "$machine/offline" ] || { rm -f "$machine/no-lists"; exit 0; }
            # A download that fails is a warning, unless a newer apt is told otherwise.
            kind=W
            case "$*" in
            *APT::Update::Error-Mode=any*) [ -e "$machine/old-apt" ] || kind=E ;;
            esac
            echo "$kind: Failed to fetch http://deb.debian.org/InRelease  Temporary failure resolving" >&2
            echo "$kind: Some index files failed to download. They have been ignored, or old ones used instead." >&2
            [ "$kind" = W ] || exit 100 ;;
        *" install "*)
            while [ "$1" != install ]; do shift; done
            shift
            for name in "$@"; do
                [ ! -e "$machine/no-lists" ] ||
                    { echo "E: Unable to locate package $name" >&2; exit 100; }
                ! grep -qx -e "$name" "$machine/unavailable" 2>/dev/null ||
                    { echo "E: Unable to locate package $name" >&2; exit 100; }
                [ ! -e "$machine/offline" ] || {
                    echo "E: Failed to fetch http://deb.debian.org/$name.deb  Temporary failure resolving" >&2
                    echo "E: Unable to fetch some archives, maybe run apt-get update or try with --fix-missing?" >&2
                    exit 100
                }
            done
            for name in "$@"; do echo "$name" >>"$machine/installed"; done ;;
        esac'

    cp "$repository/artifacts/install.sh" "$sandbox/artifacts/install.sh"
    binary=$sandbox/artifacts/ei-greengrass
    {
        printf '#!%s\nmachine="%s"\n' "$(command -v sh)" "$sandbox"
        # shellcheck disable=SC2028
        echo 'case "$*" in
            --version) echo "ei-greengrass 2.0.0" ;;
            "setup "*)
                printf "%s\n" "$*" >>"$machine/calls"
                while [ "$1" != --counts ]; do shift; done
                echo "install: finished, $2" | sed "s/,/ done, /2; s/,/ skipped, /3; s/$/ warnings/" ;;
            esac'
    } >"$binary"
    chmod +x "$binary"
}

# A clock that is this many seconds later each time it is read.
clock_that_jumps() {
    rm "$sandbox/bin/date"
    echo 0 >"$sandbox/clock"
    fake date 'now=$(cat "$machine/clock"); echo $((now + '"$1"')) >"$machine/clock"; echo "$now"'
}

# Runs the script; $status is its exit code.
install_step() {
    status=0
    : >"$sandbox/calls"
    env -i PATH="$sandbox/bin" EI_ROOT="$root" TMPDIR="$sandbox/tmp" CONFIG_PARAMETERS='{}' \
        ${EI_TIME_LIMIT:+EI_TIME_LIMIT="$EI_TIME_LIMIT"} sh "$sandbox/artifacts/install.sh" "$@" >"$sandbox/out" 2>"$sandbox/err" || status=$?
}

succeeds() {
    same 0 "$status"
    has "$sandbox/out" 'install: finished'
    same '' "$(ls -A "$sandbox/tmp")"
}

without_apt() {
    rm "$sandbox/bin/apt-get" "$sandbox/bin/dpkg-query"
}

rpm_machine() {
    without_apt
    printf 'ID="amzn"\nID_LIKE="fedora"\n' >"$root/etc/os-release"
    fake rpm 'grep -qx -e "$2" "$machine/installed"'
    fake "$1" 'while [ "$1" != install ]; do shift; done
        shift
        for name in "$@"; do echo "$name" >>"$machine/installed"; done'
}

# --------------------------------------------------------------------------------------- packages

missing_packages_are_installed() {
    bare_machine
    printf 'v4l-utils\nalsa-utils\n' >"$sandbox/installed"
    install_step
    succeeds
    same 1 "$(grep -c '^apt-get.* update' "$sandbox/calls")"
    same 1 "$(grep -c '^apt-get.* install' "$sandbox/calls")"
    has "$sandbox/calls" 'DPkg::Lock::Timeout='
    has "$sandbox/calls" 'DEBIAN_FRONTEND=noninteractive'
    for name in tools plugins-base plugins-good plugins-bad plugins-ugly libav alsa; do
        has "$sandbox/installed" "gstreamer1.0-$name"
    done
    same 1 "$(grep -cx v4l-utils "$sandbox/installed")"
    has_not "$sandbox/installed" libcamera
}
it "apt: missing packages are installed in one call, installed ones are not requested" missing_packages_are_installed

second_run_changes_nothing() {
    bare_machine
    install_step
    succeeds
    touch "$sandbox/offline"
    install_step
    succeeds
    has "$sandbox/out" 'finished, 0 done'
    has "$sandbox/out" '0 warnings'
    for call in apt-get timeout; do
        has_not "$sandbox/calls" "$call "
    done
}
it "a second run changes nothing and needs no network" second_run_changes_nothing

unavailable_package_does_not_affect_others() {
    bare_machine
    echo gstreamer1.0-libav >"$sandbox/unavailable"
    install_step
    succeeds
    has "$sandbox/err" 'gstreamer1.0-libav could not be installed (E: Unable to locate package gstreamer1.0-libav)'
    has "$sandbox/installed" gstreamer1.0-plugins-bad
    has "$sandbox/out" '1 warnings'
}
it "apt: a package that the release does not have does not affect the others" unavailable_package_does_not_affect_others

no_network_is_a_warning() {
    bare_machine
    touch "$sandbox/offline"
    install_step
    succeeds
    same 1 "$(grep -c '^apt-get.* install' "$sandbox/calls")"
    has "$sandbox/err" 'could not be downloaded (E: Failed to fetch http://deb.debian.org/gstreamer1.0-tools.deb  Temporary failure resolving): gstreamer1.0-tools'
    has_not "$sandbox/calls" 'sleep 60'
    has "$sandbox/calls" 'setup --package-manager apt'
}
it "apt: no network is a warning if the component can start without it" no_network_is_a_warning

locked_lists_are_tried_again() {
    bare_machine
    touch "$sandbox/locked"
    install_step
    succeeds
    same 3 "$(grep -c '^apt-get.* update' "$sandbox/calls")"
    same 2 "$(grep -c '^sleep ' "$sandbox/calls")"
    has "$sandbox/err" 'apt-get update failed'
    has "$sandbox/installed" gstreamer1.0-tools
}
it "apt: locked package lists are tried three times, then the present lists are used" locked_lists_are_tried_again

# A binary that starts only when GStreamer is installed.
binary_needs_gstreamer() {
    {
        printf '#!%s\ngrep -q gstreamer1.0-tools "%s/installed" || { echo "error while loading shared libraries: libgstreamer-1.0.so.0: none" >&2; exit 127; }\n' \
            "$(command -v sh)" "$sandbox"
        sed 1d "$binary"
    } >"$binary.new"
    mv "$binary.new" "$binary"
    chmod +x "$binary"
}

network_is_waited_for() {
    bare_machine
    binary_needs_gstreamer
    touch "$sandbox/offline"
    # shellcheck disable=SC2028
    fake sleep '[ "$(grep -c "^sleep 60" "$machine/calls")" -lt 3 ] || rm -f "$machine/offline"'
    install_step
    succeeds
    same 3 "$(grep -c '^sleep 60' "$sandbox/calls")"
    has "$sandbox/err" 'tried again in 60 s (try 3 of 30)'
    has "$sandbox/out" 'done: packages for GStreamer'
}
it "apt: the step waits for the network if the component cannot start without it" network_is_waited_for

network_is_not_waited_for_for_ever() {
    bare_machine
    binary_needs_gstreamer
    touch "$sandbox/offline"
    install_step
    same 1 "$status"
    same 30 "$(grep -c '^sleep 60' "$sandbox/calls")"
    has "$sandbox/err" 'the shared library libgstreamer-1.0.so.0 is missing'
}
it "apt: the step waits half an hour for the network" network_is_not_waited_for_for_ever

# A fresh image has no package lists: apt knows no package until there is a network.
empty_lists_are_waited_for() {
    place=$sandbox
    for apt in new-apt old-apt; do
        sandbox=$place/$apt
        mkdir "$sandbox"
        bare_machine
        binary_needs_gstreamer
        touch "$sandbox/$apt" "$sandbox/offline" "$sandbox/no-lists"
        # shellcheck disable=SC2028
        fake sleep '[ "$(grep -c "^sleep 60" "$machine/calls")" -lt 2 ] || rm -f "$machine/offline"'
        install_step
        succeeds
        same 2 "$(grep -c '^sleep 60' "$sandbox/calls")"
        has "$sandbox/err" 'are not available because downloads failed'
        has_not "$sandbox/err" 'try: apt install'
        has "$sandbox/out" 'done: packages for GStreamer'
    done
}
it "apt: the step waits for the network if the package lists are empty" empty_lists_are_waited_for

# A package source of the user does not exist any more, and the release lacks one of the packages.
dead_source_does_not_affect_others() {
    bare_machine
    echo gstreamer1.0-libav >"$sandbox/unavailable"
    touch "$sandbox/old-apt"
    fake apt-get-of-debian "$(sed 1,3d "$sandbox/bin/apt-get")"
    fake apt-get 'apt-get-of-debian "$@" || exit
        case " $* " in
        *" update "*) echo "W: Failed to fetch http://gone.example/InRelease  Could not resolve" >&2 ;;
        esac'
    install_step
    succeeds
    has "$sandbox/installed" gstreamer1.0-plugins-bad
    has "$sandbox/err" 'package sources: gstreamer1.0-libav'
    has_not "$sandbox/calls" 'sleep 60'
}
it "apt: a package source that does not answer does not affect the packages of the others" dead_source_does_not_affect_others

unknown_package_is_not_waited_for() {
    bare_machine
    binary_needs_gstreamer
    echo gstreamer1.0-tools >"$sandbox/unavailable"
    install_step
    same 1 "$status"
    has_not "$sandbox/calls" 'sleep '
    has "$sandbox/err" 'gstreamer1.0-tools could not be installed (E: Unable to locate package gstreamer1.0-tools)'
    # A source that answers means that the network works.
    fake apt-get-of-debian "$(sed 1,3d "$sandbox/bin/apt-get")"
    fake apt-get 'case " $* " in
        *" update "*) echo "E: Failed to fetch http://deb.debian.org/Packages  404  Not Found" >&2; exit 100 ;;
        esac
        exec apt-get-of-debian "$@"'
    install_step
    same 1 "$status"
    has_not "$sandbox/calls" 'sleep 60'
}
it "apt: the step does not wait for a package that does not exist" unknown_package_is_not_waited_for

raspberry_pi_gets_libcamera() {
    bare_machine
    mkdir "$root/proc/device-tree"
    printf 'Raspberry Pi 5 Model B Rev 1.0\000' >"$root/proc/device-tree/model"
    install_step
    succeeds
    has "$sandbox/installed" gstreamer1.0-libcamera
}
it "a Raspberry Pi gets the libcamera element" raspberry_pi_gets_libcamera

dnf_installs() {
    bare_machine
    rpm_machine dnf
    install_step
    succeeds
    same 'gstreamer1 gstreamer1-plugins-base gstreamer1-plugins-good' "$(tr '\n' ' ' <"$sandbox/installed" | sed 's/ $//')"
    install_step
    has_not "$sandbox/calls" 'dnf -y'
}
it "dnf: missing packages are installed" dnf_installs

yum_installs() {
    bare_machine
    rpm_machine yum
    install_step
    succeeds
    has "$sandbox/calls" 'yum -y -q install'
}
it "yum is used if there is no dnf" yum_installs

# rpm_machine_without_network dnf|yum OUTPUT
rpm_machine_without_network() {
    bare_machine
    rpm_machine "$1"
    {
        printf '#!%s\ngrep -qx gstreamer1 "%s/installed" || exit 127\n' "$(command -v sh)" "$sandbox"
        sed 1d "$binary"
    } >"$binary.new"
    mv "$binary.new" "$binary"
    chmod +x "$binary"
    touch "$sandbox/offline"
    printf '%s\n' "$2" >"$sandbox/said"
    fake "$1-online" "$(sed 1,3d "$sandbox/bin/$1")"
    fake "$1" '[ ! -e "$machine/offline" ] || { cat "$machine/said" >&2; exit 1; }
        exec '"$1-online"' "$@"'
    # shellcheck disable=SC2028
    fake sleep '[ "$(grep -c "^sleep 60" "$machine/calls")" -lt 2 ] || rm -f "$machine/offline"'
}

rpm_network_is_waited_for() {
    rpm_machine_without_network dnf "Error: Failed to download metadata for repo 'amazonlinux': Cannot download repomd.xml: Cannot download repodata/repomd.xml: All mirrors were tried"
    install_step
    succeeds
    same 2 "$(grep -c '^sleep 60' "$sandbox/calls")"
    has "$sandbox/err" 'packages for GStreamer could not be downloaded'
    sandbox=$sandbox/yum
    mkdir "$sandbox"
    rpm_machine_without_network yum ' One of the configured repositories failed (Unknown),
Could not retrieve mirrorlist http://amazonlinux.default.amazonaws.com/mirror.list error was
14: curl#6 - "Could not resolve host: amazonlinux.default.amazonaws.com"'
    install_step
    succeeds
    same 2 "$(grep -c '^sleep 60' "$sandbox/calls")"
}
it "dnf, yum: the step waits for the network if the component cannot start without it" rpm_network_is_waited_for

rpm_unknown_package_is_not_waited_for() {
    rpm_machine_without_network dnf 'Error: Unable to find a match: gstreamer1'
    install_step
    same 1 "$status"
    has_not "$sandbox/calls" 'sleep '
    has "$sandbox/err" 'gstreamer1 could not be installed (Error: Unable to find a match: gstreamer1)'
    printf '%s\n' '  - Status code: 404 for http://mirror.example/repodata/repomd.xml' \
        "Error: Failed to download metadata for repo 'old': Cannot download repomd.xml: All mirrors were tried" >"$sandbox/said"
    install_step
    same 1 "$status"
    has_not "$sandbox/calls" 'sleep '
}
it "dnf: the step does not wait for a package that does not exist" rpm_unknown_package_is_not_waited_for

no_package_is_installed_on_yocto() {
    bare_machine
    # Some images have apt-get with no feed behind it.
    printf 'ID=poky\nVERSION_ID=5.0\n' >"$root/etc/os-release"
    install_step
    succeeds
    has_not "$sandbox/calls" 'apt-get '
    has "$sandbox/calls" 'setup --package-manager none'
}
it "Yocto: no package is installed" no_package_is_installed_on_yocto

kvssink_packages_are_installed_by_finish() {
    bare_machine
    install_step
    succeeds
    has_not "$sandbox/installed" liblog4cplus-dev
    install_step --finish
    succeeds
    has_not "$sandbox/installed" liblog4cplus-dev
    install_step --finish --kvssink
    succeeds
    has "$sandbox/installed" liblog4cplus-dev
    has "$sandbox/out" 'done: packages for kvssink: '
    has "$sandbox/calls" 'setup --kvssink --package-manager apt --counts 1,1,0 --time-limit 6'
}
it "the packages to build kvssink are installed outside the install step" kvssink_packages_are_installed_by_finish

# ------------------------------------------------------------------------------- Greengrass Lite

# A machine with Greengrass Lite and systemd. The service is active while "service-active" exists.
lite_machine() {
    bare_machine
    mkdir -p "$root/etc/greengrass/config.d" "$root/run/systemd/system"
    fake systemctl 'case "$*" in
        "is-active --quiet ei-greengrass-install") [ -e "$machine/service-active" ] ;;
        esac'
    fake systemd-run '[ ! -e "$machine/no-service" ]'
}

# Replaces a fake by the real tool, or adds it.
real() {
    for tool in "$@"; do
        rm -f "$sandbox/bin/$tool"
        ln -s "$(command -v "$tool")" "$sandbox/bin/$tool"
    done
}

# apt-get never ends its installation of the packages that the binary does not need to start.
slow_installation() {
    real timeout sleep
    fake apt-get-that-ends "$(sed 1,3d "$sandbox/bin/apt-get")"
    fake apt-get 'case " $* " in
        *" install "*gstreamer1.0-libav*) exec sleep 600 ;;
        esac
        exec apt-get-that-ends "$@"'
}

# Runs the step with this many seconds; fails if it takes ten more.
quick_install_step() {
    began=$(date +%s)
    export EI_TIME_LIMIT="$1"
    install_step
    unset EI_TIME_LIMIT
    took=$(($(date +%s) - began))
    [ "$took" -le $(($1 + 10)) ] || fail "the step took $took s"
}

lite_ends_in_time() {
    lite_machine
    binary_needs_gstreamer
    sed -i 's/grep -q gstreamer1.0-tools/grep -q gstreamer1.0-plugins-base/' "$binary"
    slow_installation
    quick_install_step 3
    succeeds
    has "$sandbox/out" 'done: packages for the start of the component: gstreamer1.0-plugins-base'
    has "$sandbox/err" 'packages for GStreamer are not complete: this step has no more time (Greengrass Lite allows 300 s): gstreamer1.0-tools'
    has "$sandbox/calls" 'setup --lacks-packages --package-manager apt --counts 1,1,1 --time-limit '
    # The step does not start the service: setup does, after the user exists.
    has_not "$sandbox/calls" 'systemd-run '
}
it "Lite: the step ends in its time and the component starts without the other packages" lite_ends_in_time

lite_fails_only_without_the_essential() {
    lite_machine
    binary_needs_gstreamer
    real timeout sleep
    fake apt-get 'case " $* " in
        *" install "*) exec sleep 600 ;;
        esac'
    quick_install_step 3
    same 1 "$status"
    has "$sandbox/err" 'the shared library libgstreamer-1.0.so.0 is missing'
    has "$sandbox/err" 'the service ei-greengrass-install installs the packages (journalctl -u ei-greengrass-install): deploy again when it has ended'
    has "$sandbox/calls" 'systemd-run --quiet --unit=ei-greengrass-install '
    has "$sandbox/calls" "/bin/sh $sandbox/artifacts/install.sh --finish"
}
it "Lite: the step fails only if the component cannot start, and a service installs the packages" lite_fails_only_without_the_essential

lite_waits_for_the_service() {
    lite_machine
    binary_needs_gstreamer
    touch "$sandbox/service-active"
    # shellcheck disable=SC2028
    fake sleep '[ "$(grep -c "^sleep 5" "$machine/calls")" -lt 3 ] || echo gstreamer1.0-tools >>"$machine/installed"'
    install_step
    succeeds
    same 3 "$(grep -c '^sleep 5' "$sandbox/calls")"
    has "$sandbox/out" 'skipped: packages: the service ei-greengrass-install is at work'
    has "$sandbox/calls" 'setup --lacks-packages '
    has_not "$sandbox/calls" 'apt-get '
}
it "Lite: while the service installs packages the step installs none" lite_waits_for_the_service

lite_without_network() {
    lite_machine
    touch "$sandbox/offline"
    install_step
    succeeds
    has "$sandbox/calls" 'setup --lacks-packages '
    # If the component cannot start without the packages, the step waits, but not half an hour.
    binary_needs_gstreamer
    clock_that_jumps 2
    install_step
    same 1 "$status"
    has "$sandbox/err" 'the time that Greengrass allows (240 s) is used up'
    waits=$(grep -c '^sleep 15' "$sandbox/calls")
    [ "$waits" -ge 1 ] || fail 'it did not wait'
    [ "$waits" -lt 16 ] || fail "$waits waits of 15 s"
}
it "Lite: the step does not wait for the network beyond its time" lite_without_network

service_waits_for_the_network() {
    lite_machine
    touch "$sandbox/offline"
    # shellcheck disable=SC2028
    fake sleep '[ "$(grep -c "^sleep 60" "$machine/calls")" -lt 3 ] || rm -f "$machine/offline"'
    install_step --finish
    succeeds
    same 3 "$(grep -c '^sleep 60' "$sandbox/calls")"
    has "$sandbox/out" 'done: packages for GStreamer'
    has "$sandbox/out" 'the component uses what is new after its next start'
}
it "the service waits for the network" service_waits_for_the_network

lite_is_recognised() {
    bare_machine
    mkdir -p "$root/etc/greengrass"
    touch "$root/etc/greengrass/config.yaml"
    touch "$sandbox/offline"
    install_step
    has "$sandbox/calls" '--lacks-packages'
    # The binary of classic, although Lite is installed; and Lite's binary by the unit beside its artifacts.
    version=packages/artifacts/EdgeImpulseLinuxRunnerServiceComponent/2.0.0
    mkdir -p "$sandbox/gg/config" "$sandbox/gg/${version%/*}"
    mv "$sandbox/artifacts" "$sandbox/gg/$version"
    ln -s "gg/$version" "$sandbox/artifacts"
    touch "$sandbox/gg/config/config.tlog"
    install_step
    has_not "$sandbox/calls" '--lacks-packages'
    rm -r "$sandbox/gg/config" "$root/etc/greengrass"
    install_step
    has_not "$sandbox/calls" '--lacks-packages'
    touch "$sandbox/gg/ggl.EdgeImpulseLinuxRunnerServiceComponent.install.service"
    install_step
    has "$sandbox/calls" '--lacks-packages'
}
it "Lite is recognised by its configuration or its unit, and classic by its own" lite_is_recognised

interrupted_dpkg_is_repaired() {
    bare_machine
    fake dpkg-query 'case "$*" in
        *Status}\\n) cat "$machine/states" ;;
        *) grep -qx -e "$3" "$machine/installed" && echo installed ;;
        esac'
    fake dpkg 'case "$*" in
        *" --configure -a") echo installed >"$machine/states" ;;
        esac'
    printf 'installed\nhalf-configured\ninstalled\n' >"$sandbox/states"
    install_step
    succeeds
    has "$sandbox/out" 'done: packages configured that an interrupted installation had left behind'
    order=$(grep -Eo '^dpkg .*--configure -a|^apt-get .* (update|install)' "$sandbox/calls" | sed 's/^\([^ ]*\).* /\1 /')
    same 'dpkg -a,apt-get update,apt-get install' "$(printf '%s' "$order" | tr '\n' ',')"
    install_step
    succeeds
    has "$sandbox/out" 'finished, 0 done'
    has_not "$sandbox/calls" '--configure'
}
it "apt: what an interrupted installation left behind is configured first" interrupted_dpkg_is_repaired

long_outputs_are_quiet() {
    bare_machine
    # More than a pipe holds; a reader that ends early makes the writer print an error.
    real grep
    fake apt-get 'number=0
        while [ "$number" -lt 4000 ]; do
            number=$((number + 1))
            echo "E: Failed to fetch http://deb.debian.org/$number  Temporary failure resolving" >&2
        done
        exit 100'
    (
        trap '' PIPE
        install_step
        succeeds
    )
    has_not "$sandbox/err" 'Broken pipe'
    has_not "$sandbox/err" 'write error'
    has "$sandbox/err" 'could not be downloaded (E: Failed to fetch http://deb.debian.org/1  Temporary failure resolving)'
}
it "long outputs cause no errors of pipes" long_outputs_are_quiet

# ------------------------------------------------------------------------------ the binary and setup

# packaged [SUM]: the script with the sum of the binary, or with another one, as package.sh writes it.
packaged() {
    rm -f "$sandbox/bin/sha256sum" "$sandbox/bin/cut"
    ln -s "$(command -v sha256sum)" "$(command -v cut)" "$sandbox/bin/"
    sum=${1:-$(sha256sum <"$binary" | cut -d' ' -f1)}
    sed "s|^SUMS=''\$|SUMS='${sum}  amd64/ei-greengrass'|" "$repository/artifacts/install.sh" >"$sandbox/artifacts/install.sh"
}

changed_binary_is_refused() {
    bare_machine
    # The binary notes that it ran.
    sed -i "2a echo ran >>\"$sandbox/ran\"" "$binary"
    packaged
    install_step
    succeeds
    expected=$sum
    rm "$sandbox/ran"
    echo '# one more byte' >>"$binary"
    found=$(sha256sum <"$binary" | cut -d' ' -f1)
    for arguments in '' --dry-run --finish '--finish --kvssink' --start-service; do
        # shellcheck disable=SC2086 # the arguments are words
        install_step $arguments
        same 1 "$status"
        has "$sandbox/err" "error: $sandbox/artifacts/ei-greengrass is not the file that this install.sh was packaged with"
        has "$sandbox/err" "SHA-256 expected $expected, found $found"
        has "$sandbox/err" 'Deploy again'
        [ ! -e "$sandbox/ran" ] || fail "$arguments: the binary ran"
        has_not "$sandbox/calls" 'apt-get '
        same '' "$(ls -A "$sandbox/tmp")"
    done
    # The sums of a package with several architectures.
    sed -i "s|^SUMS='.*|SUMS='$(printf '%064d' 1)  aarch64/ei-greengrass\n$found  amd64/ei-greengrass'|" "$sandbox/artifacts/install.sh"
    install_step
    succeeds
}
it "a binary with one changed byte is refused before anything runs" changed_binary_is_refused

sums_are_made_by_what_is_there() {
    bare_machine
    packaged "$(printf '%064d' 1)"
    rm "$sandbox/bin/sha256sum"
    fake busybox '[ "$1" = sha256sum ] && exec '"$(command -v sha256sum)"
    install_step
    same 1 "$status"
    has "$sandbox/err" "found $(sha256sum <"$binary" | cut -d' ' -f1)"
    rm "$sandbox/bin/busybox"
    install_step
    succeeds
    has "$sandbox/err" 'is not checked: sha256sum (coreutils or busybox) is missing'
}
it "busybox makes the sum where there is no sha256sum, and without both there is a warning" sums_are_made_by_what_is_there

signature_is_checked_with_the_key_of_the_device() {
    bare_machine
    packaged
    mkdir -p "$root/etc/ei-greengrass"
    fake minisign 'case "$*" in
        "-V -q -p $machine/root/etc/ei-greengrass/minisign.pub -m "*) ;;
        *) exit 9 ;;
        esac
        grep -q amd64/ei-greengrass "$6" && grep -qx good "$8" || { echo "Signature verification failed" >&2; exit 1; }'
    # Without a key nothing is asked for.
    install_step
    succeeds
    has_not "$sandbox/calls" 'minisign '
    touch "$root/etc/ei-greengrass/minisign.pub"
    install_step
    same 1 "$status"
    has "$sandbox/err" 'this package has no signature'
    has "$sandbox/err" 'package.sh --sign KEY'
    sed -i "s|^SIGNATURE=''|SIGNATURE='untrusted comment: x\ngood'|" "$sandbox/artifacts/install.sh"
    install_step
    succeeds
    sed -i "s|^good'|bad'|" "$sandbox/artifacts/install.sh"
    install_step
    same 1 "$status"
    has "$sandbox/err" 'the signature of this package does not belong to'
    has "$sandbox/err" 'Signature verification failed'
    same '' "$(ls -A "$sandbox/tmp")"
    rm "$sandbox/bin/minisign"
    install_step
    succeeds
    has "$sandbox/err" 'minisign is not installed'
    # A key of cosign.
    mv "$root/etc/ei-greengrass/minisign.pub" "$root/etc/ei-greengrass/cosign.pub"
    fake cosign 'exit 1'
    install_step
    same 1 "$status"
    has "$sandbox/calls" "cosign verify-blob --key $root/etc/ei-greengrass/cosign.pub "
}
it "a signature is checked where a public key is, and then an unsigned package is refused" signature_is_checked_with_the_key_of_the_device

setup_gets_counts_and_time() {
    bare_machine
    echo gstreamer1.0-libav >"$sandbox/unavailable"
    install_step
    succeeds
    # Nine packages one by one and one warning; the binary is skipped.
    has "$sandbox/calls" 'setup --package-manager apt --counts 9,1,1 --time-limit 6'
    has_not "$sandbox/calls" '--dry-run'
    # The exit code of setup is the one of the step.
    sed -i 's/^ *echo "install: finished/exit 7; &/' "$binary"
    install_step
    same 7 "$status"
    same '' "$(ls -A "$sandbox/tmp")"
}
it "setup gets the package manager, the counts and the time that is left" setup_gets_counts_and_time

failing_binary() {
    printf '#!%s\necho "%s" >&2\nexit 127\n' "$(command -v sh)" "$1" >"$binary"
}

missing_library_is_named() {
    bare_machine
    failing_binary 'error while loading shared libraries: libgstvideo-1.0.so.0: cannot open'
    printf '\tlibgstvideo-1.0.so.0 => not found\n\tlibc.so.6 => /lib/libc.so.6 (0x1)\n' >"$sandbox/ldd"
    install_step
    same 1 "$status"
    has "$sandbox/err" 'the shared library libgstvideo-1.0.so.0 is missing; install libgstreamer-plugins-base1.0-0'
    # The same if the image has no ldd.
    rm "$sandbox/bin/ldd"
    install_step
    same 1 "$status"
    has "$sandbox/err" 'the shared library libgstvideo-1.0.so.0 is missing'
}
it "a missing shared library ends the step and is named" missing_library_is_named

too_new_binary_is_explained() {
    bare_machine
    failing_binary "libc.so.6: version GLIBC_2.38 not found"
    install_step
    same 1 "$status"
    has "$sandbox/err" 'built for a newer system (GLIBC_2.38)'
}
it "a binary for a newer system ends the step and is explained" too_new_binary_is_explained

missing_binary_is_an_error() {
    bare_machine
    rm "$binary"
    install_step
    same 1 "$status"
    has "$sandbox/err" 'is missing'
}
it "a missing binary ends the step" missing_binary_is_an_error

used_up_budget_ends_the_step() {
    bare_machine
    binary_needs_gstreamer
    clock_that_jumps 7000
    install_step
    same 1 "$status"
    has "$sandbox/err" 'no time left within 6900 s'
    has "$sandbox/err" 'error: '
    has "$sandbox/err" 'the shared library libgstreamer-1.0.so.0 is missing'
    has_not "$sandbox/calls" 'apt-get '
    # The time of waiting for the network counts too.
    clock_that_jumps 3000
    touch "$sandbox/offline"
    install_step
    same 1 "$status"
    has_not "$sandbox/calls" 'sleep 60'
}
it "the step ends by itself with an error when its time is used up" used_up_budget_ends_the_step

hanging_command_is_killed() {
    bare_machine
    # The exit code of timeout after it ended a command.
    fake timeout 'exit 124'
    install_step
    succeeds
    has "$sandbox/calls" 'timeout -k 30 1800 env'
    has "$sandbox/err" 'could not be installed (it did not end within 300 s)'
}
it "a command that hangs is ended, then killed, and named" hanging_command_is_killed

limit_is_below_greengrass() {
    budget=$(sed -n 's/^BUDGET=//p' "$repository/artifacts/install.sh")
    after=$(sed -n 's/^KILL_AFTER=//p' "$repository/artifacts/install.sh")
    wait=$(sed -n 's/^NETWORK_WAIT=//p' "$repository/artifacts/install.sh")
    timeouts=$(sed -n 's/^ *Timeout: //p' "$repository"/recipes/*.yaml | sort -u)
    [ "$((budget + after + wait))" -lt "$timeouts" ] || fail "$budget + $after + $wait s, and Greengrass gives $timeouts s"
}
it "the script's own limit ends before the recipe's" limit_is_below_greengrass

missing_timeout_is_a_warning() {
    bare_machine
    rm "$sandbox/bin/timeout"
    install_step
    succeeds
    same 1 "$(grep -c 'the tool timeout (coreutils) is missing' "$sandbox/err")"
}
it "a machine without the tool timeout gets one warning" missing_timeout_is_a_warning

further_arguments_are_refused() {
    bare_machine
    install_step --dry-run --now
    same 1 "$status"
    has "$sandbox/err" 'unknown argument --now; usage: install.sh [--dry-run] [--help]'
    same '' "$(cat "$sandbox/calls")"
}
it "unknown arguments are refused at any position" further_arguments_are_refused

needs_root() {
    bare_machine
    fake id 'echo 1000'
    install_step
    same 1 "$status"
    has "$sandbox/err" 'RequiresPrivilege'
}
it "without root the step ends with the reason" needs_root

dry_run_changes_nothing() {
    bare_machine
    find "$root" "$sandbox/artifacts" -exec ls -ld {} + >"$sandbox/before"
    install_step --dry-run
    succeeds
    find "$root" "$sandbox/artifacts" -exec ls -ld {} + >"$sandbox/after"
    cmp "$sandbox/before" "$sandbox/after" || fail 'something changed'
    for call in apt-get timeout; do
        has_not "$sandbox/calls" "$call "
    done
    has "$sandbox/out" 'would be done: packages for GStreamer'
    has "$sandbox/calls" 'setup --package-manager apt --counts 1,1,0'
    has "$sandbox/calls" ' --dry-run'
}
it "a dry run prints what would be done and changes nothing" dry_run_changes_nothing

dry_run_without_a_binary_that_starts() {
    bare_machine
    binary_needs_gstreamer
    install_step --dry-run
    succeeds
    has "$sandbox/out" 'would be done: packages for GStreamer'
    has "$sandbox/err" 'the shared library libgstreamer-1.0.so.0 is missing'
    has "$sandbox/err" 'the steps after the packages cannot be shown'
    has "$sandbox/out" 'finished, 1 done, 0 skipped, 2 warnings'
}
it "a dry run ends after the packages if the binary does not start yet" dry_run_without_a_binary_that_starts
