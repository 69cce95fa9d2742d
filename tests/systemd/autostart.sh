# A watcher that a command starts inside a service. The watcher and its tasks do not end with that service.
# shellcheck shell=bash source=checks.sh
. /checks/checks.sh
dpkg-deb -x /package/old.deb /tmp/unpacked
cp /tmp/unpacked/usr/bin/agentspool /usr/local/bin/
unset AGENTSPOOL_DIR
useradd --create-home ada
useradd --create-home eve
mkdir -p /srv/gate && chmod 1777 /srv/gate

# spool_of USER: a spool of its own with a recipe that waits.
spool_of() {
    local home
    home=$(getent passwd "$1" | cut -d: -f6)
    mine=$home/spool
    as_mine "$1" agentspool init "$mine"
    printf '#!/bin/sh\ntouch ready\nuntil [ -e "/srv/gate/$AGENTSPOOL_TASK_ID" ]; do sleep 0.05; done\necho out\n' |
        as_mine "$1" tee "$mine/recipes/waits" >/dev/null
    as_mine "$1" chmod 755 "$mine/recipes/waits"
}
as_mine() { setpriv --reuid "$1" --regid "$1" --init-groups env HOME="$(getent passwd "$1" | cut -d: -f6)" "${@:2}"; }
has_started() { [[ -e $mine/tasks/$1/attempts/1/work/ready ]]; }
last_task() { ls "$mine/tasks" | tail -n 1; }
watcher() { sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' "$mine"/watchers/*.json | head -n 1; }

# survives_service WHAT USER COMMAND...: the command submits in a service of its own, which ends at once.
survives_service() {
    local what=$1 user=$2 task
    shift 2
    check "$what: submitted" "$@"
    task=$(last_task)
    check "$what: the task runs" wait_until has_started "$task"
    check "$what: the watcher is in a scope" holds '.scope' cat "/proc/$(watcher)/cgroup"
    open_gate "$task"
    check "$what: it completes" as_mine "$user" agentspool --spool "$mine" wait "$task"
    check "$what: its result is complete" equals out as_mine "$user" agentspool --spool "$mine" result "$task"
    kill "$(watcher)"
}
# A service that ends with its main process, as the service of a timer does.
service_of() { systemd-run --quiet --wait --collect --property=Type=oneshot "$@"; }

spool_of root
check 'root has a spool' test -e "$mine/spool.json"
survives_service 'a service of root' root service_of agentspool --spool "$mine" submit --recipe waits

spool_of ada
loginctl enable-linger ada
uid=$(id -u ada)
wait_until test -e "/run/user/$uid/systemd/private"
survives_service 'a service with User= and lingering' ada \
    service_of --uid=ada agentspool --spool "$mine" submit --recipe waits
as_ada() {
    setpriv --reuid ada --regid ada --init-groups env HOME=/home/ada XDG_RUNTIME_DIR="/run/user/$uid" \
        DBUS_SESSION_BUS_ADDRESS="unix:path=/run/user/$uid/bus" "$@"
}
survives_service 'a service of one user' ada as_ada systemd-run --user --quiet --wait --collect \
    --property=Type=oneshot agentspool --spool "$mine" submit --recipe waits

spool_of eve
said() { service_of --pipe --uid=eve agentspool --spool "$mine" submit --recipe waits; }
check 'without a systemd of the user there is a note' holds 'was started inside run-' said
finish
