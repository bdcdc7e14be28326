#!/bin/sh
# Install step of the Edge Impulse Greengrass component. Greengrass runs it as root, beside the
# binary ei-greengrass, once for each component version and again after a failed deployment.
#
#   install.sh [--dry-run] [--help]
#
# Brings the machine to the state the component needs and leaves alone what is there already: a
# second run changes nothing and needs no network. Says in one line each what it did ("done:"),
# what was there already ("skipped:") and what did not work but is not essential ("warning:", on
# stderr). Ends with 1 only when the component could not run, after an "error:" line that says
# what to do.
#
# Environment:
#   CONFIG_PARAMETERS  the component configuration (set by the recipe), read through the binary
#   EI_ROOT            directory put before every absolute path that is looked at or written
#                      (/etc, /dev, /proc, /home, ei_bindir); for tests and image builds
set -uf
LC_ALL=C
export LC_ALL

COMPONENT=EdgeImpulseLinuxRunnerServiceComponent
EI_ROOT=${EI_ROOT:-}
# A service's PATH may lack the directories of useradd and loginctl.
[ -n "$EI_ROOT" ] || PATH=${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/sbin:/sbin
export PATH

APT_PACKAGES="gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good
  gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-alsa
  v4l-utils alsa-utils ca-certificates"
APT_RASPBERRY_PI="gstreamer1.0-libcamera"
RPM_PACKAGES="gstreamer1 gstreamer1-plugins-base gstreamer1-plugins-good"
# What a pipeline needs at least, where nothing can be installed: element:where it comes from.
ELEMENTS="videoconvert:plugins-base decodebin:plugins-base appsink:plugins-base
  alsasrc:plugins-base v4l2src:plugins-good jpegdec:plugins-good"
RENESAS_DEVICES="/dev/drpai0 /dev/rgnmm /dev/rgnmmbuf /dev/uvcs /dev/vspm_if /dev/udmabuf0"

KVS_NAME=amazon-kinesis-video-streams-producer-sdk-cpp
KVS_URL=https://github.com/awslabs/$KVS_NAME.git
KVS_TAG=v3.5.0
KVS_APT="build-essential cmake git m4 pkg-config libssl-dev libcurl4-openssl-dev liblog4cplus-dev
  libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev"
KVS_RPM="gcc gcc-c++ make cmake git m4 pkgconf-pkg-config openssl-devel libcurl-devel
  log4cplus-devel gstreamer1-devel gstreamer1-plugins-base-devel"

# While the network is away and the binary lacks libraries: how often, and after how many seconds,
# the packages are tried again.
NETWORK_TRIES=30
NETWORK_WAIT=60
# How the package managers say (for grep -E) that a download failed. apt only warns about lists.
APT_UNFETCHED='^[WE]: .*Failed to fetch '
RPM_UNFETCHED="Cannot download|Failed to download metadata|Could(n't| not) resolve|Curl error|curl#[0-9]"
RPM_UNFETCHED="$RPM_UNFETCHED|Cannot prepare internal mirrorlist|No more mirrors to try|Cannot find a valid baseurl"
# That somebody answered, so that the network is there: what is asked for does not exist.
ANSWERED=' 404 |HTTP Error 404|Status code: 404|No URLs in mirrorlist'
# That the lists at hand do not have a package.
UNKNOWN='Unable to locate package|has no installation candidate|is not installable'
UNKNOWN="$UNKNOWN|No match for argument|Unable to find a match|No package .* available"

# Seconds for everything together: less than the recipe's Timeout (7200), so that this script and
# not Greengrass ends what hangs, and says what it was.
BUDGET=6900
# What does not end when its time is over is killed after so many seconds more.
KILL_AFTER=30

dry_run=no
unlimited=no
done_count=0
skipped_count=0
warning_count=0

# ---------------------------------------------------------------------------------------- helpers

did() {
    if [ "$dry_run" = yes ]; then
        printf 'would be done: %s\n' "$*"
    else
        printf 'done: %s\n' "$*"
    fi
    done_count=$((done_count + 1))
}

skip() {
    printf 'skipped: %s\n' "$*"
    skipped_count=$((skipped_count + 1))
}

warn() {
    printf 'warning: %s\n' "$*" >&2
    warning_count=$((warning_count + 1))
}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# Runs a command that changes the machine; its output goes to the log file, not to Greengrass's.
change() {
    [ "$dry_run" = yes ] && return 0
    "$@" >"$log" 2>&1 </dev/null
}

# change, with a limit: limited SECONDS COMMAND...
limited() {
    [ "$dry_run" = no ] || return 0
    left=$(time_left)
    [ "$left" -lt "$1" ] || left=$1
    shift
    if [ "$left" -le 0 ]; then
        printf 'no time left within %s s\n' "$BUDGET" >"$log"
        return 124
    fi
    if ! have timeout; then
        [ "$unlimited" = yes ] ||
            warn "the tool timeout (coreutils) is missing: a command that hangs is ended by Greengrass only, and with it this step"
        unlimited=yes
        change "$@"
        return
    fi
    change timeout -k "$KILL_AFTER" "$left" "$@"
    result=$?
    case $result in
    124 | 137) printf 'it did not end within %s s\n' "$left" >>"$log" ;;
    esac
    return "$result"
}

# Seconds of the budget that are left.
time_left() {
    echo $((started + BUDGET - $(date +%s)))
}

# Why the last command failed: the first download that apt says failed, else the last line.
reason() {
    why=$(grep -E "$APT_UNFETCHED" "$log" | head -n 1 | cut -c 1-200)
    [ -n "$why" ] || why=$(grep -v '^[[:space:]]*$' "$log" | tail -n 1 | cut -c 1-200)
    printf '%s' "${why:-no output}"
}

# True for names that can be handed to usermod and written into a udev rule.
valid_name() {
    case $1 in
    '' | [!a-z_]* | *[!a-z0-9_-]*) return 1 ;;
    esac
}

# One field of the system's databases: lookup passwd|group NAME
lookup() {
    if have getent; then
        getent "$1" "$2"
    else
        grep "^$2:" "$EI_ROOT/etc/$1" 2>/dev/null
    fi
}

# Sets $value to a configuration value as the component itself reads it: config KEY FALLBACK
config() {
    if value=$("$binary" config get "$1" 2>"$log" </dev/null); then
        # The value is the last line; what the program logs comes before it.
        value=${value##*"$newline"}
    else
        value=$2
        warn "the configuration could not be read ($(reason)); $1 is taken as '$2'"
    fi
}

# --------------------------------------------------------------------------------------- platform

os_release() {
    sed -n "s/^$1=//p" "$EI_ROOT/etc/os-release" 2>/dev/null | tr -d "\"'" | head -n 1
}

detect_platform() {
    distribution=" $(os_release ID) $(os_release ID_LIKE) "
    # Some Yocto images ship apt-get or dnf with no package feed behind them.
    manager=none
    case $distribution in
    *" debian "* | *" ubuntu "* | *" raspbian "*)
        have apt-get && have dpkg-query && manager=apt
        ;;
    *" fedora "* | *" rhel "* | *" centos "* | *" amzn "*)
        if have rpm && have dnf; then
            manager=dnf
        elif have rpm && have yum; then
            manager=yum
        fi
        ;;
    esac

    board=other
    model=$(tr -d '\000' 2>/dev/null <"$EI_ROOT/proc/device-tree/model")
    compatible=$(tr '\000' ' ' 2>/dev/null <"$EI_ROOT/proc/device-tree/compatible")
    case $model in
    "Raspberry Pi"*) board=raspberry-pi ;;
    esac
    case $compatible in
    *nvidia,tegra*) board=jetson ;;
    esac
    [ ! -e "$EI_ROOT/etc/nv_tegra_release" ] || board=jetson
}

# --------------------------------------------------------------------------------------- packages

# Prints those of the packages that are not installed.
missing_packages() {
    for package in $1; do
        case $manager in
        apt)
            # shellcheck disable=SC2016 # a format of dpkg-query's own
            state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)
            [ "$state" = installed ] || printf '%s ' "$package"
            ;;
        *) rpm -q "$package" >/dev/null 2>&1 || printf '%s ' "$package" ;;
        esac
    done
}

apt_get() {
    seconds=$1
    shift
    limited "$seconds" env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}

# What the last command said: said REGULAR-EXPRESSION
said() {
    grep -Eqi -e "$1" "$log" 2>/dev/null
}

# The lists' own lock has no timeout option, so a busy one is tried again. Older apt do not know the
# option Error-Mode, and call an update that fetched nothing a success. Sets $stale to yes where the
# lists lack what a network that is away has.
apt_update() {
    stale=no
    for try in 1 2 3; do
        apt_get 300 -o APT::Update::Error-Mode=any update && ! said "$APT_UNFETCHED" && return 0
        [ "$try" = 3 ] || sleep 10
    done
    if grep -E "$APT_UNFETCHED|^it did not end within" "$log" | grep -qEv "$ANSWERED"; then
        stale=yes
    fi
    warn "apt-get update failed ($(reason)); the package lists on this machine are used"
}

# install_now SECONDS PACKAGE...
install_now() {
    seconds=$1
    shift
    case $manager in
    apt)
        apt_get "$seconds" --no-install-recommends install "$@" && return 0
        grep -q 'dpkg --configure -a' "$log" 2>/dev/null || return 1
        limited 600 env DEBIAN_FRONTEND=noninteractive dpkg --force-confdef --force-confold --configure -a &&
            apt_get "$seconds" --no-install-recommends install "$@"
        ;;
    *) limited "$seconds" "$manager" -y -q install "$@" ;;
    esac
}

# True where the last installation failed since something could not be downloaded.
unreachable() {
    case $manager in
    apt) said "$APT_UNFETCHED" ;;
    *) said "$RPM_UNFETCHED" && ! said "$ANSWERED" ;;
    esac
}

# Installs what is missing: install_packages WHAT-FOR "PACKAGE..."
install_packages() {
    missing=$(missing_packages "$2")
    missing=${missing% }
    if [ -z "$missing" ]; then
        skip "packages for $1: all installed"
        return
    fi
    stale=no
    [ "$manager" != apt ] || apt_update
    # shellcheck disable=SC2086 # the packages are words
    if install_now 1800 $missing; then
        did "packages for $1: $missing"
        return
    fi
    if unreachable && ! said "$UNKNOWN"; then
        unfetched=yes
        warn "packages for $1 could not be downloaded ($(reason)): $missing"
        return
    fi
    # One package that this release does not have must not cost the others.
    unlisted=
    for package in $missing; do
        if install_now 300 "$package"; then
            did "package for $1: $package"
        elif unreachable || { [ "$stale" = yes ] && said "$UNKNOWN"; }; then
            unlisted="$unlisted $package"
        else
            warn "package $package could not be installed ($(reason)); try: $manager install $package"
        fi
    done
    if [ -n "$unlisted" ]; then
        unfetched=yes
        warn "packages for $1 could not be had, since downloads failed; look at the network and the package sources:$unlisted"
    fi
}

# Where nothing can be installed: says what the image lacks.
check_elements() {
    if ! have gst-inspect-1.0; then
        warn "gst-inspect-1.0 is not on this image, so its GStreamer elements cannot be checked"
        return
    fi
    lacking=
    for pair in $ELEMENTS; do
        gst-inspect-1.0 --exists "${pair%%:*}" >/dev/null 2>&1 ||
            lacking="$lacking ${pair%%:*} (gstreamer1.0-${pair#*:})"
    done
    if [ -n "$lacking" ]; then
        warn "the image lacks GStreamer elements:$lacking; add these packages to the image"
    else
        skip "packages: no package manager here; the GStreamer elements needed are in the image"
    fi
}

provide_packages() {
    unfetched=no
    case $manager in
    apt)
        packages=$APT_PACKAGES
        [ "$board" != raspberry-pi ] || packages="$packages $APT_RASPBERRY_PI"
        install_packages GStreamer "$packages"
        ;;
    dnf | yum) install_packages GStreamer "$RPM_PACKAGES" ;;
    none) check_elements ;;
    esac
    if [ "$manager" != apt ] && [ ! -e "$EI_ROOT/etc/ssl/certs" ] && [ ! -e "$EI_ROOT/etc/pki/tls/certs" ]; then
        warn "no CA certificates in /etc/ssl/certs: connections to AWS will be refused; add ca-certificates"
    fi
}

# A device may lose its network just now. Greengrass would give the component up after three failed
# installations, so this waits, but only when nothing works without the packages.
wait_for_packages() {
    tries=0
    while [ "$unfetched" = yes ] && [ "$dry_run" = no ] && [ "$tries" -lt "$NETWORK_TRIES" ] &&
        ! "$binary" --version >/dev/null 2>&1 </dev/null; do
        if [ "$(time_left)" -le "$NETWORK_WAIT" ]; then
            warn "the network was waited for as long as Greengrass allows ($BUDGET s)"
            return
        fi
        tries=$((tries + 1))
        warn "the component cannot start without them; they are tried again in $NETWORK_WAIT s (try $tries of $NETWORK_TRIES)"
        sleep "$NETWORK_WAIT"
        provide_packages
    done
}

# ----------------------------------------------------------------------------------------- binary

package_of_library() {
    case $1 in
    libgstreamer-1.0.so* | libgstbase-1.0.so*) echo "libgstreamer1.0-0 (yum: gstreamer1)" ;;
    libgst*) echo "libgstreamer-plugins-base1.0-0 (yum: gstreamer1-plugins-base)" ;;
    libglib* | libgobject* | libgio* | libgmodule*) echo "libglib2.0-0 (yum: glib2)" ;;
    *) echo "the package that has it" ;;
    esac
}

# Prints why the binary does not start, in words; $log holds what it said.
why_not() {
    linked=$(ldd "$binary" 2>&1)
    glibc=$(printf '%s\n%s\n' "$linked" "$(cat "$log")" | grep -o 'GLIBC_[0-9.]*' | head -n 1)
    library=$(printf '%s\n' "$linked" | sed -n 's/^[[:space:]]*\([^ ]*\) => not found.*/\1/p' | head -n 1)
    [ -n "$library" ] ||
        library=$(sed -n 's/.*error while loading shared libraries: \([^:]*\):.*/\1/p' "$log" | head -n 1)
    if [ -n "$library" ]; then
        printf 'the shared library %s is missing; install %s and deploy again' \
            "$library" "$(package_of_library "$library")"
    elif [ -n "$glibc" ]; then
        printf 'it was built for a newer system (%s); package it with an older sysroot (artifacts/package.sh --sysroot) and deploy again' "$glibc"
    elif grep -qi 'exec format error\|cannot execute' "$log"; then
        printf 'it was built for another machine than %s; package it for this architecture and deploy again' "$(uname -m)"
    else
        printf 'it said: %s' "$(reason)"
    fi
}

# Sets $runs to yes or no. Nothing works without the binary: fails where it cannot start.
check_binary() {
    runs=no
    [ -f "$binary" ] ||
        fail "$binary is missing: the recipe's manifest for this machine must list it beside install.sh"
    if [ ! -x "$binary" ]; then
        if change chmod a+rx "$binary"; then
            did "$binary made executable (the recipe's Permission was not applied)"
        else
            fail "$binary is not executable: give it Permission Execute ALL in the recipe"
        fi
    fi
    if version=$("$binary" --version 2>"$log" </dev/null); then
        runs=yes
        skip "the binary: $version runs on this machine"
    elif [ "$dry_run" = yes ]; then
        warn "$binary does not start: $(why_not)"
    else
        fail "$binary does not start: $(why_not)"
    fi
}

# --------------------------------------------------------------------------------- service account

# Prints the posixUser that YAML files name: COMPONENT's own, else everybody's. The last one counts.
# yaml_user COMPONENT FILE...
yaml_user() {
    own=$1
    shift
    awk -v own="/services/$own/runWith/posixUser" '
        FNR == 1 { depth = 0 }
        /^ *["\047A-Za-z_][^:]*:/ {
            match($0, /^ */)
            indent = RLENGTH
            while (depth > 0 && indents[depth] >= indent) depth--
            line = $0
            sub(/[ \t\r]#.*/, "", line)
            gsub(/[" \t\r\047]/, "", line)
            key = line
            sub(/:.*/, "", key)
            path = paths[depth] "/" key
            indents[++depth] = indent
            paths[depth] = path
            sub(/^[^:]*:/, "", line)
            # posixUser in braces, on the same line.
            if (match(line, /^[{](.*,)?posixUser:/)) {
                path = path "/posixUser"
                line = substr(line, RLENGTH + 1)
                sub(/[,}].*/, "", line)
            }
            if (path == own) mine = line
            if (path ~ /\/runWithDefault\/posixUser$/) shared = line
        }
        END { print mine != "" ? mine : shared }' "$@" 2>/dev/null
}

# The same from the nucleus' log of its configuration, one change a line of JSON: tlog_user COMPONENT FILE
tlog_user() {
    awk -v own="\"services\",\"$1\"" '
        # How much of the path leads to a posixUser: removed is everything below what is removed.
        index($0, "[" own "]") || index($0, "[" own ",\"runWith\"") { which = "mine" }
        index($0, "\"runWithDefault\"") { which = "shared" }
        which != "" && /"W":"removed"/ && /("runWith"|"runWithDefault"|"posixUser"|"services","[^"]*")\]/ { user[which] = "" }
        which != "" && /"W":"changed"/ && /"posixUser"\]/ && match($0, /"V":"[^"]*"/) {
            user[which] = substr($0, RSTART + 5, RLENGTH - 6)
        }
        { which = "" }
        END { print user["mine"] != "" ? user["mine"] : user["shared"] }' "$2" 2>/dev/null
}

# Sets $user and $group: those Greengrass runs components as.
find_account() {
    # <root>/packages/artifacts/<component>/<version> is where Greengrass puts this script.
    classic=${here%/packages/artifacts/*}/config
    lite=$EI_ROOT/etc/greengrass
    if [ ! -f "$classic/config.tlog" ] && [ ! -f "$classic/effectiveConfig.yaml" ] &&
        { [ -f "$lite/config.yaml" ] || [ -d "$lite/config.d" ]; }; then
        user=ggcore
        group=ggcore
        account_file="$lite/config.yaml or $lite/config.d"
        # Lite reads them in this order, and knows no user of a single component.
        set +f
        set -- "$lite/config.yaml" "$lite"/config.d/*
        set -f
        for file in "$@"; do
            shift
            [ ! -f "$file" ] || set -- "$@" "$file"
        done
        posix_user=$([ $# = 0 ] || yaml_user '' "$@")
    else
        user=ggc_user
        group=ggc_group
        # effectiveConfig.yaml is written when the nucleus starts or stops, so what this deployment
        # changed is in the log only.
        account_file=$classic/config.tlog
        posix_user=$(tlog_user "$COMPONENT" "$account_file")
        if [ -z "$posix_user" ]; then
            account_file=$classic/effectiveConfig.yaml
            posix_user=$(yaml_user "$COMPONENT" "$account_file")
        fi
    fi
    [ -n "$posix_user" ] || return 0

    wanted=${posix_user%%:*}
    case $wanted in
    *[!0-9]*) ;;
    *) wanted=$(lookup passwd "$wanted" | cut -d: -f1) ;;
    esac
    case $posix_user in
    *:*) wanted_group=${posix_user#*:} ;;
    *) wanted_group=$(id -gn "$wanted" 2>/dev/null || printf '%s' "$wanted") ;;
    esac
    case $wanted_group in
    *[!0-9]*) ;;
    *) wanted_group=$(lookup group "$wanted_group" | cut -d: -f1) ;;
    esac
    if valid_name "$wanted" && valid_name "$wanted_group"; then
        user=$wanted
        group=$wanted_group
    else
        warn "posixUser '$posix_user' in $account_file is not understood; $user:$group is used"
    fi
}

# The three below: the usual tools, or busybox's on small images.
add_group() {
    if have groupadd; then
        change groupadd --system "$1"
    else
        change addgroup -S "$1"
    fi
}

add_user() {
    if have useradd; then
        change useradd --system --create-home --gid "$2" "$1"
    else
        change adduser -S -D -G "$2" "$1"
    fi
}

add_member() {
    if have usermod; then
        change usermod -aG "$2" "$1"
    else
        change addgroup "$1" "$2"
    fi
}

provide_account() {
    if [ -n "$(lookup group "$group")" ]; then
        skip "group $group: exists"
    elif add_group "$group"; then
        did "group $group created"
    else
        fail "group $group could not be created ($(reason)); create it by hand (groupadd --system $group) and deploy again"
    fi

    if id -u "$user" >/dev/null 2>&1; then
        skip "user $user: exists"
    elif add_user "$user" "$group"; then
        did "user $user created"
    else
        fail "user $user could not be created ($(reason)); create it by hand (useradd --system --create-home --gid $group $user) and deploy again"
    fi

    home=$(lookup passwd "$user" | cut -d: -f6)
    home=${home:-/home/$user}
    # What distributions give to users that are meant to have no home.
    case $home in
    /nonexistent* | /dev/null)
        home=
        skip "home: $user is meant to have none"
        return
        ;;
    esac
    if [ -d "$EI_ROOT$home" ]; then
        skip "home $home: exists"
    elif change mkdir -p "$EI_ROOT$home" && change chown "$user:$group" "$EI_ROOT$home"; then
        did "home $home created"
    else
        warn "home $home could not be created ($(reason)); GStreamer keeps no plugin cache without it"
    fi
}

# Removes a lock file while holding it; ends with 75 where somebody else does: free_lock FILE
# Root opens it for reading only: creating is what Linux forbids it on others' files in /tmp
# (fs.protected_regular), and what flock FILE does.
free_lock() {
    # shellcheck disable=SC2016 # the inner shell's own
    set -- "$1" 'exec 9<"$1" && { flock -n 9 || exit $(($? + 74)); } && { [ "$2" = yes ] || rm -f -- "$1"; }'
    if have timeout; then
        timeout -k 1 10 sh -c "$2" sh "$1" "$dry_run"
    else
        sh -c "$2" sh "$1" "$dry_run"
    fi >"$log" 2>&1 </dev/null
}

# A run by hand as root, or as an earlier posixUser, may have left its lock file, which the service
# user cannot open: the component would end with 2, and be BROKEN. Only at the default place: what
# lock_filename names could be anything.
free_locks() {
    owner=$(id -u "$user" 2>/dev/null)
    set +f
    set -- "$EI_ROOT"/tmp/ei_lockfile_runner_*
    set -f
    for file in "$@"; do
        if [ -L "$file" ] || [ ! -f "$file" ]; then
            continue
        fi
        # shellcheck disable=SC2012 # only the owner is read; small images have no stat
        found=$(ls -ldn "$file" 2>/dev/null | awk 'NR == 1 { print $3 }')
        [ "$found" != "$owner" ] || continue
        if ! have flock; then
            warn "lock file $file belongs to uid $found, not to $user, who cannot use it; the tool flock is missing, so remove it by hand unless its component runs"
            continue
        fi
        free_lock "$file"
        case $? in
        0) did "lock file $file of uid $found removed: $user could not use it" ;;
        75) skip "lock file $file of uid $found: in use by a component that runs" ;;
        *) warn "lock file $file of uid $found, which $user cannot use, could not be removed ($(reason)); remove it by hand unless its component runs" ;;
        esac
    done
}

# --------------------------------------------------------------------------------- groups, devices

join_group() {
    if ! valid_name "$1"; then
        warn "group '$1' in ei_ggc_user_groups is no group name (a-z, 0-9, _ and -)"
    elif [ -z "$(lookup group "$1")" ]; then
        warn "group $1 does not exist on this machine, so $user does not join it"
    else
        case " $(id -nG "$user" 2>/dev/null) " in
        *" $1 "*) skip "group $1: $user is a member" ;;
        *)
            if add_member "$user" "$1"; then
                did "$user joined the group $1"
            else
                warn "$user could not join the group $1 ($(reason))"
            fi
            ;;
        esac
    fi
}

join_groups() {
    groups="video audio input users"
    if [ "$runs" = yes ]; then
        config ei_ggc_user_groups "$groups"
        groups=$value
    fi
    # The GPU of JetPack 6 belongs to render; older JetPacks have no such group.
    if [ "$board" = jetson ] && [ -n "$(lookup group render)" ]; then
        case " $groups " in
        *" render "*) ;;
        *) groups="$groups render" ;;
        esac
    fi
    for name in $groups; do
        join_group "$name"
    done
}

# The DRP-AI and video devices of Renesas boards belong to root alone. The rule keeps the access
# over a restart, since this script does not run then.
open_devices() {
    rules=
    for device in $RENESAS_DEVICES; do
        node=$EI_ROOT$device
        [ -e "$node" ] || continue
        case $(ls -ld "$node") in
        ???????rw*)
            skip "$device: open to everybody"
            continue
            ;;
        ????rw*" $group "*) skip "$device: open to $group" ;;
        *)
            if change chgrp "$group" "$node" && change chmod 660 "$node"; then
                did "$device opened to $group"
            else
                warn "$device could not be opened to $group ($(reason)); the DRP-AI model may not start"
            fi
            ;;
        esac
        rules="${rules}KERNEL==\"${device#/dev/}\", GROUP=\"$group\", MODE=\"0660\"$newline"
    done
    [ -n "$rules" ] && [ -d "$EI_ROOT/etc/udev/rules.d" ] || return 0

    rules_file=/etc/udev/rules.d/99-ei-greengrass.rules
    if [ "$(cat "$EI_ROOT$rules_file" 2>/dev/null)" = "${rules%"$newline"}" ]; then
        skip "$rules_file: up to date"
    elif [ "$dry_run" = yes ] || printf '%s' "$rules" >"$EI_ROOT$rules_file"; then
        did "$rules_file written"
    else
        warn "$rules_file could not be written; the devices close again at the next restart"
    fi
}

# ----------------------------------------------------------------------------------- link, linger

link_binary() {
    [ "$runs" = yes ] || return 0
    config ei_bindir /usr/local/bin
    bindir=${value%/}
    link=$bindir/ei-greengrass
    case $bindir in
    /*) ;;
    *)
        warn "ei_bindir '$value' is not an absolute path, so no link is made"
        return
        ;;
    esac
    if [ -L "$EI_ROOT$link" ]; then
        old=$(readlink "$EI_ROOT$link")
        case $old in
        "$binary")
            skip "$link: links here"
            return
            ;;
        */"$COMPONENT"/*/ei-greengrass) ;;
        *)
            warn "$link links to $old, which is not ours, and is left alone"
            return
            ;;
        esac
    elif [ -e "$EI_ROOT$link" ]; then
        warn "$link exists and is no link of ours; it is left alone"
        return
    fi
    if change mkdir -p "$EI_ROOT$bindir" && change ln -sfn "$binary" "$EI_ROOT$link"; then
        did "$link links to $binary"
    else
        warn "$link could not be made ($(reason)); call the binary by its full path"
    fi
}

# Ubuntu's pipewire holds cameras and microphones, and runs only for users with a session.
enable_linger() {
    case $distribution in
    *" ubuntu "*) ;;
    *) return 0 ;;
    esac
    have pipewire || return 0
    if ! have loginctl; then
        warn "loginctl is missing, so $user gets no lingering session; pipewire devices may be out of reach"
    elif [ -e "$EI_ROOT/var/lib/systemd/linger/$user" ]; then
        skip "lingering session of $user: enabled"
    elif limited 60 loginctl enable-linger "$user"; then
        did "lingering session of $user enabled, for pipewire"
    else
        warn "loginctl enable-linger $user failed ($(reason)); pipewire devices may be out of reach"
    fi
}

# ---------------------------------------------------------------------------------------- kvssink

# A compiler takes about 1.5 GB: a Raspberry Pi with 2 GB must not run four.
compilers() {
    by_memory=$(awk '/^MemTotal:/ { print int($2 / 1500000) }' "$EI_ROOT/proc/meminfo" 2>/dev/null)
    by_cores=$(nproc 2>/dev/null || echo 1)
    by_memory=${by_memory:-1}
    [ "$by_memory" -ge "$by_cores" ] || by_cores=$by_memory
    [ "$by_cores" -ge 1 ] || by_cores=1
    echo "$by_cores"
}

as_user() {
    seconds=$1
    shift
    limited "$seconds" runuser -u "$user" -- env "HOME=$EI_ROOT$home" "$@"
}

# As the service user, who owns the directory: root runs nothing that lies there.
compile_kvssink() {
    as_user 60 touch "$marker" &&
        as_user 60 rm -rf "$source" &&
        as_user 600 git clone --quiet --depth 1 --branch "$KVS_TAG" "$KVS_URL" "$source" &&
        as_user 3600 cmake -S "$source" -B "$source/build" -DBUILD_GSTREAMER_PLUGIN=ON &&
        as_user 3600 cmake --build "$source/build" --parallel "$(compilers)"
}

build_kvssink() {
    source=$EI_ROOT$home/$KVS_NAME
    # Beside the source: marks a build of ours that was cut off.
    marker=$source.building
    if [ -e "$source" ] && [ ! -e "$marker" ]; then
        warn "$source exists without a built kvssink and is not ours; move it away and deploy again"
        return
    fi
    if ! have runuser; then
        warn "kvssink is not built: runuser (util-linux) is missing"
        return
    fi
    case $manager in
    apt) install_packages kvssink "$KVS_APT" ;;
    dnf | yum) install_packages kvssink "$KVS_RPM" ;;
    esac
    if ! compile_kvssink; then
        warn "kvssink could not be built ($(reason)); the component runs without it"
    elif [ "$dry_run" = no ] && [ ! -f "$source/build/libgstkvssink.so" ]; then
        warn "the build of kvssink left no libgstkvssink.so; the component runs without it"
    else
        change rm -f "$marker"
        did "kvssink $KVS_TAG built in $home/$KVS_NAME"
    fi
}

provide_kvssink() {
    [ "$runs" = yes ] || return 0
    config install_kvssink no
    if [ "$value" != yes ]; then
        skip "kvssink: install_kvssink is not yes"
    elif [ -n "$home" ] && [ -f "$EI_ROOT$home/$KVS_NAME/build/libgstkvssink.so" ]; then
        skip "kvssink: built"
    elif [ -z "$home" ]; then
        warn "kvssink is not built: it goes into the home of $user, who has none"
    elif [ "$manager" = none ]; then
        warn "kvssink cannot be built: this image has no package manager; add kvssink to the image"
    else
        build_kvssink
    fi
}

# ------------------------------------------------------------------------------------------- main

usage() {
    sed -n '2,/^set /{ s/^# \{0,1\}//p; }' "$0"
}

for argument in "$@"; do
    case $argument in
    --dry-run) dry_run=yes ;;
    --help | -h)
        usage
        exit 0
        ;;
    *) fail "unknown argument $argument; usage: install.sh [--dry-run] [--help]" ;;
    esac
done

here=$(cd "$(dirname "$0")" && pwd -P) || fail "the directory of $0 cannot be entered"
binary=$here/ei-greengrass
newline='
'
started=$(date +%s)
if [ "$dry_run" = no ] && [ "$(id -u)" != 0 ]; then
    fail "must run as root: the recipe's install step needs RequiresPrivilege: true (--dry-run works as any user)"
fi
log=$(mktemp) || fail "no temporary file can be made; free space in /tmp and deploy again"
trap 'rm -f "$log"' EXIT
trap 'exit 143' TERM INT HUP

detect_platform
find_account
printf 'install: package manager %s, board %s, service user %s:%s\n' "$manager" "$board" "$user" "$group"
provide_packages
wait_for_packages
check_binary
provide_account
free_locks
join_groups
open_devices
link_binary
enable_linger
provide_kvssink
printf 'install: finished, %s done, %s skipped, %s warnings\n' "$done_count" "$skipped_count" "$warning_count"
