# shellcheck shell=bash disable=SC2034,SC2119,SC2120,SC2153,SC2154 # variables and calls of lite.sh
# The component on the nucleus of lite.sh: packages, deployments, calls over IPC, and what is known of it.

property() {
    inside systemctl show --property "$2" --value "$1"
}

main_pid() {
    property "$UNIT" MainPID
}

# What the component wrote to the journal since a time as `date +%s` prints it.
journal_since() {
    inside journalctl --no-pager --output cat --identifier "$COMPONENT" --since "@$1"
}

# Prints the topic name of the device in the last inference.
device() {
    grep -o '^/edgeimpulse/device/[^/]*/inference/output' "$scratch/messages" | tail -n 1 | cut -d / -f 4
}

# package [KEY=VALUE]...: lays out the next version of the component with these values in its default
# configuration, in a directory that the container sees. Sets $version and $recipe.
package() {
    local setting settings=()
    version=$((${version%%.*} + 1)).0.0
    for setting in "$@"; do
        settings+=(--set "$setting")
    done
    "$root/artifacts/package.sh" --local "$machine/package" "$version" ${settings[@]+"${settings[@]}"} \
        ${binary:+--binary "$(uname -m)=$binary"} >"$scratch/package.log" 2>&1 ||
        refuse "package.sh: $(tail -n 1 "$scratch/package.log")"
    recipe=$machine/package/recipes/$COMPONENT-$version.yaml
    # What was built once is used for the other versions too.
    [[ -n $binary ]] || {
        binary=$scratch/ei-greengrass
        cp "$machine/package/artifacts/$COMPONENT/$version/ei-greengrass" "$binary"
    }
}

# Hands the package to the nucleus and waits for the result of the deployment. Sets $took.
deploy() {
    run_deployment "${1:-$DEPLOY_WAIT}" --recipe-dir /package/recipes --artifacts-dir /package/artifacts --add-component "$COMPONENT=$version"
}

run_deployment() {
    local before limit=$1 begun=$SECONDS
    shift
    before=$(deployment_results | wc -l)
    inside ggl-cli deploy "$@" >"$scratch/ggl-cli.log" 2>&1 || { why="ggl-cli: $(tail -n 1 "$scratch/ggl-cli.log")"; return 1; }
    wait_until "$limit" has_deployment_ended "$before" || { why="the deployment did not end within $limit s"; return 1; }
    took=$((SECONDS - begun))
    [[ $(deployment_results | tail -n 1) == SUCCEEDED ]] || {
        why="the deployment ended as $(deployment_results | tail -n 1): $(nucleus_errors)"
        return 1
    }
}

# The words SUCCEEDED and FAILED of all deployments, from the nucleus's log.
deployment_results() {
    inside journalctl --no-pager --output cat --identifier ggdeploymentd | sed -n 's/.*reporting job as \([A-Z]*\).*/\1/p'
}

has_deployment_ended() {
    (($(deployment_results | wc -l) > $1))
}

nucleus_errors() {
    inside journalctl --no-pager --output cat --identifier ggdeploymentd --lines 60 | grep '^E' | tail -n 3 | tr '\n' ' '
}

runs_ball() {
    package "ei_local_model_file=builtin:ball" "gst_args=$BALL_SOURCE" "iot_endpoint=mqtt://127.0.0.1:$BROKER_PORT" \
        iotcore_backoff=1 metrics_sleeptime_ms=5000 sleep_time_sec=1 "$@"
    deploy && publishes
}

# call_as COMPONENT OPERATION REQUEST [EVENTS]: a call to the nucleus from within the component's unit, which
# is how Lite tells who asks. Prints the answer and the events.
call_as() {
    local component=$1 group
    shift
    group=/proc/$leader/root/sys/fs/cgroup$(property "ggl.$component.service" ControlGroup)/cgroup.procs
    # shellcheck disable=SC2016 # a script
    nsenter --target "$leader" --pid -- sh -c 'echo 0 >"$1" && shift && exec "$@"' sh "$group" \
        python3 "$root/tests/lite/ipc.py" "/proc/$leader/root$STATE/gg-ipc.socket" "$component" "$@" 2>&1
}

# A configuration change as the nucleus stores it, without a deployment.
change_configuration() {
    call_as "$COMPONENT" UpdateConfiguration "{\"keyPath\":[\"Parameters\"],\"timestamp\":$(date +%s.%3N),\"valueToMerge\":$1}" \
        >"$scratch/ipc.log" || {
        why="the nucleus refused the change: $(tail -n 1 "$scratch/ipc.log")"
        return 1
    }
}

# The effective value of a key, as the documents tell a person to ask for it.
effective() {
    inside ei-greengrass config get "$1" --deployed 2>&1
}

# Starts the built-in model, unless an earlier check left it running.
needs_ball() {
    [[ $(property "$UNIT" ActiveState) == active ]] && has_message 0 '/inference/output ' && return
    runs_ball
}

# same_process PID: the component was not started again.
same_process() {
    [[ $(main_pid) == "$1" ]] || {
        why="the process was started again"
        return 1
    }
}
