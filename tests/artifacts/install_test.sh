# shellcheck shell=sh disable=SC2154,SC2016 # variables of run.sh; the stand-ins' own variables
# artifacts/install.sh on stand-in machines: a PATH with nothing but stand-ins that note their
# calls, and a root directory in the sandbox.

# ---------------------------------------------------------------------------------- the stand-ins

# stand_in NAME BODY: a command that notes its call, then does BODY.
stand_in() {
    {
        printf '#!%s\n' "$(command -v sh)"
        printf 'printf "%%s\\n" "%s $*" >>"%s/calls"\n' "$1" "$sandbox"
        printf 'machine="%s"\n%s\n' "$sandbox" "$2"
    } >"$sandbox/bin/$1"
    chmod +x "$sandbox/bin/$1"
}

# A Debian machine on which nothing is installed and no account of Greengrass exists.
bare_machine() {
    mkdir "$sandbox/bin" "$sandbox/artifacts" "$sandbox/members" "$sandbox/config" "$sandbox/tmp"
    root=$sandbox/root
    mkdir -p "$root/etc/ssl/certs" "$root/home" "$root/dev" "$root/proc"
    : >"$sandbox/installed"
    : >"$sandbox/calls"
    printf 'video:x:44:\naudio:x:29:\ninput:x:104:\nusers:x:100:\n' >"$root/etc/group"
    printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
    printf 'ID=debian\n' >"$root/etc/os-release"

    for tool in sh env cat grep sed awk mkdir ln readlink dirname basename rm head tail tr cut mktemp \
        date ls touch chmod uname; do
        ln -s "$(command -v "$tool")" "$sandbox/bin/$tool"
    done
    stand_in sleep ''
    stand_in timeout 'shift 3; exec "$@"'
    stand_in ldd 'cat "$machine/ldd" 2>/dev/null'
    stand_in chown ''
    stand_in chgrp ''
    stand_in getent 'awk -F: -v name="$2" "\$1 == name || \$3 == name { print; found = 1 } END { exit !found }" "$machine/root/etc/$1"'
    stand_in id 'case "$*" in
        -u) echo 0 ;;
        "-u "*) awk -F: -v name="$2" "\$1 == name { print \$3; found = 1 } END { exit !found }" "$machine/root/etc/passwd" ;;
        "-nG "*) cat "$machine/members/$2" 2>/dev/null ;;
        esac'
    stand_in groupadd 'shift; echo "$1:x:900:" >>"$machine/root/etc/group"'
    stand_in useradd 'for name in "$@"; do :; done
        echo "$name:x:900:900::/home/$name:/bin/sh" >>"$machine/root/etc/passwd"
        mkdir -p "$machine/root/home/$name"'
    stand_in usermod 'printf "%s " "$2" >>"$machine/members/$3"'
    stand_in dpkg-query 'grep -qx -e "$3" "$machine/installed" && echo installed'
    stand_in apt-get 'case " $* " in
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
        echo 'case "$1" in
            --version) echo "ei-greengrass 2.0.0" ;;
            config) printf "noise before the value\n"; cat "$machine/config/$3" ;;
            esac'
    } >"$binary"
    chmod +x "$binary"
    echo 'video audio input users' >"$sandbox/config/ei_ggc_user_groups"
    echo /usr/local/bin >"$sandbox/config/ei_bindir"
    echo no >"$sandbox/config/install_kvssink"
}

# Runs the script; $status is its exit code.
install_step() {
    status=0
    : >"$sandbox/calls"
    env -i PATH="$sandbox/bin" EI_ROOT="$root" TMPDIR="$sandbox/tmp" CONFIG_PARAMETERS='{}' \
        sh "$sandbox/artifacts/install.sh" "$@" >"$sandbox/out" 2>"$sandbox/err" || status=$?
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
    stand_in rpm 'grep -qx -e "$2" "$machine/installed"'
    stand_in "$1" 'while [ "$1" != install ]; do shift; done
        shift
        for name in "$@"; do echo "$name" >>"$machine/installed"; done'
}

kvssink_machine() {
    bare_machine
    echo yes >"$sandbox/config/install_kvssink"
    stand_in runuser 'shift 3; exec "$@"'
    stand_in git 'for name in "$@"; do :; done; mkdir -p "$name"'
    stand_in cmake 'case "$1" in
        --build) [ ! -e "$machine/broken" ] || { echo "error: out of memory" >&2; exit 2; }
            mkdir -p "$2" && touch "$2/libgstkvssink.so" ;;
        esac'
    source=$root/home/ggc_user/amazon-kinesis-video-streams-producer-sdk-cpp
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
it "apt: what is missing is installed in one go, what is there is not asked for" missing_packages_are_installed

second_run_changes_nothing() {
    bare_machine
    install_step
    succeeds
    touch "$sandbox/offline"
    install_step
    succeeds
    has "$sandbox/out" 'finished, 0 done'
    has "$sandbox/out" '0 warnings'
    for call in apt-get groupadd useradd usermod chown timeout; do
        has_not "$sandbox/calls" "$call "
    done
}
it "a second run changes nothing and needs no network" second_run_changes_nothing

unavailable_package_costs_only_itself() {
    bare_machine
    echo gstreamer1.0-libav >"$sandbox/unavailable"
    install_step
    succeeds
    has "$sandbox/err" 'gstreamer1.0-libav could not be installed (E: Unable to locate package gstreamer1.0-libav)'
    has "$sandbox/installed" gstreamer1.0-plugins-bad
    has "$sandbox/out" '1 warnings'
}
it "apt: a package that the release does not have costs only itself" unavailable_package_costs_only_itself

no_network_is_a_warning() {
    bare_machine
    touch "$sandbox/offline"
    install_step
    succeeds
    same 1 "$(grep -c '^apt-get.* install' "$sandbox/calls")"
    has "$sandbox/err" 'could not be downloaded (E: Failed to fetch http://deb.debian.org/gstreamer1.0-tools.deb  Temporary failure resolving): gstreamer1.0-tools'
    has_not "$sandbox/calls" 'sleep 60'
    has "$sandbox/out" 'joined the group video'
}
it "apt: no network is a warning where the component starts all the same" no_network_is_a_warning

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
it "apt: locked package lists are tried three times, then those on the machine are used" locked_lists_are_tried_again

# A binary that starts only once GStreamer is there.
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
    stand_in sleep '[ "$(grep -c "^sleep 60" "$machine/calls")" -lt 3 ] || rm -f "$machine/offline"'
    install_step
    succeeds
    same 3 "$(grep -c '^sleep 60' "$sandbox/calls")"
    has "$sandbox/err" 'tried again in 60 s (try 3 of 30)'
    has "$sandbox/out" 'done: packages for GStreamer'
}
it "apt: no network is waited for where the component cannot start without" network_is_waited_for

network_is_not_waited_for_for_ever() {
    bare_machine
    binary_needs_gstreamer
    touch "$sandbox/offline"
    install_step
    same 1 "$status"
    same 30 "$(grep -c '^sleep 60' "$sandbox/calls")"
    has "$sandbox/err" 'the shared library libgstreamer-1.0.so.0 is missing'
}
it "apt: the network is waited for half an hour" network_is_not_waited_for_for_ever

# A fresh image has no package lists: apt knows none of the packages until the network is there.
empty_lists_are_waited_for() {
    place=$sandbox
    for apt in new-apt old-apt; do
        sandbox=$place/$apt
        mkdir "$sandbox"
        bare_machine
        binary_needs_gstreamer
        touch "$sandbox/$apt" "$sandbox/offline" "$sandbox/no-lists"
        # shellcheck disable=SC2028
        stand_in sleep '[ "$(grep -c "^sleep 60" "$machine/calls")" -lt 2 ] || rm -f "$machine/offline"'
        install_step
        succeeds
        same 2 "$(grep -c '^sleep 60' "$sandbox/calls")"
        has "$sandbox/err" 'could not be had, since downloads failed'
        has_not "$sandbox/err" 'try: apt install'
        has "$sandbox/out" 'done: packages for GStreamer'
    done
}
it "apt: no network is waited for with empty package lists, too" empty_lists_are_waited_for

# Somebody's own source is away for good, and the release does not have one of the packages.
dead_source_costs_no_package() {
    bare_machine
    echo gstreamer1.0-libav >"$sandbox/unavailable"
    touch "$sandbox/old-apt"
    stand_in apt-get-of-debian "$(sed 1,3d "$sandbox/bin/apt-get")"
    stand_in apt-get 'apt-get-of-debian "$@" || exit
        case " $* " in
        *" update "*) echo "W: Failed to fetch http://gone.example/InRelease  Could not resolve" >&2 ;;
        esac'
    install_step
    succeeds
    has "$sandbox/installed" gstreamer1.0-plugins-bad
    has "$sandbox/err" 'package sources: gstreamer1.0-libav'
    has_not "$sandbox/calls" 'sleep 60'
}
it "apt: a source that is away costs none of the packages of the others" dead_source_costs_no_package

unknown_package_is_not_waited_for() {
    bare_machine
    binary_needs_gstreamer
    echo gstreamer1.0-tools >"$sandbox/unavailable"
    install_step
    same 1 "$status"
    has_not "$sandbox/calls" 'sleep '
    has "$sandbox/err" 'gstreamer1.0-tools could not be installed (E: Unable to locate package gstreamer1.0-tools)'
    # A source that answers is no network that is away.
    stand_in apt-get-of-debian "$(sed 1,3d "$sandbox/bin/apt-get")"
    stand_in apt-get 'case " $* " in
        *" update "*) echo "E: Failed to fetch http://deb.debian.org/Packages  404  Not Found" >&2; exit 100 ;;
        esac
        exec apt-get-of-debian "$@"'
    install_step
    same 1 "$status"
    has_not "$sandbox/calls" 'sleep 60'
}
it "apt: a package that does not exist is not waited for" unknown_package_is_not_waited_for

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
    has_not "$sandbox/calls" 'dnf '
}
it "dnf: what is missing is installed" dnf_installs

yum_installs() {
    bare_machine
    rpm_machine yum
    install_step
    succeeds
    has "$sandbox/calls" 'yum -y -q install'
}
it "yum is used where there is no dnf" yum_installs

# rpm_machine_without_network dnf|yum WHAT-IT-SAYS
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
    stand_in "$1-online" "$(sed 1,3d "$sandbox/bin/$1")"
    stand_in "$1" '[ ! -e "$machine/offline" ] || { cat "$machine/said" >&2; exit 1; }
        exec '"$1-online"' "$@"'
    # shellcheck disable=SC2028
    stand_in sleep '[ "$(grep -c "^sleep 60" "$machine/calls")" -lt 2 ] || rm -f "$machine/offline"'
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
it "dnf, yum: no network is waited for where the component cannot start without" rpm_network_is_waited_for

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
it "dnf: a package that does not exist is not waited for" rpm_unknown_package_is_not_waited_for

yocto_is_checked_and_reported() {
    bare_machine
    # Some images have apt-get with no feed behind it.
    printf 'ID=poky\nVERSION_ID=5.0\n' >"$root/etc/os-release"
    stand_in gst-inspect-1.0 '[ "$2" != v4l2src ]'
    install_step
    succeeds
    has_not "$sandbox/calls" 'apt-get '
    has "$sandbox/err" 'lacks GStreamer elements: v4l2src (gstreamer1.0-plugins-good)'
}
it "Yocto: nothing is installed, and what the image lacks is named" yocto_is_checked_and_reported

# ----------------------------------------------------------------------------------------- account

account_is_created() {
    bare_machine
    install_step
    succeeds
    has "$sandbox/calls" 'groupadd --system ggc_group'
    has "$sandbox/calls" 'useradd --system --create-home --gid ggc_group ggc_user'
    same 'video audio input users ' "$(cat "$sandbox/members/ggc_user")"
}
it "classic: user, group and home are created, and the groups joined" account_is_created

missing_home_is_created() {
    bare_machine
    echo 'ggc_group:x:900:' >>"$root/etc/group"
    echo 'ggc_user:x:900:900::/home/ggc_user:/bin/sh' >>"$root/etc/passwd"
    install_step
    succeeds
    [ -d "$root/home/ggc_user" ] || fail 'no home'
    has "$sandbox/calls" "chown ggc_user:ggc_group $root/home/ggc_user"
    has_not "$sandbox/calls" 'useradd '
}
it "a missing home of an existing user is created" missing_home_is_created

nonexistent_home_is_not_created() {
    kvssink_machine
    echo 'ggc_group:x:900:' >>"$root/etc/group"
    echo 'ggc_user:x:900:900::/nonexistent:/bin/false' >>"$root/etc/passwd"
    install_step
    succeeds
    [ ! -e "$root/nonexistent" ] || fail 'the home was created'
    has "$sandbox/err" 'kvssink is not built'
}
it "a user that is meant to have no home gets none" nonexistent_home_is_not_created

lite_has_its_own_account() {
    bare_machine
    mkdir -p "$root/etc/greengrass/config.d"
    printf 'services:\n  aws.greengrass.NucleusLite:\n    configuration:\n' >"$root/etc/greengrass/config.d/greengrass-lite.yaml"
    install_step
    succeeds
    has "$sandbox/out" 'service user ggcore:ggcore'
    has "$sandbox/calls" 'usermod -aG video ggcore'
    has_not "$root/etc/passwd" ggc_user
}
it "Lite: the account is ggcore" lite_has_its_own_account

configured_account_is_used() {
    bare_machine
    mkdir -p "$root/etc/greengrass/config.d"
    printf 'services:\n  N:\n    configuration:\n      runWithDefault:\n        posixUser: "edge:staff"\n' \
        >"$root/etc/greengrass/config.d/greengrass-lite.yaml"
    install_step
    succeeds
    has "$sandbox/out" 'service user edge:staff'
}
it "Lite: a configured posixUser is the account" configured_account_is_used

# lite_config FILE POSIX-USER
lite_config() {
    mkdir -p "$root/etc/greengrass/config.d"
    printf -- '---\nservices:\n  aws.greengrass.NucleusLite:\n    configuration:\n      runWithDefault:\n        posixUser: "%s"\n' \
        "$2" >"$root/etc/greengrass/$1"
}

lite_is_found_by_config_yaml_alone() {
    bare_machine
    lite_config config.yaml edge:staff
    rmdir "$root/etc/greengrass/config.d"
    install_step
    succeeds
    has "$sandbox/out" 'service user edge:staff'
    printf 'system:\n  rootPath: /var/lib/greengrass\n' >"$root/etc/greengrass/config.yaml"
    install_step
    succeeds
    has "$sandbox/out" 'service user ggcore:ggcore'
}
it "Lite: /etc/greengrass/config.yaml alone makes it Lite" lite_is_found_by_config_yaml_alone

lite_takes_the_last_file() {
    bare_machine
    lite_config config.yaml first:first
    lite_config config.d/greengrass-lite.yaml second:second
    lite_config config.d/z-mine.yaml edge:staff
    lite_config config.d/a.yaml third:third
    # Says nothing of a user.
    printf 'services: {}\n' >"$root/etc/greengrass/config.d/zz-other.yaml"
    install_step
    succeeds
    has "$sandbox/out" 'service user edge:staff'
}
it "Lite: config.yaml, then the files of config.d by name; the last posixUser is the account" lite_takes_the_last_file

# The script where the classic nucleus puts it.
classic_place() {
    place=$sandbox/gg/packages/artifacts/EdgeImpulseLinuxRunnerServiceComponent
    mkdir -p "$place" "$sandbox/gg/config"
    mv "$sandbox/artifacts" "$place/2.0.0"
    ln -s "$place/2.0.0" "$sandbox/artifacts"
}

classic_configured_account_is_used() {
    bare_machine
    classic_place
    printf 'configuration:\n  runWithDefault:\n    posixUser: 1000:1000\n' >"$sandbox/gg/config/effectiveConfig.yaml"
    echo 'pi:x:1000:1000::/home/pi:/bin/sh' >>"$root/etc/passwd"
    echo 'pi:x:1000:' >>"$root/etc/group"
    install_step
    succeeds
    has "$sandbox/out" 'service user pi:pi'
}
it "classic: a configured posixUser is the account, numbers too" classic_configured_account_is_used

lite_beside_classic_changes_nothing() {
    bare_machine
    classic_place
    printf 'runWithDefault:\n  posixUser: "edge:staff"\n' >"$sandbox/gg/config/effectiveConfig.yaml"
    lite_config config.d/greengrass-lite.yaml ggcore:ggcore
    install_step
    succeeds
    has "$sandbox/out" 'service user edge:staff'
    # Lite's artifacts lie in the same order, but its root has no such configuration.
    rm "$sandbox/gg/config/effectiveConfig.yaml"
    install_step
    succeeds
    has "$sandbox/out" 'service user ggcore:ggcore'
}
it "classic: a script below its root is not taken for Lite's" lite_beside_classic_changes_nothing

# effective_config LINE...: as the nucleus writes it; the lines come where the component's runWith does.
effective_config() {
    cat <<'YAML'
---
services:
  aws.greengrass.Nucleus:
    componentType: "NUCLEUS"
    configuration:
      awsRegion: "eu-west-1"
      runWithDefault:
        posixUser: "ggc_user:ggc_group"
    dependencies: []
    version: "2.12.0"
  AnotherComponent:
    dependencies: []
    lifecycle:
      run:
        script: |-
          cat <<EOF
          runWith:
            posixUser: nobody
          EOF
    runWith:
      posixUser: "another:another"
    version: "1.0.0"
  EdgeImpulseLinuxRunnerServiceComponent:
    componentType: "GENERIC"
    configuration:
      Parameters:
        device_name: "posixUser: cam"
    dependencies:
    - "aws.greengrass.TokenExchangeService:HARD"
    lifecycle:
      Setenv:
        CONFIG_PARAMETERS: "{configuration:/Parameters}"
      run:
        Script: "exec \"{artifacts:path}/ei-greengrass\" run"
YAML
    printf '%s\n' "$@"
    cat <<'YAML'
    version: "2.0.0"
  main:
    dependencies:
    - "EdgeImpulseLinuxRunnerServiceComponent:HARD"
system:
  rootpath: "/greengrass/v2"
YAML
}

own_account_comes_first() {
    bare_machine
    classic_place
    effective_config '    runWith:' '      posixUser: "edge:staff"' >"$sandbox/gg/config/effectiveConfig.yaml"
    install_step
    succeeds
    has "$sandbox/out" 'service user edge:staff'
    # Without one of its own the component runs as all do, whatever others have.
    effective_config >"$sandbox/gg/config/effectiveConfig.yaml"
    install_step
    succeeds
    has "$sandbox/out" 'service user ggc_user:ggc_group'
}
it "classic: the component's own posixUser comes before everybody's" own_account_comes_first

deployed_account_is_found_at_once() {
    bare_machine
    classic_place
    effective_config >"$sandbox/gg/config/effectiveConfig.yaml"
    log=$sandbox/gg/config/config.tlog
    {
        echo '{"TS":1,"TP":["services","aws.greengrass.Nucleus","configuration","runWithDefault","posixUser"],"W":"changed","V":"pi:pi"}'
        echo '{"TS":2,"TP":["services","EdgeImpulseLinuxRunnerServiceComponent","configuration","Parameters","posixUser"],"W":"changed","V":"a:a"}'
        echo '{"TS":2,"TP":["services","EdgeImpulseLinuxRunnerServiceComponent","runWith","posixUser"],"W":"changed","V":"old:old"}'
        echo '{"TS":3,"TP":["services","EdgeImpulseLinuxRunnerServiceComponent","runWith","posixUser"],"W":"changed","V":"edge:staff"}'
        echo '{"TS":4,"TP":["services","EdgeImpulseLinuxRunnerServiceComponent","runWith","posixUser"],"W":"timestampUpdated","V":null}'
        echo '{"TS":5,"TP":["services","AnotherComponent","runWith","posixUser"],"W":"changed","V":"another:another"}'
    } >"$log"
    install_step
    succeeds
    has "$sandbox/out" 'service user edge:staff'
    # Taken back.
    echo '{"TS":6,"TP":["services","EdgeImpulseLinuxRunnerServiceComponent","runWith"],"W":"removed","V":null}' >>"$log"
    install_step
    succeeds
    has "$sandbox/out" 'service user pi:pi'
}
it "classic: the posixUser of this deployment is found before the nucleus writes effectiveConfig.yaml" deployed_account_is_found_at_once

# lock_files OWNER-OF-THE-SERVICE: a machine with a lock file, which belongs to who runs the tests.
lock_files() {
    bare_machine
    ln -s "$(command -v flock)" "$sandbox/bin/flock"
    echo 'ggc_group:x:900:' >>"$root/etc/group"
    echo "ggc_user:x:$1:900::/home/ggc_user:/bin/sh" >>"$root/etc/passwd"
    mkdir "$root/tmp"
    lock=$root/tmp/ei_lockfile_runner_cam
    echo 4711 >"$lock"
}

lock_file_of_another_user_is_removed() {
    lock_files 4242
    touch "$root/tmp/ei_lockfile_runner_my cam" "$root/tmp/other"
    echo precious >"$sandbox/precious"
    ln -s "$sandbox/precious" "$root/tmp/ei_lockfile_runner_link"
    mkdir "$root/tmp/ei_lockfile_runner_directory"
    mkfifo "$root/tmp/ei_lockfile_runner_pipe"
    install_step --dry-run
    has "$sandbox/out" "would be done: lock file $lock"
    [ -e "$lock" ] || fail 'a dry run removed it'
    install_step
    succeeds
    has "$sandbox/out" "done: lock file $lock of uid $(id -u) removed: ggc_user could not use it"
    same "$(printf '%s\n' ei_lockfile_runner_directory ei_lockfile_runner_link ei_lockfile_runner_pipe other)" \
        "$(ls "$root/tmp")"
    same precious "$(cat "$sandbox/precious")"
}
it "a lock file that another user left is removed; links and others are left alone" lock_file_of_another_user_is_removed

lock_file_in_use_is_kept() {
    lock_files 4242
    exec 8<"$lock"
    flock -n 8
    install_step
    succeeds
    has "$sandbox/out" "skipped: lock file $lock of uid $(id -u): in use"
    same 4711 "$(cat "$lock")"
    exec 8<&-
    # Nobody can say whether it is held.
    rm "$sandbox/bin/flock"
    install_step
    succeeds
    has "$sandbox/err" 'the tool flock is missing'
    same 4711 "$(cat "$lock")"
}
it "a lock file that somebody holds is kept" lock_file_in_use_is_kept

own_lock_file_is_kept() {
    lock_files "$(id -u)"
    install_step
    succeeds
    same 4711 "$(cat "$lock")"
    has_not "$sandbox/out" 'lock file'
}
it "the service user's own lock file is kept" own_lock_file_is_kept

# ------------------------------------------------------------------------------- groups and devices

unknown_group_is_skipped() {
    bare_machine
    echo 'video nosuchgroup audio' >"$sandbox/config/ei_ggc_user_groups"
    install_step
    succeeds
    has "$sandbox/err" 'group nosuchgroup does not exist'
    same 'video audio ' "$(cat "$sandbox/members/ggc_user")"
}
it "an unknown group is skipped with a warning" unknown_group_is_skipped

group_values_are_never_shell() {
    bare_machine
    printf '%s\n' "video; -G * \$(touch $sandbox/harm) Video a.b" >"$sandbox/config/ei_ggc_user_groups"
    install_step
    succeeds
    [ ! -e "$sandbox/harm" ] || fail 'the value was executed'
    has_not "$sandbox/calls" 'usermod '
    has "$sandbox/err" "group '*' in ei_ggc_user_groups is no group name"
    has "$sandbox/err" "group '-G' in ei_ggc_user_groups is no group name"
}
it "group names are checked and never reach a shell" group_values_are_never_shell

jetson_joins_render() {
    bare_machine
    touch "$root/etc/nv_tegra_release"
    echo 'render:x:105:' >>"$root/etc/group"
    install_step
    succeeds
    has "$sandbox/calls" 'usermod -aG render ggc_user'
}
it "a Jetson that has the group render joins it" jetson_joins_render

other_boards_do_not_join_render() {
    bare_machine
    echo 'render:x:105:' >>"$root/etc/group"
    install_step
    succeeds
    has_not "$sandbox/calls" 'render'
}
it "other boards do not join render" other_boards_do_not_join_render

renesas_devices_are_opened() {
    bare_machine
    mkdir -p "$root/etc/udev/rules.d"
    touch "$root/dev/drpai0" "$root/dev/udmabuf0"
    chmod 600 "$root/dev/drpai0"
    chmod 666 "$root/dev/udmabuf0"
    install_step
    succeeds
    has "$sandbox/calls" "chgrp ggc_group $root/dev/drpai0"
    has "$sandbox/out" '/dev/udmabuf0: open to everybody'
    same 'KERNEL=="drpai0", GROUP="ggc_group", MODE="0660"' "$(cat "$root/etc/udev/rules.d/99-ei-greengrass.rules")"
    install_step
    has "$sandbox/out" '99-ei-greengrass.rules: up to date'
}
it "Renesas devices are opened to the group, over a restart too" renesas_devices_are_opened

# --------------------------------------------------------------------------------------- link, linger

link_is_made_and_replaced() {
    bare_machine
    install_step
    succeeds
    link=$root/usr/local/bin/ei-greengrass
    same "$binary" "$(readlink "$link")"
    ln -sfn /greengrass/v2/packages/artifacts/EdgeImpulseLinuxRunnerServiceComponent/1.9.0/ei-greengrass "$link"
    install_step
    succeeds
    same "$binary" "$(readlink "$link")"
}
it "the binary is linked, and an old link of ours replaced" link_is_made_and_replaced

foreign_file_is_left_alone() {
    bare_machine
    mkdir -p "$root/usr/local/bin"
    echo mine >"$root/usr/local/bin/ei-greengrass"
    install_step
    succeeds
    same mine "$(cat "$root/usr/local/bin/ei-greengrass")"
    has "$sandbox/err" 'left alone'
    ln -sfn /opt/other "$root/usr/local/bin/ei-greengrass"
    install_step
    succeeds
    same /opt/other "$(readlink "$root/usr/local/bin/ei-greengrass")"
}
it "a foreign file or link in the place of the link is left alone" foreign_file_is_left_alone

ubuntu_with_pipewire_lingers() {
    bare_machine
    printf 'ID=ubuntu\nID_LIKE=debian\n' >"$root/etc/os-release"
    stand_in pipewire ''
    stand_in loginctl 'mkdir -p "$machine/root/var/lib/systemd/linger" && touch "$machine/root/var/lib/systemd/linger/$2"'
    install_step
    succeeds
    has "$sandbox/calls" 'loginctl enable-linger ggc_user'
    install_step
    has_not "$sandbox/calls" 'loginctl '
}
it "Ubuntu with pipewire: the user lingers" ubuntu_with_pipewire_lingers

missing_loginctl_is_a_warning() {
    bare_machine
    printf 'ID=ubuntu\nID_LIKE=debian\n' >"$root/etc/os-release"
    stand_in pipewire ''
    install_step
    succeeds
    has "$sandbox/err" 'loginctl is missing'
}
it "Ubuntu with pipewire, but without loginctl: a warning" missing_loginctl_is_a_warning

white_space_in_the_path_is_kept() {
    bare_machine
    place="$sandbox/my green grass/packages/artifacts/EdgeImpulseLinuxRunnerServiceComponent"
    mkdir -p "$place" "$sandbox/my green grass/config"
    mv "$sandbox/artifacts" "$place/2.0.0"
    ln -s "$place/2.0.0" "$sandbox/artifacts"
    printf 'runWithDefault:\n  posixUser: "edge:staff"\n' >"$sandbox/my green grass/config/effectiveConfig.yaml"
    echo '/opt/my tools' >"$sandbox/config/ei_bindir"
    install_step
    succeeds
    has "$sandbox/out" 'service user edge:staff'
    same "$place/2.0.0/ei-greengrass" "$(readlink "$root/opt/my tools/ei-greengrass")"
}
it "white space in Greengrass's root and in ei_bindir is kept" white_space_in_the_path_is_kept

# ----------------------------------------------------------------------------------------- kvssink

kvssink_is_built_once() {
    kvssink_machine
    install_step
    succeeds
    has "$sandbox/calls" 'git clone --quiet --depth 1 --branch v'
    has "$sandbox/calls" 'DBUILD_GSTREAMER_PLUGIN=ON'
    has "$sandbox/installed" liblog4cplus-dev
    [ -f "$source/build/libgstkvssink.so" ] || fail 'no plugin'
    [ ! -e "$source.building" ] || fail 'the marker stayed'
    install_step
    succeeds
    has_not "$sandbox/calls" 'git '
    has "$sandbox/out" 'finished, 0 done'
}
it "kvssink is built at a fixed version, as the service user, once" kvssink_is_built_once

failed_kvssink_is_a_warning() {
    kvssink_machine
    touch "$sandbox/broken"
    install_step
    succeeds
    has "$sandbox/err" 'kvssink could not be built (error: out of memory)'
    rm "$sandbox/broken"
    install_step
    succeeds
    [ -f "$source/build/libgstkvssink.so" ] || fail 'not tried again'
}
it "a failed kvssink build is a warning, and is tried again next time" failed_kvssink_is_a_warning

foreign_kvssink_source_is_left_alone() {
    kvssink_machine
    mkdir -p "$source"
    echo mine >"$source/work"
    install_step
    succeeds
    same mine "$(cat "$source/work")"
    has "$sandbox/err" 'is not ours'
}
it "somebody's own kvssink source is left alone" foreign_kvssink_source_is_left_alone

kvssink_only_when_asked() {
    kvssink_machine
    echo no >"$sandbox/config/install_kvssink"
    install_step
    succeeds
    has_not "$sandbox/calls" 'git '
}
it "kvssink is built only when asked for" kvssink_only_when_asked

# ---------------------------------------------------------------------------------- what is essential

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
    # The same where the image has no ldd.
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

unreadable_configuration_takes_defaults() {
    bare_machine
    rm "$sandbox/config/ei_ggc_user_groups"
    install_step
    succeeds
    has "$sandbox/err" "ei_ggc_user_groups is taken as 'video audio input users'"
    has "$sandbox/calls" 'usermod -aG video ggc_user'
}
it "a configuration that cannot be read takes the defaults" unreadable_configuration_takes_defaults

account_that_cannot_be_created_is_an_error() {
    bare_machine
    stand_in useradd 'echo "useradd: cannot lock /etc/passwd" >&2; exit 1'
    install_step
    same 1 "$status"
    has "$sandbox/err" 'user ggc_user could not be created (useradd: cannot lock /etc/passwd)'
}
it "a user that cannot be created ends the step" account_that_cannot_be_created_is_an_error

# A clock that is so many seconds further each time it is looked at.
clock_that_jumps() {
    rm "$sandbox/bin/date"
    echo 0 >"$sandbox/clock"
    stand_in date 'now=$(cat "$machine/clock"); echo $((now + '"$1"')) >"$machine/clock"; echo "$now"'
}

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
    # Waiting for the network counts too.
    clock_that_jumps 3000
    touch "$sandbox/offline"
    install_step
    same 1 "$status"
    has_not "$sandbox/calls" 'sleep 60'
}
it "the time that Greengrass gives is used up: the step ends by itself, with words and 1" used_up_budget_ends_the_step

hanging_command_is_killed() {
    bare_machine
    # What timeout gives when it had to end a command.
    stand_in timeout 'exit 124'
    install_step
    succeeds
    has "$sandbox/calls" 'timeout -k 30 1800 env'
    has "$sandbox/err" 'could not be installed (it did not end within 300 s)'
}
it "a command that hangs is ended, killed at last, and named" hanging_command_is_killed

limit_is_below_greengrass() {
    budget=$(sed -n 's/^BUDGET=//p' "$repository/artifacts/install.sh")
    after=$(sed -n 's/^KILL_AFTER=//p' "$repository/artifacts/install.sh")
    wait=$(sed -n 's/^NETWORK_WAIT=//p' "$repository/artifacts/install.sh")
    timeouts=$(sed -n 's/^ *Timeout: //p' "$repository"/recipes/*.yaml | sort -u)
    [ "$((budget + after + wait))" -lt "$timeouts" ] || fail "$budget + $after + $wait s, and Greengrass gives $timeouts s"
}
it "the script's own limit ends before the recipe's" limit_is_below_greengrass

missing_timeout_is_told() {
    bare_machine
    rm "$sandbox/bin/timeout"
    install_step
    succeeds
    same 1 "$(grep -c 'the tool timeout (coreutils) is missing' "$sandbox/err")"
}
it "a machine without the tool timeout is told, once" missing_timeout_is_told

further_arguments_are_refused() {
    bare_machine
    install_step --dry-run --now
    same 1 "$status"
    has "$sandbox/err" 'unknown argument --now; usage: install.sh [--dry-run] [--help]'
    same '' "$(cat "$sandbox/calls")"
}
it "arguments that it does not know are refused, at any place" further_arguments_are_refused

needs_root() {
    bare_machine
    stand_in id 'echo 1000'
    install_step
    same 1 "$status"
    has "$sandbox/err" 'RequiresPrivilege'
}
it "without root the step says what is missing" needs_root

dry_run_changes_nothing() {
    kvssink_machine
    find "$root" -exec ls -ld {} + >"$sandbox/before"
    install_step --dry-run
    succeeds
    find "$root" -exec ls -ld {} + >"$sandbox/after"
    cmp "$sandbox/before" "$sandbox/after" || fail 'something changed'
    for call in apt-get groupadd useradd usermod chown timeout git cmake; do
        has_not "$sandbox/calls" "$call "
    done
    has "$sandbox/out" 'would be done: user ggc_user created'
    has "$sandbox/out" 'would be done: kvssink'
}
it "a dry run says what would be done and changes nothing" dry_run_changes_nothing
