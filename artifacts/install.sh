#!/bin/sh
# Install step of the Edge Impulse Greengrass component. Greengrass runs it as root, beside the
# binary ei-greengrass, once for each component version and again after a failed deployment.
#
#   install.sh [--dry-run] [--help]
#
# Installs the packages that the component needs, checks that the binary can start on this machine,
# and then runs "ei-greengrass setup", which does everything else (service user, groups, devices,
# link, kvssink). A second run changes nothing and needs no network.
#
# Prints one line for each thing done ("done:"), for each thing that was there already ("skipped:")
# and for each thing that failed but is not essential ("warning:", on stderr). Ends with 1 only when
# the component could not run, after an "error:" line that says what to do.
#
# Environment:
#   CONFIG_PARAMETERS  the component configuration (set by the recipe), read by the binary
#   EI_ROOT            directory that is put before every absolute path that is read or written
#                      (/etc, /dev, /proc, /home, ei_bindir); for tests and image builds
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

# Seconds of the budget that are left.
time_left() {
    echo $((started + BUDGET - $(date +%s)))
}

# Prints why the last command failed: the first failed download of apt, else the last line.
reason() {
    why=$(grep -E "$APT_UNFETCHED" "$log" | head -n 1 | cut -c 1-200)
    [ -n "$why" ] || why=$(grep -v '^[[:space:]]*$' "$log" | tail -n 1 | cut -c 1-200)
    printf '%s' "${why:-no output}"
}

# -------------------------------------------------------------------------------- package manager

os_release() {
    sed -n "s/^$1=//p" "$EI_ROOT/etc/os-release" 2>/dev/null | tr -d "\"'" | head -n 1
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
    limited "$seconds" env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
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
        apt_get 300 -o APT::Update::Error-Mode=any update && ! log_has "$APT_UNFETCHED" && return 0
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
    [ "$manager" != apt ] || apt_update
    # shellcheck disable=SC2086 # the packages are words
    if install_now 1800 $missing; then
        did "packages for $1: $missing"
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
    case $manager in
    apt)
        packages=$APT_PACKAGES
        ! is_raspberry_pi || packages="$packages $APT_RASPBERRY_PI"
        install_packages GStreamer "$packages"
        ;;
    dnf | yum) install_packages GStreamer "$RPM_PACKAGES" ;;
    esac
}

# Greengrass marks the component as BROKEN after three failed installations. So this waits for the
# network, but only when the binary cannot start without the packages.
wait_for_packages() {
    tries=0
    while [ "$unfetched" = yes ] && [ "$dry_run" = no ] && [ "$tries" -lt "$NETWORK_TRIES" ] &&
        ! "$binary" --version >/dev/null 2>&1 </dev/null; do
        if [ "$(time_left)" -le "$NETWORK_WAIT" ]; then
            warn "there is no network, and the time that Greengrass allows ($BUDGET s) is used up"
            return
        fi
        tries=$((tries + 1))
        warn "the component cannot start without these packages; they are tried again in $NETWORK_WAIT s (try $tries of $NETWORK_TRIES)"
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
    *) echo "the package that contains it" ;;
    esac
}

# Prints why the binary does not start; $log has its output.
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
        printf 'its last message is: %s' "$(reason)"
    fi
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
        fail "$binary does not start: $(why_not)"
    fi
}

# The binary decides whether kvssink is built; its packages are installed here.
provide_kvssink_packages() {
    [ "$manager" != none ] || return 0
    [ "$("$binary" setup --needs-kvssink 2>/dev/null </dev/null)" = yes ] || return 0
    case $manager in
    apt) install_packages kvssink "$KVS_APT" ;;
    *) install_packages kvssink "$KVS_RPM" ;;
    esac
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
started=$(date +%s)
if [ "$dry_run" = no ] && [ "$(id -u)" != 0 ]; then
    fail "must run as root: the recipe's install step needs RequiresPrivilege: true (--dry-run works as any user)"
fi
log=$(mktemp) || fail "no temporary file can be made; free space in /tmp and deploy again"
trap 'rm -f "$log"' EXIT
trap 'exit 143' TERM INT HUP

detect_package_manager
printf 'install: package manager %s\n' "$manager"
provide_packages
wait_for_packages
check_binary
provide_kvssink_packages

left=$(time_left)
[ "$left" -gt 0 ] || left=0
set -- --package-manager "$manager" --counts "$done_count,$skipped_count,$warning_count" --time-limit "$left"
[ "$dry_run" = no ] || set -- "$@" --dry-run
# exec runs no trap.
rm -f "$log"
exec "$binary" setup "$@"
