#!/bin/sh
# Install step of the Edge Impulse Greengrass component. Greengrass runs it as root, beside the
# binary ei-greengrass, once for each component version and again after a failed deployment.
#
#   install.sh [--dry-run] [--help]
#   install.sh --finish [--kvssink]         what the step could not finish; with --kvssink, builds it
#   install.sh --start-service [--kvssink]  does that in the service ei-greengrass-install (systemd)
#
# Compares the SHA-256 sum of the binary with the one that package.sh wrote into this script, before
# anything runs. Installs the packages that the component needs, checks that the binary can start on
# this machine, and then runs "ei-greengrass setup", which does everything else (service user, groups, devices,
# work directory, link). A second run changes nothing and needs no network.
#
# Greengrass Lite fails a deployment when the step takes 300 s, whatever Timeout says. There the step
# ends by itself within 240 s, and the service ei-greengrass-install does the rest: packages that
# took too long, and the build of kvssink. "journalctl -u ei-greengrass-install" shows its log.
#
# Prints one line for each thing done ("done:"), for each thing that was there already ("skipped:")
# and for each thing that failed but is not essential ("warning:", on stderr). Ends with 1 only when
# the component could not run, after an "error:" line that says what to do.
#
# Environment:
#   CONFIG_PARAMETERS  the component configuration (set by the recipe), read by the binary
#   EI_ROOT            directory that is put before every absolute path that is read or written
#                      (/etc, /dev, /proc, /home, ei_bindir); for tests and image builds
#   EI_TIME_LIMIT      seconds for the whole step, instead of 6900 (Lite: 240); for tests
set -uf
LC_ALL=C
export LC_ALL

EI_ROOT=${EI_ROOT:-}
# A service's PATH may lack the directories of useradd and loginctl.
[ -n "$EI_ROOT" ] || PATH=${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/sbin:/sbin
export PATH

APT_PACKAGES="gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good
  gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-alsa
  v4l-utils alsa-utils ca-certificates"
APT_RASPBERRY_PI="gstreamer1.0-libcamera"
# What the binary needs to start. Installed first where the time is short.
APT_ESSENTIAL="gstreamer1.0-plugins-base ca-certificates"
RPM_ESSENTIAL="gstreamer1-plugins-base"
RPM_PACKAGES="gstreamer1 gstreamer1-plugins-base gstreamer1-plugins-good"
KVS_APT="build-essential cmake git m4 pkg-config libssl-dev libcurl4-openssl-dev liblog4cplus-dev
  libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev"
KVS_RPM="gcc gcc-c++ make cmake git m4 pkgconf-pkg-config openssl-devel libcurl-devel
  log4cplus-devel gstreamer1-devel gstreamer1-plugins-base-devel"

# While there is no network and the binary lacks libraries: how often the packages are tried again,
# and how many seconds this waits before each try.
NETWORK_TRIES=30
NETWORK_WAIT=60
# Messages of the package managers about a failed download (for grep -E). For package lists apt only
# prints a warning.
APT_UNFETCHED='^[WE]: .*Failed to fetch '
RPM_UNFETCHED="Cannot download|Failed to download metadata|Could(n't| not) resolve|Curl error|curl#[0-9]"
RPM_UNFETCHED="$RPM_UNFETCHED|Cannot prepare internal mirrorlist|No more mirrors to try|Cannot find a valid baseurl"
# Messages after a server answered: the network works, the requested file does not exist.
ANSWERED=' 404 |HTTP Error 404|Status code: 404|No URLs in mirrorlist'
# Messages about a package that is not in the package lists.
UNKNOWN='Unable to locate package|has no installation candidate|is not installable'
UNKNOWN="$UNKNOWN|No match for argument|Unable to find a match|No package .* available"

# Seconds for the whole install step. This is less than the recipe's Timeout (7200), so that this
# script ends a command that hangs and names it, before Greengrass ends the script.
BUDGET=6900
# A command that does not end at its limit gets SIGKILL after this many seconds more.
KILL_AFTER=30
# Seconds for "apt-get update".
UPDATE_LIMIT=300
# The same on Greengrass Lite, which allows 300 s.
LITE_BUDGET=240
LITE_KILL_AFTER=10
LITE_NETWORK_WAIT=15
LITE_UPDATE_LIMIT=90

# The component, as in its recipe, and the service that finishes the step. Both recipes have this script.
COMPONENT=EdgeImpulseLinuxRunnerServiceComponent
LINUX_COMPONENT=EdgeImpulseLinuxServiceComponent
SERVICE=ei-greengrass-install
# The SHA-256 sums of the binaries that belong to this script, "SUM  ARCHITECTURE/ei-greengrass" in each
# line, and the signature of these lines by minisign or cosign. package.sh writes both.
SUMS=''
SIGNATURE=''
# The public keys that check the signature, if the administrator of the device put one there.
MINISIGN_KEY=/etc/ei-greengrass/minisign.pub
COSIGN_KEY=/etc/ei-greengrass/cosign.pub

# States of packages while dpkg is at work, or was ended at work.
UNCONFIGURED='half-installed|unpacked|half-configured|triggers-awaited|triggers-pending'

mode=step
kvssink=no
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

# Runs a command that changes the machine. Its output goes to $log and not to Greengrass's log.
change() {
    [ "$dry_run" = yes ] && return 0
    "$@" >"$log" 2>&1 </dev/null
}

# The same with a time limit: limited SECONDS COMMAND...
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
            warn "the tool timeout (coreutils) is missing: if a command hangs, only Greengrass can end it, together with this step"
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

# Seconds on a clock that does not jump when the time is set, as it does after a start without a
# battery-backed clock.
now() {
    uptime=$(sed 's/\..*//' "$EI_ROOT/proc/uptime" 2>/dev/null)
    echo "${uptime:-$(date +%s)}"
}

# Seconds of the budget that are left for packages.
time_left() {
    echo $((started + BUDGET - RESERVE - $(now)))
}

# Sleeps, but not beyond the budget.
pause() {
    seconds=$(time_left)
    [ "$seconds" -lt "$1" ] || seconds=$1
    [ "$seconds" -le 0 ] || sleep "$seconds"
}

# The first line of the input. Reads all of it: head would end the writer with an error message.
first_line() {
    sed -n 1p
}

# Prints why the last command failed: the first failed download of apt, else the last line.
reason() {
    why=$(grep -E "$APT_UNFETCHED" "$log" | first_line | cut -c 1-200)
    [ -n "$why" ] || why=$(grep -v '^[[:space:]]*$' "$log" | tail -n 1 | cut -c 1-200)
    printf '%s' "${why:-no output}"
}

# -------------------------------------------------------------------------------- package manager

os_release() {
    sed -n "s/^$1=//p" "$EI_ROOT/etc/os-release" 2>/dev/null | tr -d "\"'" | first_line
}

# ---------------------------------------------------------------------------------------- nucleus

# True on Greengrass Lite. "ei-greengrass setup" (src/setup/nucleus.rs) decides in the same way.
is_lite() {
    nucleus=${here%/packages/artifacts/*}
    case $here in
    */packages/artifacts/$LINUX_COMPONENT/*) COMPONENT=$LINUX_COMPONENT ;;
    esac
    if [ "$nucleus" != "$here" ]; then
        [ ! -f "$nucleus/config/config.tlog" ] || return 1
        [ ! -f "$nucleus/config/effectiveConfig.yaml" ] || return 1
        [ ! -f "$nucleus/ggl.$COMPONENT.install.service" ] || return 0
    fi
    [ -f "$EI_ROOT/etc/greengrass/config.yaml" ] || [ -d "$EI_ROOT/etc/greengrass/config.d" ]
}

# Sets the limits of this run.
set_limits() {
    RESERVE=0
    if [ "$mode" = step ] && is_lite; then
        BUDGET=$LITE_BUDGET
        KILL_AFTER=$LITE_KILL_AFTER
        NETWORK_WAIT=$LITE_NETWORK_WAIT
        UPDATE_LIMIT=$LITE_UPDATE_LIMIT
        short=yes
    fi
    BUDGET=${EI_TIME_LIMIT:-$BUDGET}
    # The time of "ei-greengrass setup".
    [ "$short" = no ] || RESERVE=$((BUDGET / 6))
}

# ---------------------------------------------------------------------------------------- service

has_systemd() {
    [ -d "$EI_ROOT/run/systemd/system" ] && have systemctl && have systemd-run
}

service_is_active() {
    has_systemd && systemctl is-active --quiet "$SERVICE" 2>/dev/null </dev/null
}

# The proxies that Greengrass set, for the service. A file, because a proxy's address may have a
# password, and everybody can see the arguments of a command.
write_service_environment() {
    environment=$EI_ROOT/run/$SERVICE.env
    rm -f "$environment"
    (
        umask 077
        set -C
        for name in http_proxy https_proxy no_proxy all_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY; do
            eval "value=\${$name:-}"
            [ -z "$value" ] || printf '%s="%s"\n' "$name" "$(printf '%s' "$value" | sed 's/[\\"]/\\&/g')"
        done >"$environment"
    ) 2>/dev/null
}

# Starts the service; nothing happens if it runs. Fails if there is no systemd.
start_service() {
    if ! has_systemd; then
        printf 'this machine has no systemd\n' >"$log"
        return 1
    fi
    ! service_is_active || return 0
    write_service_environment
    systemctl reset-failed "$SERVICE" >/dev/null 2>&1 </dev/null
    set -- "--unit=$SERVICE" "--description=Installs the rest of the Edge Impulse component" \
        "--property=EnvironmentFile=-$EI_ROOT/run/$SERVICE.env" --property=Nice=10 \
        /bin/sh "$here/install.sh" --finish
    [ "$kvssink" = no ] || set -- "$@" --kvssink
    change systemd-run --quiet "$@"
}

# Waits while the service installs what the binary needs to start.
wait_for_service() {
    while service_is_active && [ "$(time_left)" -gt 0 ] && ! starts; do
        pause 5
    done
}

# Sets $manager to apt, dnf, yum or none. The distribution decides, because some Yocto images have
# apt-get or dnf without a package feed.
detect_package_manager() {
    manager=none
    case " $(os_release ID) $(os_release ID_LIKE) " in
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
}

is_raspberry_pi() {
    case $(tr -d '\000' 2>/dev/null <"$EI_ROOT/proc/device-tree/model") in
    "Raspberry Pi"*) ;;
    *) return 1 ;;
    esac
}

# --------------------------------------------------------------------------------------- packages

# Prints the packages that are not installed: missing_packages "PACKAGE..."
missing_packages() {
    for package in $1; do
        case $manager in
        apt)
            # shellcheck disable=SC2016 # a format of dpkg-query
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
    # Shorter than the limit, so that apt itself says who holds the lock.
    lock_limit=$(($(time_left) - 5))
    [ "$lock_limit" -lt 300 ] || lock_limit=300
    [ "$lock_limit" -gt 0 ] || lock_limit=0
    limited "$seconds" env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -qq -y -o "DPkg::Lock::Timeout=$lock_limit" -o Acquire::Retries=3 \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}

# True if the output of the last command has a match: log_has REGULAR-EXPRESSION
log_has() {
    grep -Eqi -e "$1" "$log" 2>/dev/null
}

# apt has no timeout option for the lock of the package lists, so a busy lock is tried again. Older
# versions of apt ignore the option Error-Mode and report success when they fetched nothing. Sets
# $stale to yes if the lists may lack packages because there is no network.
apt_update() {
    stale=no
    for try in 1 2 3; do
        apt_get "$UPDATE_LIMIT" -o APT::Update::Error-Mode=any update && ! log_has "$APT_UNFETCHED" && return 0
        [ "$try" = 3 ] || pause 10
    done
    # Not "grep -q": it would end the first grep with an error message.
    unanswered=$(grep -E "$APT_UNFETCHED|^it did not end within" "$log" | grep -Ev "$ANSWERED")
    [ -z "$unanswered" ] || stale=yes
    warn "apt-get update failed ($(reason)); the package lists on this machine are used"
}

configure_packages() {
    limited 600 env DEBIAN_FRONTEND=noninteractive dpkg --force-confdef --force-confold --configure -a
}

# Repairs what an apt-get left behind that was ended at work: by the time limit of an earlier step,
# or by a power cut.
repair_dpkg() {
    [ "$manager" = apt ] || return 0
    # shellcheck disable=SC2016 # a format of dpkg-query
    states=$(dpkg-query -W -f='${db:Status-Status}\n' 2>/dev/null | grep -xE "$UNCONFIGURED")
    [ -n "$states" ] || return 0
    if configure_packages; then
        did "packages configured that an interrupted installation had left behind (dpkg --configure -a)"
    else
        warn "packages of an interrupted installation could not be configured ($(reason)); try: dpkg --configure -a"
    fi
}

# install_now SECONDS PACKAGE...
install_now() {
    seconds=$1
    shift
    case $manager in
    apt)
        apt_get "$seconds" --no-install-recommends install "$@" && return 0
        grep -q 'dpkg --configure -a' "$log" 2>/dev/null || return 1
        configure_packages && apt_get "$seconds" --no-install-recommends install "$@"
        ;;
    *) limited "$seconds" "$manager" -y -q install "$@" ;;
    esac
}

# True if the last installation failed because of a download.
unreachable() {
    case $manager in
    apt) log_has "$APT_UNFETCHED" ;;
    *) log_has "$RPM_UNFETCHED" && ! log_has "$ANSWERED" ;;
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
    [ "$manager" != apt ] || [ "$updated" = yes ] || apt_update
    updated=yes
    # shellcheck disable=SC2086 # the packages are words
    if install_now 1800 $missing; then
        did "packages for $1: $missing"
        return
    fi
    if [ "$short" = yes ] && [ "$(time_left)" -le 0 ]; then
        unfinished=yes
        warn "packages for $1 are not complete: this step has no more time (Greengrass Lite allows 300 s): $missing"
        return
    fi
    if unreachable && ! log_has "$UNKNOWN"; then
        unfetched=yes
        warn "packages for $1 could not be downloaded ($(reason)): $missing"
        return
    fi
    # A package that this release does not have must not prevent the installation of the others.
    unlisted=
    for package in $missing; do
        if install_now 300 "$package"; then
            did "package for $1: $package"
        elif unreachable || { [ "$stale" = yes ] && log_has "$UNKNOWN"; }; then
            unlisted="$unlisted $package"
        else
            warn "package $package could not be installed ($(reason)); try: $manager install $package"
        fi
    done
    if [ -n "$unlisted" ]; then
        unfetched=yes
        warn "packages for $1 are not available because downloads failed; check the network and the package sources:$unlisted"
    fi
}

provide_packages() {
    unfetched=no
    updated=no
    case $manager in
    apt)
        essential=$APT_ESSENTIAL
        packages=$APT_PACKAGES
        ! is_raspberry_pi || packages="$packages $APT_RASPBERRY_PI"
        ;;
    dnf | yum)
        essential=$RPM_ESSENTIAL
        packages=$RPM_PACKAGES
        ;;
    *) return ;;
    esac
    if [ "$short" = yes ] && ! starts; then
        install_packages "the start of the component" "$essential"
        [ "$unfetched" = no ] || return
    fi
    install_packages GStreamer "$packages"
}

starts() {
    "$binary" --version >/dev/null 2>&1 </dev/null
}

# Greengrass marks the component as BROKEN after three failed installations. So this waits for the
# network, but only when the binary cannot start without the packages. The service always waits.
wait_for_packages() {
    tries=0
    while [ "$unfetched" = yes ] && [ "$dry_run" = no ] && [ "$tries" -lt "$NETWORK_TRIES" ] &&
        { [ "$mode" = finish ] || ! starts; }; do
        if [ "$(time_left)" -le "$NETWORK_WAIT" ]; then
            warn "there is no network, and the time that Greengrass allows ($BUDGET s) is used up"
            return
        fi
        tries=$((tries + 1))
        if [ "$mode" = finish ]; then
            warn "the packages are tried again in $NETWORK_WAIT s (try $tries of $NETWORK_TRIES)"
        else
            warn "the component cannot start without these packages; they are tried again in $NETWORK_WAIT s (try $tries of $NETWORK_TRIES)"
        fi
        sleep "$NETWORK_WAIT"
        provide_packages
    done
}

# ------------------------------------------------------------------------------------ integrity

# Prints the SHA-256 sum of a file; nothing if this machine has no tool for it.
sum_of() {
    if have sha256sum; then
        sha256sum <"$1"
    elif have busybox; then
        busybox sha256sum <"$1"
    elif have openssl; then
        openssl dgst -sha256 -r <"$1"
    fi 2>/dev/null | cut -d' ' -f1
}

# Fails if the binary is not the one that this script was packaged with.
check_sum() {
    [ -n "$SUMS" ] && [ -f "$binary" ] || return 0
    found=$(sum_of "$binary")
    if [ -z "$found" ]; then
        warn "the sum of $binary is not checked: sha256sum (coreutils or busybox) is missing"
        return
    fi
    expected=$(printf '%s\n' "$SUMS" | sed -n 's|  [a-z0-9]*/ei-greengrass$||p' | tr '\n' ' ' | sed 's/ $//; s/ / or /g')
    case " $expected " in
    *" $found "*) ;;
    *)
        fail "$binary is not the file that this install.sh was packaged with, so nothing of it was run: SHA-256 expected $expected, found $found. \
Deploy again, so that Greengrass loads the file again; in a local deployment copy the whole directory that package.sh wrote. If the sum stays the same, somebody changed the file: find out who before you package a new version"
        ;;
    esac
}

# The signature proves nothing to a device without a public key, and nothing is asked for there.
check_signature() {
    if [ -f "$EI_ROOT$MINISIGN_KEY" ]; then
        public_key=$EI_ROOT$MINISIGN_KEY tool=minisign
    elif [ -f "$EI_ROOT$COSIGN_KEY" ]; then
        public_key=$EI_ROOT$COSIGN_KEY tool=cosign
    else
        return 0
    fi
    [ -n "$SIGNATURE" ] ||
        fail "this package has no signature, and $public_key asks for one: package it with 'package.sh --sign KEY', or remove $public_key"
    if ! have "$tool"; then
        warn "the signature of the package is not checked: $public_key is there, $tool is not installed"
        return
    fi
    directory=$(mktemp -d) || fail "no temporary directory can be made; free space in /tmp and deploy again"
    printf '%s\n' "$SUMS" >"$directory/sums"
    printf '%s\n' "$SIGNATURE" >"$directory/signature"
    case $tool in
    minisign) minisign -V -q -p "$public_key" -m "$directory/sums" -x "$directory/signature" ;;
    cosign) cosign verify-blob --key "$public_key" --insecure-ignore-tlog=true --bundle "$directory/signature" "$directory/sums" ;;
    esac >"$log" 2>&1 </dev/null
    result=$?
    rm -rf "$directory"
    [ "$result" = 0 ] ||
        fail "the signature of this package does not belong to $public_key, so nothing of it was run ($tool: $(reason)): deploy a version that was signed with the right key, or replace $public_key"
}

# ----------------------------------------------------------------------------------------- binary

package_of_library() {
    case $1 in
    libgstreamer-1.0.so* | libgstbase-1.0.so*) echo "libgstreamer1.0-0 (yum: gstreamer1)" ;;
    libgst*) echo "libgstreamer-plugins-base1.0-0 (yum: gstreamer1-plugins-base)" ;;
    libglib* | libgobject* | libgio* | libgmodule*) echo "libglib2.0-0 (yum: glib2)" ;;
    *) echo "the package that contains it" ;;
    esac
}

# Prints why the binary does not start; $log has its output.
why_not() {
    linked=$(ldd "$binary" 2>&1)
    glibc=$(printf '%s\n%s\n' "$linked" "$(cat "$log")" | grep -o 'GLIBC_[0-9.]*' | first_line)
    library=$(printf '%s\n' "$linked" | sed -n 's/^[[:space:]]*\([^ ]*\) => not found.*/\1/p' | first_line)
    [ -n "$library" ] ||
        library=$(sed -n 's/.*error while loading shared libraries: \([^:]*\):.*/\1/p' "$log" | first_line)
    if [ -n "$library" ]; then
        printf 'the shared library %s is missing; install %s and deploy again' \
            "$library" "$(package_of_library "$library")"
    elif [ -n "$glibc" ]; then
        printf 'it was built for a newer system (%s); package it with an older sysroot (artifacts/package.sh --sysroot) and deploy again' "$glibc"
    elif grep -qi 'exec format error\|cannot execute' "$log"; then
        printf 'it was built for another machine than %s; package it for this architecture and deploy again' "$(uname -m)"
    else
        printf 'its last message is: %s' "$(reason)"
    fi
}

# True if the service must install packages, or is installing them.
lacks_packages() {
    [ "$short" = yes ] && { [ "$unfinished" = yes ] || [ "$unfetched" = yes ] || service_is_active; }
}

# Fails if the binary cannot start: nothing works without it.
check_binary() {
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
        skip "the binary: $version runs on this machine"
    elif [ "$dry_run" = yes ]; then
        warn "$binary does not start: $(why_not)"
        warn "the steps after the packages cannot be shown without the binary"
        printf 'install: finished, %s done, %s skipped, %s warnings\n' "$done_count" "$skipped_count" "$warning_count"
        exit 0
    else
        why=$(why_not)
        if lacks_packages && start_service; then
            why="$why; the service $SERVICE installs the packages (journalctl -u $SERVICE): deploy again when it has ended"
        fi
        fail "$binary does not start: $why"
    fi
}

provide_kvssink_packages() {
    case $manager in
    apt) install_packages kvssink "$KVS_APT" ;;
    dnf | yum) install_packages kvssink "$KVS_RPM" ;;
    esac
}

# Runs in the service, or by hand.
finish() {
    repair_dpkg
    provide_packages
    wait_for_packages
    if [ "$kvssink" = yes ]; then
        provide_kvssink_packages
        ! starts || run_setup --kvssink
        warn "kvssink is not built: the component does not start yet"
    fi
    printf 'install: finished, %s done, %s skipped, %s warnings; the component uses what is new after its next start\n' \
        "$done_count" "$skipped_count" "$warning_count"
}

# Replaces this process by "ei-greengrass setup".
run_setup() {
    left=$(($(time_left) + RESERVE))
    [ "$left" -gt 0 ] || left=0
    set -- "$@" --package-manager "$manager" --counts "$done_count,$skipped_count,$warning_count" --time-limit "$left"
    [ "$dry_run" = no ] || set -- "$@" --dry-run
    # exec runs no trap.
    rm -f "$log"
    exec "$binary" setup "$@"
}

# ------------------------------------------------------------------------------------------- main

usage() {
    sed -n '2,/^set /{ s/^# \{0,1\}//p; }' "$0"
}

for argument in "$@"; do
    case $argument in
    --dry-run) dry_run=yes ;;
    --finish) mode=finish ;;
    --start-service) mode=service ;;
    --kvssink) kvssink=yes ;;
    --help | -h)
        usage
        exit 0
        ;;
    *) fail "unknown argument $argument; usage: install.sh [--dry-run] [--help]" ;;
    esac
done

here=$(cd "$(dirname "$0")" && pwd -P) || fail "the directory of $0 cannot be entered"
binary=$here/ei-greengrass
short=no
unfinished=no
set_limits
started=$(now)
if [ "$dry_run" = no ] && [ "$(id -u)" != 0 ]; then
    fail "must run as root: the recipe's install step needs RequiresPrivilege: true (--dry-run works as any user)"
fi
log=$(mktemp) || fail "no temporary file can be made; free space in /tmp and deploy again"
trap 'rm -f "$log"' EXIT
trap 'exit 143' TERM INT HUP

check_signature
check_sum
if [ "$mode" = service ]; then
    start_service && exit 0
    fail "the service $SERVICE cannot be started: $(reason)"
fi
detect_package_manager
printf 'install: package manager %s\n' "$manager"
if [ "$mode" = finish ]; then
    finish
    exit 0
fi
unfetched=no
if service_is_active; then
    skip "packages: the service $SERVICE is at work (journalctl -u $SERVICE)"
    wait_for_service
else
    repair_dpkg
    provide_packages
    wait_for_packages
fi
check_binary
if lacks_packages; then
    run_setup --lacks-packages
fi
run_setup
