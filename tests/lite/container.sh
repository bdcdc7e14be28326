# shellcheck shell=bash disable=SC2034,SC2154 # variables of lite.sh
# The container of lite.sh: the nucleus, and what it needs of the cloud and of a broker.

# shellcheck disable=SC2317 # the trap calls it
clean_up() {
    local process
    trap - EXIT
    keep_logs
    for process in ${processes[@]+"${processes[@]}"} $supervisor; do
        kill "$process" 2>/dev/null
    done
    wait
    [[ -z $machine ]] || ! mountpoint -q "$machine" || umount "$machine"
    [[ -z $cgroup ]] || find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null
    rm -rf "$scratch"
}

# The nucleus logs secrets of the stand-in cloud only.
keep_logs() {
    [[ -n $logs && -n $machine ]] || return 0
    journalctl --directory "$machine/var/log/journal" --no-pager --output short-precise >"$logs/journal.log" 2>&1
    cp "$scratch"/messages "$scratch"/console.log "$logs/" 2>/dev/null
}

# A view of ROOT that may be changed.
provide_machine() {
    machine=$scratch/machine
    mkdir "$machine" "$scratch/upper" "$scratch/overlay"
    mount -t overlay overlay -o "lowerdir=$nucleus,upperdir=$scratch/upper,workdir=$scratch/overlay" "$machine" 2>/dev/null ||
        cp -a --reflink=auto "$nucleus/." "$machine" || refuse "$nucleus cannot be copied"
}

# The configuration of the nucleus, its certificates, and the names of the stand-in cloud. What ROOT holds
# of an earlier use is put away.
configure_nucleus() {
    core_user=$(sed -n 's/^User=//p' "$machine"/{,usr/}lib/systemd/system/ggl.core.ggconfigd.service 2>/dev/null | head -n 1)
    core_user=${core_user:-ggcore}
    other_user=gg_component
    [[ $core_user != "$other_user" ]] || other_user=gg_component2
    chroot "$machine" id "$core_user" >/dev/null 2>&1 || refuse "the nucleus's user $core_user does not exist in ROOT"
    chroot "$machine" id "$other_user" >/dev/null 2>&1 || chroot "$machine" useradd -m -U "$other_user" ||
        refuse "the user $other_user cannot be made"
    rm -rf "$machine/etc/greengrass" "${machine:?}$STATE"
    install -d -o "$(chroot "$machine" id -u "$core_user")" -g "$(chroot "$machine" id -g "$core_user")" "$machine$STATE"
    mkdir -p "$machine/etc/greengrass/credentials"
    # The journal is kept over a reboot.
    rm -rf "$machine/var/log/journal"
    mkdir -p "$machine/var/log/journal"
    make_certificates "$machine/etc/greengrass/credentials"
    write_nucleus_configuration "$core_user"
    printf '127.0.0.1 localhost credentials.lite.invalid data.lite.invalid\n' >"$machine/etc/hosts"
}

# write_nucleus_configuration USER: components run as USER.
write_nucleus_configuration() {
    cat >"$machine/etc/greengrass/config.yaml" <<YAML
---
system:
  privateKeyPath: "/etc/greengrass/credentials/device.key"
  certificateFilePath: "/etc/greengrass/credentials/device.pem"
  rootCaPath: "/etc/greengrass/credentials/ca.pem"
  rootPath: "$STATE"
  thingName: "$THING"
services:
  aws.greengrass.NucleusLite:
    componentType: "NUCLEUS"
    configuration:
      awsRegion: "us-east-1"
      iotCredEndpoint: "credentials.lite.invalid"
      iotDataEndpoint: "data.lite.invalid"
      iotRoleAlias: "LiteRole"
      runWithDefault:
        posixUser: "$1:$(chroot "$machine" id -gn "$1")"
      greengrassDataPlanePort: "8443"
      platformOverride: {}
YAML
    # The nucleus's user reads it.
    chmod -R a+rX "$machine/etc/greengrass"
}

make_certificates() {
    local name
    (
        cd "$scratch" || exit
        openssl req -x509 -newkey rsa:2048 -nodes -days 30 -keyout ca.key -out ca.pem -subj /CN=lite-test
        for name in device cloud; do
            openssl req -newkey rsa:2048 -nodes -keyout $name.key -out $name.csr -subj /CN=$name
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out $name.pem \
                -extfile <(printf 'subjectAltName=DNS:credentials.lite.invalid,DNS:data.lite.invalid\n')
        done
    ) >"$scratch/openssl.log" 2>&1
    cp "$scratch"/{ca.pem,device.pem,device.key} "$1/" || refuse "openssl cannot make certificates: $(tail -n 1 "$scratch/openssl.log")"
}

start_container() {
    boot
    wait_for_boot || { tail -n 20 "$scratch/console.log" >&2; refuse "the container did not start within $BOOT_WAIT s"; }
}

# Starts nspawn. Without a systemd on this machine, the container gets a control group made here.
boot() {
    local options=(--boot --quiet "--directory=$machine" "--machine=ei-lite-$$" --private-network --register=no --console=read-only)
    if [[ ! -S /run/dbus/system_bus_socket ]]; then
        options+=(--keep-unit)
        cgroup=$(findmnt --noheadings --types cgroup2 --output TARGET | head -n 1)/ei-lite-$$
        mkdir -p "$cgroup" || refuse "no control group can be made in ${cgroup%/*}"
    fi
    (
        [[ -z $cgroup ]] || echo "$BASHPID" >"$cgroup/cgroup.procs"
        exec env SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn "${options[@]}"
    ) </dev/null >>"$scratch/console.log" 2>&1 &
    supervisor=$!
}

# With --keep-unit nspawn leaves it to its caller to start a container again that reboots.
reboot_container() {
    local before=$leader
    inside systemctl reboot 2>/dev/null
    wait_until "$BOOT_WAIT" has_ended "$before" || { why="the container did not stop"; return 1; }
    [[ -z $cgroup ]] || { wait "$supervisor"; boot; }
    wait_for_boot || { why="the container did not start again"; return 1; }
}

# Waits until the container's systemd has started everything, and starts the stand-ins in its network.
wait_for_boot() {
    wait_until "$BOOT_WAIT" is_booted || return 1
    start_stand_ins
}

is_booted() {
    leader=$(pgrep -P "$supervisor" | head -n 1)
    [[ -n $leader ]] && inside systemctl is-system-running 2>/dev/null | grep -E '^(running|degraded)$' >/dev/null &&
        inside systemctl is-active --quiet ggl.core.ggdeploymentd.service
}

# Runs a command in the container.
inside() {
    nsenter --target "$leader" --all -- "$@"
}

# The stand-in cloud (thing groups, credentials), the broker and a subscriber, in the container's network.
start_stand_ins() {
    local process port network=(nsenter --target "$leader" --net --)
    for process in ${processes[@]+"${processes[@]}"}; do
        kill "$process" 2>/dev/null
    done
    processes=()
    mkdir -p "$scratch/cloud/greengrass/v2/coreDevices/$THING" "$scratch/cloud/role-aliases/LiteRole"
    printf '{"thingGroups":[]}' >"$scratch/cloud/greengrass/v2/coreDevices/$THING/thingGroups"
    for port in 443 8443; do
        (cd "$scratch/cloud" && exec "${network[@]}" openssl s_server -quiet -WWW -accept "$port" \
            -cert ../cloud.pem -key ../cloud.key) </dev/null >>"$scratch/cloud.log" 2>&1 &
        processes+=($!)
    done
    issue_credentials
    start_broker
}

start_broker() {
    printf 'listener %s 127.0.0.1\nallow_anonymous true\n' "$BROKER_PORT" >"$scratch/mosquitto.conf"
    nsenter --target "$leader" --net -- mosquitto -c "$scratch/mosquitto.conf" >>"$scratch/mosquitto.log" 2>&1 &
    broker=$!
    processes+=("$broker")
    wait_until 10 nsenter --target "$leader" --net -- mosquitto_pub -p "$BROKER_PORT" -t here -m here 2>/dev/null ||
        refuse "Mosquitto did not start: $(tail -n 1 "$scratch/mosquitto.log")"
    nsenter --target "$leader" --net -- mosquitto_sub -p "$BROKER_PORT" -t '/edgeimpulse/#' -F '%t %p' >>"$scratch/messages" 2>/dev/null &
    processes+=($!)
}

# Credentials that end so soon that the component asks for new ones within a minute: it renews them 5
# minutes before their end.
issue_credentials() {
    printf '{"credentials":{"accessKeyId":"AKIDLITE%s","secretAccessKey":"secret","sessionToken":"token","expiration":"%s"}}' \
        "$RANDOM" "$(date -u -d '+320 seconds' +%FT%TZ)" >"$scratch/cloud/role-aliases/LiteRole/credentials"
}

# A network card whose address gives the device's name its suffix. With IPv6 alone the nucleus's token
# exchange service does not start.
add_card() {
    local network=(nsenter --target "$leader" --net -- ip)
    "${network[@]}" link add eth0 type veth peer name eth1 && "${network[@]}" address add 192.0.2.1/24 dev eth0 &&
        "${network[@]}" link set eth0 up && "${network[@]}" link set eth1 up
}

# wait_until SECONDS COMMAND...
wait_until() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < end)) || return 1
        sleep 0.3
    done
}

# Prints how many messages have arrived: a place from which to look for newer ones.
mark() {
    wc -l <"$scratch/messages"
}

# has_message MARK PATTERN: a message (topic and payload) after MARK matches the regular expression. Not with
# grep -q, which ends at the first match: the error of the command before it would count.
has_message() {
    tail -n "+$(($1 + 1))" "$scratch/messages" | grep -E "$2" >/dev/null
}

wait_for_message() {
    wait_until "${3:-$MESSAGE_WAIT}" has_message "$1" "$2" || {
        why="no message like $2 within ${3:-$MESSAGE_WAIT} s"
        return 1
    }
}

publishes() {
    wait_for_message "$(mark)" '/inference/output .*"label":"ball"'
}
