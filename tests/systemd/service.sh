# The package's service: installed, used, restarted, upgraded, killed by its watchdog, swept and removed.
# shellcheck shell=bash source=checks.sh
. /checks/checks.sh

# --- installing ----------------------------------------------------------------------------------------

check 'the package installs' install_package
must 'the service runs' wait_until equals active systemctl is-active agentspool.service
check 'the service is enabled' equals enabled systemctl is-enabled agentspool.service
check 'the timer runs' equals active systemctl is-active agentspool-sweep.timer
check 'systemd saw it become ready' equals notify property agentspool.service Type
check 'its status has the counts' wait_until equals '0 running, 0 pending' property agentspool.service StatusText
check 'it runs as agentspool' equals agentspool stat -c %U "/proc/$(main_pid)"
for mode in '2750 agentspool agentspool .' '640 agentspool agentspool spool.json' \
    '3730 agentspool agentspool incoming' '2750 agentspool agentspool tasks' \
    '2750 agentspool agentspool open' '2750 agentspool agentspool recipes'; do
    check "modes: $mode" equals "${mode% *}" stat -c '%a %U %G' "$spool/${mode##* }"
done
check 'users are created' people
check 'recipes are added' waiting_recipes

# --- submitting ----------------------------------------------------------------------------------------

task=$(submit quick)
check 'a user of the group submits and waits' as ada agentspool wait "$task"
check 'a user of the group reads the result' equals done as ada agentspool result "$task"
check 'another user cannot submit' fails as eve agentspool submit --recipe quick
drop() { echo '{"recipe": "quick"}' | as "$1" tee "$spool/incoming/$2.json"; }
check 'a user of the group drops a file' drop ada report
check 'the drop is run' as ada agentspool wait report
check 'another user cannot drop a file' fails drop eve report-of-eve

# --- restart, upgrade, reload and watchdog, each during a running task ------------------------------------

# survives WHAT COMMAND...: a task that runs during the command keeps its process, its temporary file and its
# secret.
survives() {
    local what=$1 task child
    local before
    shift
    task=$(submit steady)
    check "$what: a task runs" wait_until is_ready "$task"
    child=$(child_of "$task")
    before=$(main_pid)
    check "$what: done" "$@"
    check "$what: there is another watcher" differs "$before" "$(main_pid)"
    check "$what: the service runs" wait_until equals active systemctl is-active agentspool.service
    check "$what: the task runs" is "$task" running
    check "$what: its process is the same" test -n "$child" -a -d "/proc/$child"
    check "$what: the watcher counts it" \
        wait_until holds '1 running, 0 pending' property agentspool.service StatusText
    open_gate "$task"
    check "$what: the task completes" as ada agentspool wait "$task"
    check "$what: temporary file and secret were there" \
        equals $'kept hunter2\nat the end hunter2' as ada agentspool result "$task"
}
survives restart systemctl restart agentspool.service
survives upgrade install_package new.deb
check 'upgrade: the new package is here' equals 0.1.0-2 dpkg-query -W -f '${Version}' agentspool

mkdir -p /etc/systemd/system/agentspool.service.d
printf '[Service]\nWatchdogSec=2\n' >/etc/systemd/system/agentspool.service.d/watchdog.conf
systemctl daemon-reload
systemctl restart agentspool.service
before=$(main_pid)
pings() { property agentspool.service WatchdogTimestampMonotonic; }
first=$(pings)
pinged() { [[ $(pings) != "$first" ]]; }
check 'the watcher pings its watchdog' wait_until pinged
restarted() { (($(property agentspool.service NRestarts) > 0)) && [[ $(main_pid) != "$before" ]]; }
wedge() { kill -STOP "$before" && wait_until restarted; }
survives 'watchdog' wedge
check 'watchdog: the journal has the timeout' holds 'Watchdog timeout' journalctl --no-pager -u agentspool.service
rm /etc/systemd/system/agentspool.service.d/watchdog.conf
systemctl daemon-reload && systemctl restart agentspool.service

check 'a setting is written' owner agentspool config set max_concurrent 3
before=$(main_pid)
check 'reload' systemctl reload agentspool.service
check 'reload: the settings are read' \
    wait_until holds 'settings read again' journalctl --no-pager -u agentspool.service
check 'reload: the service runs' wait_until equals active systemctl is-active agentspool.service
check 'reload: the watcher is the same' equals "$before" main_pid

# --- sweeping ------------------------------------------------------------------------------------------

# Only the timer is tested here, so the watcher's own sweeps are turned off.
owner agentspool config set sweep_every_sec 1000000 >/dev/null
owner agentspool config set cleanup_delay_sec 0 >/dev/null
systemctl restart agentspool.service
task=$(submit quick)
as ada agentspool wait "$task" >/dev/null
mkdir -p /etc/systemd/system/agentspool-sweep.timer.d
printf '[Timer]\nOnBootSec=\nOnUnitActiveSec=\nOnActiveSec=1s\nOnUnitInactiveSec=1s\nAccuracySec=100ms\n' \
    >/etc/systemd/system/agentspool-sweep.timer.d/soon.conf
systemctl daemon-reload
systemctl restart agentspool-sweep.timer
check 'the timer fires and sweeps' wait_until test ! -e "$spool/tasks/$task"
check 'the sweep succeeded' equals success property agentspool-sweep.service Result
systemctl stop agentspool-sweep.timer

# --- a cgroup for the processes of a runner -----------------------------------------------------------------

# The process that is left has no environment, no folder, no output and a session of its own: only the cgroup
# identifies it.
recipe strays '' <<'BODY'
(env -i setsid sh -c 'cd / && exec sleep 4711' >/dev/null 2>&1 &)
touch ready
sleep 4711
BODY
task=$(submit strays)
check 'cgroup: a task runs' wait_until is_ready "$task"
child=$(child_of "$task")
runner=$(sed -n '/"runner"/,/}/s/.*"pid": *\([0-9]*\).*/\1/p' "$spool/tasks/$task/attempts/1/run.json")
check 'cgroup: it is the runner'"'"'s own, below the service' \
    holds "agentspool.service/agentspool.$runner." cat "/proc/$child/cgroup"
strays() { pgrep -fx 'sleep 4711'; }
check 'cgroup: both are there' wait_until equals 2 sh -c 'pgrep -fxc "sleep 4711"'
kill -KILL "$runner"
check 'cgroup: the task is lost' wait_until is "$task" failed
check 'cgroup: no process of it is left' fails strays
task=$(submit strays)
check 'cgroup: the next one runs' wait_until is_ready "$task"
check 'cgroup: cancel' as ada agentspool cancel "$task"
check 'cgroup: no process of the next one is left' fails strays

# --- the checks of systemd-analyze ---------------------------------------------------------------------

units=(agentspool.service agentspool-sweep.service agentspool-sweep.timer "agentspool-task@task_x.service")
check 'systemd-analyze verify is silent' equals '' systemd-analyze verify "${units[@]}"
check 'systemd-analyze verify is silent on the user units' equals '' \
    env XDG_RUNTIME_DIR=/run systemd-analyze verify --user /usr/lib/systemd/user/agentspool{.service,-sweep.service,-sweep.timer}
exposure() { systemd-analyze security --offline=true --no-pager "$@" | sed -n 's/.*exposure level for //p'; }
check "the sweeper is exposed below 4: $(exposure agentspool-sweep.service)" \
    systemd-analyze security --offline=true --no-pager --threshold=39 agentspool-sweep.service
check "the watcher is exposed below 4: $(exposure agentspool.service)" \
    systemd-analyze security --offline=true --no-pager --threshold=39 agentspool.service

# --- removing ------------------------------------------------------------------------------------------

task=$(submit steady)
check 'remove: a task runs' wait_until is_ready "$task"
child=$(child_of "$task")
cp /usr/bin/agentspool /usr/local/bin/ # to read the spool after the package is removed
check 'remove' dpkg -r agentspool
check 'remove: the watcher is stopped' fails systemctl is-active agentspool.service
check 'remove: the task still runs' test -d "/proc/$child"
open_gate "$task"
check 'remove: the task completes' wait_until is "$task" completed
check 'purge keeps a used spool' holds 'is kept' dpkg --purge agentspool
check 'purge: the task is there' is "$task" completed
check 'purge: no unit is left' equals '' find /etc/systemd/system -name 'agentspool*.wants' -o -name 'agentspool*' -type l
check 'installing again' install_package
rm -rf "$spool"/tasks/* "$spool"/open/* "$spool"/names/* "$spool"/recipes/* "$spool"/sessions/* "$spool"/rejected/*
check 'purge of an unused spool' dpkg --purge agentspool
check 'purge: the spool is removed' test ! -e "$spool"
check 'purge: the user is removed' fails getent passwd agentspool
finish
