#!/usr/bin/env bash
# Deploys the component on a real AWS IoT Greengrass Lite nucleus in a container: installs, configures,
# updates, disturbs, reboots and removes it, and checks what it publishes to a real Mosquitto. This takes
# about 15 minutes and needs a nucleus, so tests/run.sh does not run it.
#
#   tests/lite.sh ROOT [OPTION]...
#
#   ROOT               root directory of a Linux system with systemd in which Greengrass Lite is
#                      installed as its own documentation says. It is not changed: the container runs
#                      on an overlay, or on a copy where overlays cannot be mounted
#   --binary FILE      ei-greengrass, built before for this machine and for the libraries in ROOT;
#                      default: artifacts/package.sh builds it
#   --logs DIRECTORY   keep the journal of the container and the messages there
#   --only PATTERN     run only the checks whose name (for example update) matches this regular
#                      expression, and what they need; --list prints the names
#   --list             print the names of the checks
#
# Needs root, and on this machine systemd-nspawn, openssl, python3, mosquitto and its clients; installs
# them on Debian and Ubuntu. ROOT needs systemd with dbus, GStreamer's plugins "base" and "good", and the
# nucleus with its users; packages of the install step that are missing in ROOT only give warnings.
# The container has no network but its own loopback and one virtual card. No AWS account is used: this
# script answers the requests of the nucleus for thing groups and credentials with its own certificates.
#
# Prints "ok: ..." or "failed: ..." for each check. Ends with 0 if all checks passed, with 1 if one
# failed, and with 2 if they could not be run.
set -uo pipefail

readonly COMPONENT=EdgeImpulseLinuxRunnerServiceComponent
readonly READER=ei.LiteReader
readonly UNIT=ggl.$COMPONENT.service
readonly THING=LiteThing
readonly STATE=/var/lib/greengrass
readonly BROKER_PORT=1883
readonly BALL_SOURCE='videotestsrc pattern=ball is-live=true ! video/x-raw,width=320,height=240,framerate=15/1'
# A value that breaks, or runs a command, wherever it meets a shell or a parser without quotes.
readonly HOSTILE="a \"b\" (c); touch /injected; \$HOME \\ \`touch /injected\` 'd' {e} & é"
# Lite ends an install step after this many seconds, and with it the deployment.
readonly INSTALL_LIMIT=300
# Seconds until the container has started, a deployment has ended, and an inference has arrived.
readonly BOOT_WAIT=60
readonly DEPLOY_WAIT=120
readonly MESSAGE_WAIT=60

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
PATH="$PATH:/usr/sbin:/sbin"
nucleus='' binary='' logs='' only=''
scratch='' machine='' supervisor='' leader='' cgroup='' broker=''
core_user='' other_user='' recipe='' took=''
processes=()
passed=0 failed=0 version=0.0.0 why=''

refuse() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

say() {
    printf 'lite: %s\n' "$*"
}

# ---------------------------------------------------------------------------------------- arguments

parse_arguments() {
    while (($# > 0)); do
        case $1 in
        --help | -h)
            sed -n '2,/^set /{ s/^# \{0,1\}//p; }' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        --list)
            sed -n 's/^check_\([a-z_]*\)() {.*/\1/p' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        --binary | --logs | --only)
            (($# >= 2)) || refuse "$1 needs a value; see --help"
            case $1 in
            --binary) binary=$(realpath -e "$2") || refuse "--binary: $2 does not exist" ;;
            --logs)
                mkdir -p "$2" || refuse "--logs: $2 cannot be made"
                logs=$(realpath "$2")
                ;;
            --only) only=$2 ;;
            esac
            shift
            ;;
        -*) refuse "unknown option $1; see --help" ;;
        *)
            [[ -z $nucleus ]] || refuse "there is one argument too many: $1; see --help"
            nucleus=$1
            ;;
        esac
        shift
    done
    [[ -n $nucleus ]] || refuse "the root directory is missing; see --help"
    nucleus=$(realpath -e "$nucleus") || refuse "the root directory does not exist"
    (($(id -u) == 0)) || refuse "must run as root"
    [[ -x $nucleus/usr/bin/ggl-cli || -x $nucleus/usr/local/bin/ggl-cli ]] || refuse "$nucleus has no ggl-cli: Greengrass Lite is not installed there"
}

install_tools() {
    local tool package missing=()
    for tool in systemd-nspawn:systemd-container openssl:openssl python3:python3-minimal mosquitto:mosquitto mosquitto_sub:mosquitto-clients \
        nsenter:util-linux findmnt:util-linux ip:iproute2 pgrep:procps; do
        package=${tool#*:}
        command -v "${tool%:*}" >/dev/null || missing+=("$package")
    done
    ((${#missing[@]} > 0)) || return 0
    command -v apt-get >/dev/null || refuse "these are missing: ${missing[*]}"
    say "installing ${missing[*]}"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/dev/null ||
        refuse "these packages cannot be installed: ${missing[*]}"
    # Debian starts a broker after the installation.
    [[ " ${missing[*]} " != *" mosquitto "* ]] || systemctl disable --now mosquitto >/dev/null 2>&1
    return 0
}

# shellcheck source=tests/lite/container.sh
. "$root/tests/lite/container.sh"
# shellcheck source=tests/lite/component.sh
. "$root/tests/lite/component.sh"

# ------------------------------------------------------------------------------------------- checks

check_default() {
    local begun
    begun=$(date +%s)
    package
    deploy || return
    ! journal_since "$begun" | grep -E 'bad variable name|[Ss]yntax error|: not found|Broken pipe' >"$scratch/shell" ||
        { why="a shell complained: $(head -n 1 "$scratch/shell")"; return 1; }
    sleep 5
    [[ $(property "$UNIT" ActiveState) == active && $(property "$UNIT" NRestarts) == 0 ]] || {
        why="the component does not stay up: $(journal_since "$begun" | tail -n 1)"
        return 1
    }
    [[ $(inside readlink /usr/local/bin/ei-greengrass) == */"$version"/ei-greengrass ]] || { why="there is no link in /usr/local/bin"; return 1; }
}

# The recipe for the cloud with the manifests of all architectures, and with the digests that AWS adds to
# each artifact: Lite reads a limited number of objects. A local deployment does not look at the digests.
check_architectures() {
    package
    awk -v version="$version" '
        /^ComponentVersion:/ { $0 = "ComponentVersion: \"" version "\"" }
        { print }
        /^      - Uri:/ { print "        Digest: bm90IHVzZWQ="; print "        Algorithm: SHA-256"; print "        Unarchive: NONE" }
    ' "$root/recipes/$COMPONENT.yaml" >"$recipe"
    deploy
}

check_ball() {
    runs_ball
}

check_values() {
    local value
    needs_ball && runs_ball "ei_sm_secret_name=$HOSTILE" "cache_file_directory=/tmp/two  words" || return
    value=$(effective ei_sm_secret_name)
    [[ $value == "$HOSTILE" ]] || { why="arrived as: $value"; return 1; }
    value=$(effective cache_file_directory)
    [[ $value == "/tmp/two  words" ]] || { why="'/tmp/two  words' arrived as: $value"; return 1; }
    [[ ! -e $machine/injected ]] || { why="a value ran as a command"; return 1; }
}

check_update() {
    local before
    needs_ball || return
    before=$version
    runs_ball || return
    [[ $(inside readlink "/proc/$(main_pid)/exe") == */"$version"/ei-greengrass ]] || { why="the old binary runs"; return 1; }
    [[ ! -e $machine$STATE/packages/artifacts/$COMPONENT/$before ]] || { why="the old artifacts are left"; return 1; }
    [[ $(inside readlink /usr/local/bin/ei-greengrass) == */"$version"/ei-greengrass ]] || { why="the link names the old version"; return 1; }
}

# The filter needs no restart, the name of the device a new session; the process stays the same.
check_live() {
    local pid from
    needs_ball || return
    pid=$(main_pid)
    change_configuration '{"enable_threshold_limit":"yes","default_threshold":"0.01","threshold_criteria":"lt"}' || return
    wait_until 30 is_quiet || { why="the new filter does not hold inferences back"; return 1; }
    from=$(mark)
    change_configuration '{"enable_threshold_limit":"no"}' || return
    wait_for_message "$from" '/inference/output ' || return
    from=$(mark)
    change_configuration '{"device_name":"Renamed"}' || return
    wait_for_message "$from" '/command/output .*"reconfigured".*"device_name"' || return
    wait_for_message "$from" '/device/Renamed[^/]*/inference/output ' || return
    same_process "$pid" || return
    change_configuration '{"device_name":"MyEdgeImpulseDevice"}' || return
    wait_for_message "$(mark)" '/device/MyEdgeImpulseDevice[^/]*/inference/output ' && same_process "$pid"
}

# No inference arrives for 3 s.
is_quiet() {
    local from
    from=$(mark)
    sleep 3
    ! has_message "$from" '/inference/output '
}

# A value that cannot be used must not end what runs.
check_live_refused() {
    local pid from
    needs_ball || return
    pid=$(main_pid)
    change_configuration '{"launch":"something else"}' || return
    sleep 3
    from=$(mark)
    wait_for_message "$from" '/inference/output ' && same_process "$pid" || return
    change_configuration '{"launch":"runner"}'
}

# Lite tries three times, and goes back to no earlier version: the log must say what to do.
check_refused() {
    local begun
    needs_ball || return
    begun=$(date +%s)
    ! runs_ball iot_endpoint=ftp://broker || { why="the deployment succeeded"; return 1; }
    [[ $(deployment_results | tail -n 1) == FAILED ]] || return
    journal_since "$begun" | grep -F iot_endpoint | grep -i deploy >/dev/null || {
        why="the log does not tell what to do: $(journal_since "$begun" | grep ERROR | tail -n 1)"
        return 1
    }
    why=''
    runs_ball
}

# Another component receives what the component publishes to Greengrass's own topics, and sends a command.
check_local_topics() {
    local topic from command event
    needs_ball || return
    package "ei_local_model_file=builtin:ball" "gst_args=$BALL_SOURCE" "iot_endpoint=mqtt://127.0.0.1:$BROKER_PORT" \
        iotcore_backoff=1 sleep_time_sec=1 local_topics=yes
    permit_topics "$COMPONENT" "$recipe"
    deploy && publishes && deploy_reader || return
    topic=/edgeimpulse/device/$(device)
    event=$(call_as "$READER" SubscribeToTopic "{\"topic\":\"$topic/inference/output\"}" 1 | tail -n 1)
    sed -n 's/.*"binaryMessage":{"message":"\([^"]*\)".*/\1/p' <<<"$event" | base64 --decode 2>/dev/null | grep '"label":"ball"' >/dev/null || {
        why="no inference at the local topic: $event"
        return 1
    }
    from=$(mark)
    command=$(printf '{"cmd":"get_threshold_filter_criteria"}' | base64 --wrap 0)
    event=$(call_as "$READER" PublishToTopic "{\"topic\":\"$topic/command/input\",\"publishMessage\":{\"binaryMessage\":{\"message\":\"$command\"}}}") || {
        why="the command was refused: $event"
        return 1
    }
    wait_for_message "$from" '/command/output .*"criteria"'
}

# permit_topics COMPONENT RECIPE: adds the permission for local topics, as the documents say, to the recipe.
permit_topics() {
    awk -v component="$1" '
        { print }
        /^  DefaultConfiguration:/ {
            print "    accessControl:"
            print "      aws.greengrass.ipc.pubsub:"
            print "        " component ":pubsub:1:"
            print "          operations: [\"aws.greengrass#PublishToTopic\", \"aws.greengrass#SubscribeToTopic\"]"
            print "          resources: [\"/edgeimpulse/device/*\"]"
        }
    ' "$2" >"$2.new" && mv "$2.new" "$2"
}

# A component that does nothing: this script speaks in its name.
deploy_reader() {
    local reader=$machine/reader/recipes/$READER-1.0.0.yaml
    mkdir -p "$machine/reader/recipes" "$machine/reader/artifacts/$READER/1.0.0"
    cat >"$reader" <<YAML
RecipeFormatVersion: "2020-01-25"
ComponentName: $READER
ComponentVersion: "1.0.0"
ComponentDescription: Waits
ComponentPublisher: Tests
ComponentConfiguration:
  DefaultConfiguration:
Manifests:
  - Platform:
      os: linux
      runtime: "*"
    Lifecycle:
      run: exec sleep infinity
YAML
    permit_topics "$READER" "$reader"
    run_deployment "$DEPLOY_WAIT" --recipe-dir /reader/recipes --artifacts-dir /reader/artifacts --add-component "$READER=1.0.0"
}

check_ipc_daemon() {
    local pid from
    needs_ball || return
    pid=$(main_pid)
    inside systemctl kill --signal KILL ggl.core.ggipcd.service
    publishes && same_process "$pid" || return
    wait_until 30 inside systemctl is-active --quiet ggl.core.ggipcd.service
    # The component has lost its subscription and its token.
    sleep 5
    from=$(mark)
    change_configuration '{"device_name":"AfterIpc"}' || return
    wait_for_message "$from" '/device/AfterIpc[^/]*/inference/output ' 90 && same_process "$pid" || return
    change_configuration '{"device_name":"MyEdgeImpulseDevice"}'
}

# The cache needs credentials, which end after 20 s.
check_token_service() {
    local pid begun
    needs_ball && runs_ball enable_cache_to_s3=yes s3_bucket=ei-lite-test || return
    pid=$(main_pid)
    begun=$(date +%s)
    wait_until 30 has_vended "$begun" || { why="the component asked for no credentials"; return 1; }
    inside systemctl kill --signal KILL ggl.aws.greengrass.TokenExchangeService.service
    issue_credentials
    sleep 3
    begun=$(date +%s)
    wait_until 120 has_vended "$begun" || { why="no credentials from the restarted service within 120 s"; return 1; }
    publishes && same_process "$pid" || return
    inside systemctl kill --signal KILL ggl.core.ggipcd.service
    issue_credentials
    sleep 3
    begun=$(date +%s)
    wait_until 120 has_vended "$begun" || { why="no credentials within 120 s after the IPC daemon was killed: the token is unknown"; return 1; }
    same_process "$pid" || return
    change_configuration '{"enable_cache_to_s3":"no"}'
}

has_vended() {
    inside journalctl --no-pager --output cat --identifier tes-serverd --since "@$1" | grep 'Successfully vended' >/dev/null
}

check_killed() {
    local pid
    needs_ball || return
    # Lite counts three starts an hour.
    inside systemctl reset-failed
    pid=$(main_pid)
    inside kill -KILL "$pid"
    wait_until 10 has_new_process "$pid" || { why="it was not started again"; return 1; }
    publishes
}

has_new_process() {
    local pid
    pid=$(main_pid)
    [[ $pid != 0 && $pid != "$1" ]]
}

check_stop() {
    local times pid from
    needs_ball || return
    for times in 1 2 3 4; do
        pid=$(main_pid)
        from=$(mark)
        inside systemctl stop "$UNIT"
        [[ $(property "$UNIT" Result) == success ]] || { why="stop $times ended with $(property "$UNIT" Result)"; return 1; }
        wait_for_message "$from" '/command/output .*"stopped"' 10 || return
        inside systemctl reset-failed "$UNIT"
        inside systemctl start "$UNIT" || { why="start $times was refused"; return 1; }
        publishes || return
    done
}

# Messages that wait on disk when the user of the component changes arrive later.
check_user() {
    local from waiting
    needs_ball || return
    kill "$broker"
    sleep 8
    waiting=$(date +%s)
    write_nucleus_configuration "$other_user"
    inside systemctl restart ggl.core.ggconfigd.service ggl.core.ggdeploymentd.service
    package "ei_local_model_file=builtin:ball" "gst_args=$BALL_SOURCE" "iot_endpoint=mqtt://127.0.0.1:$BROKER_PORT"
    deploy || return
    [[ $(property "$UNIT" User) == "$other_user" ]] || { why="the unit runs as $(property "$UNIT" User)"; return 1; }
    from=$(mark)
    start_broker
    publishes || return
    [[ -z $(inside find "$STATE/work/$COMPONENT" ! -user "$other_user") ]] ||
        { why="files of the old user: $(inside find "$STATE/work/$COMPONENT" ! -user "$other_user" | head -n 3 | tr '\n' ' ')"; return 1; }
    wait_until 30 has_older_message "$from" "$waiting" || { why="what was spooled before the change did not arrive"; return 1; }
}

# has_older_message MARK TIME: an inference after MARK was made before TIME.
has_older_message() {
    tail -n "+$(($1 + 1))" "$scratch/messages" | sed -n 's/.*inference\/output .*"ts":\([0-9]*\)[0-9]\{3\}[,}].*/\1/p' |
        awk -v limit="$2" '$1 < limit { found = 1 } END { exit !found }'
}

# The machine starts without its network card: the name of the device must not change.
check_reboot() {
    local name
    needs_ball || return
    name=$(device)
    reboot_container && publishes || return
    [[ $(device) == "$name" ]] || { why="the device was $name and is $(device)"; return 1; }
}

has_ended() {
    ! kill -0 "$1" 2>/dev/null
}

# A package manager that hangs: Lite ends the step, so the step must end before.
check_install_limit() {
    local tools=$machine/usr/local/sbin
    chroot "$machine" sh -c 'command -v apt-get' >/dev/null || { echo "skipped: install_limit: ROOT has no apt-get"; return 0; }
    mkdir -p "$tools"
    printf '#!/bin/sh\nexec sleep 3600\n' >"$tools/apt-get"
    # shellcheck disable=SC2016 # a script
    printf '#!/bin/sh\ncase $* in *gstreamer1.0-libav*) echo not-installed; exit 1 ;; esac\nexec /usr/bin/dpkg-query "$@"\n' >"$tools/dpkg-query"
    chmod +x "$tools"/{apt-get,dpkg-query}
    package "ei_local_model_file=builtin:ball" "gst_args=$BALL_SOURCE" "iot_endpoint=mqtt://127.0.0.1:$BROKER_PORT" iotcore_backoff=1
    took=
    deploy $((INSTALL_LIMIT + 60)) && publishes
    local status=$?
    rm "$tools"/{apt-get,dpkg-query}
    [[ -z $took ]] || say "the deployment took $took s"
    return "$status"
}

check_removal() {
    needs_ball || return
    run_deployment "$DEPLOY_WAIT" --remove-component "$COMPONENT" || return
    wait_until 20 is_gone || { why="the unit is $(property "$UNIT" ActiveState)"; return 1; }
    wait_until 10 has_no_link || { why="the link $(inside readlink /usr/local/bin/ei-greengrass) is left"; return 1; }
}

is_gone() {
    [[ $(property "$UNIT" ActiveState) != active ]] && ! pgrep --ns "$leader" --nslist pid -x ei-greengrass >/dev/null
}

has_no_link() {
    ! inside test -L /usr/local/bin/ei-greengrass
}

# check NAME SENTENCE
check() {
    [[ $1 =~ ^($only)$ || -z $only ]] || return 0
    why=''
    if "check_$1"; then
        passed=$((passed + 1))
        printf 'ok: %s: %s\n' "$1" "$2"
    else
        failed=$((failed + 1))
        printf 'failed: %s: %s%s\n' "$1" "$2" "${why:+; $why}"
    fi
}

# --------------------------------------------------------------------------------------------- main

# A function, so that the shell has read the whole file before the first check.
main() {
    parse_arguments "$@"
    install_tools
    scratch=$(mktemp -d)
    trap clean_up EXIT
    trap 'exit 2' INT TERM
    touch "$scratch/messages"
    provide_machine
    configure_nucleus
    start_container
    add_card || say "no virtual network card can be made; the device's name has no suffix"
    say "$(inside journalctl --no-pager --output cat --identifier ggdeploymentd | sed -n 's/.*Nucleus version: /Greengrass Lite /p' | head -n 1), component user $core_user"

    check default "the default configuration is deployed and the component stays up"
    check architectures "the recipe for the cloud, with three architectures and digests, is deployed"
    check ball "the built-in model publishes inferences"
    check values "spaces, quotes, parentheses, semicolons and dollar signs arrive as they are"
    check update "a new version replaces the old one"
    check live "a configuration change is applied without a restart"
    check live_refused "a configuration that cannot be used leaves the running one"
    check refused "a configuration that cannot run fails its deployment, and the next deployment mends it"
    check local_topics "another component receives inferences and sends commands at local topics"
    check ipc_daemon "the IPC daemon may be killed"
    check token_service "new credentials come after the token exchange service and the IPC daemon were killed"
    check killed "the component may be killed"
    check stop "stop and start work four times, with reset-failed"
    check user "another posixUser takes over the work directory and the spool"
    check reboot "the component comes back after a reboot, under its name"
    check install_limit "a package manager that hangs does not fail the deployment"
    check removal "removal leaves no process and no link"
    say "$passed passed, $failed failed"
    ((failed == 0))
}

main "$@"
