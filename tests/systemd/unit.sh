# Each task as a unit of its own: limits that the kernel enforces, cancellation by `systemctl stop`, the
# journal, and what the unprivileged watcher may do. This way of booting can delegate only the v1
# controllers; MemoryMax=, TasksMax= and CPUQuota= are enforced with them.
# shellcheck shell=bash source=checks.sh
. /checks/checks.sh
must 'the package installs' install_package
must 'the service runs' wait_until equals active systemctl is-active agentspool.service
people >/dev/null 2>&1
waiting_recipes
check 'the launcher is set' owner agentspool config set launcher systemd
unit_of() { echo "agentspool-task@$1.service"; }

# --- a unit for each task ------------------------------------------------------------------------------

recipe where '' <<<'cat /proc/self/cgroup'
task=$(submit where)
check 'a task runs as a unit' as ada agentspool wait "$task"
check 'in a cgroup of its own' holds "$(unit_of "$task")" as ada agentspool result "$task"
check 'the journal of the unit has its transitions' wait_until holds completed \
    journalctl --no-pager -u "$(unit_of "$task")"
check 'the unit is inactive afterwards' wait_until equals inactive property "$(unit_of "$task")" ActiveState

# --- limits --------------------------------------------------------------------------------------------

neighbour=$(submit steady)
check 'a neighbour runs' wait_until is_ready "$neighbour"
before=$(main_pid)
recipe hungry 'memory_max = "64M"' <<<'exec tail /dev/zero'
check 'the limit is shown' holds 'MemoryMax=67108864' as ada agentspool recipe info hungry
task=$(submit hungry)
as ada agentspool wait "$task" >/dev/null 2>&1
check 'memory: the task failed' is "$task" failed
check 'memory: the kind of its error is resources' equals resources kind_of "$task"
recipe offspring 'memory_max = "64M"' <<<'tail /dev/zero; exit 3'
task=$(submit offspring)
as ada agentspool wait "$task" >/dev/null 2>&1
check 'memory: the same for a child' equals resources kind_of "$task"
recipe killed '' <<<'kill -KILL $$'
task=$(submit killed)
as ada agentspool wait "$task" >/dev/null 2>&1
check 'a plain KILL is reported as a signal' equals signal kind_of "$task"
recipe many 'tasks_max = 10' <<<'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; wait'
task=$(submit many)
as ada agentspool wait "$task" >/dev/null 2>&1
check 'processes: the limit is enforced' holds 'fork' as ada agentspool logs "$task"
recipe part 'cpu_quota = "20%"' <<'BODY'
cat "/sys/fs/cgroup/cpu$(awk -F: '$2 == "cpu" { print $3 }' /proc/self/cgroup)/cpu.cfs_quota_us"
BODY
task=$(submit part)
as ada agentspool wait "$task" >/dev/null 2>&1
check 'processor: the kernel has the limit' equals 20000 as ada agentspool result "$task"
check 'no limit is left' wait_until equals '' find /run/systemd/system.control -name 'agentspool-task@*'
check 'the neighbour still runs' is "$neighbour" running
check 'the watcher is the same' equals "$before" main_pid

# --- restarting, cancelling, losing --------------------------------------------------------------------

check 'the watcher is restarted' systemctl restart agentspool.service
check 'restart: the neighbour still runs' is "$neighbour" running
check 'restart: the watcher counts it' \
    wait_until holds '1 running, 0 pending' property agentspool.service StatusText
open_gate "$neighbour"
check 'restart: the neighbour completes' as ada agentspool wait "$neighbour"

task=$(submit steady)
check 'stop: a task runs' wait_until is_ready "$task"
check 'stop: the unit stops' systemctl stop "$(unit_of "$task")"
check 'stop: the task is cancelled' is "$task" cancelled

task=$(submit steady)
check 'cancel: a task runs' wait_until is_ready "$task"
check 'cancel' as ada agentspool cancel "$task"
check 'cancel: the task is cancelled' is "$task" cancelled

task=$(submit again)
check 'lost: a task runs' wait_until is_ready "$task"
kill -KILL "$(property "$(unit_of "$task")" MainPID)"
check 'lost: it is tried again' wait_until is_ready "$task" 2
open_gate "$task"
check 'lost: the task completes' as ada agentspool wait "$task"

# --- secrets -------------------------------------------------------------------------------------------

mkdir -p /etc/systemd/system/agentspool-task@.service.d /etc/agentspool
(umask 077 && echo hunter3 >/etc/agentspool/key)
printf '[Service]\nLoadCredential=key:/etc/agentspool/key\n' \
    >/etc/systemd/system/agentspool-task@.service.d/key.conf
systemctl daemon-reload
recipe credential '' <<<'cat "$CREDENTIALS_DIRECTORY/key"'
task=$(submit credential)
as ada agentspool wait "$task" >/dev/null 2>&1
check 'a credential is passed to the task' equals hunter3 as ada agentspool result "$task"

# --- what the watcher's user may do --------------------------------------------------------------------

task=$(submit steady)
check 'polkit: a task runs' wait_until is_ready "$task"
ask() { systemctl --no-ask-password "$@"; }
check 'polkit: the watcher may not restart another unit' fails owner systemctl --no-ask-password restart agentspool-sweep.timer
check 'polkit: another user may not stop the task' fails as ada systemctl --no-ask-password stop "$(unit_of "$task")"
check 'polkit: the watcher may not start a new kind of unit' fails as agentspool systemd-run --no-ask-password true
check 'polkit: the watcher may stop the task' owner systemctl --no-ask-password stop "$(unit_of "$task")"
check 'doctor checks the rule' holds 'units of tasks may be started' owner agentspool doctor
rm /usr/share/polkit-1/rules.d/50-agentspool.rules
refused() { journalctl --no-pager -u agentspool.service | grep -q 'no unit could be started'; }
wait_until sh -c 'systemctl restart polkit.service'
task=$(submit steady)
check 'without the rule the journal has the error' wait_until refused
check 'without the rule the task waits' is "$task" pending
check 'without the rule doctor names the file to install' holds '50-agentspool.rules' owner agentspool doctor
owner agentspool config set launcher local >/dev/null
open_gate "$task"
check 'the task runs when the launcher is local again' as ada agentspool wait "$task"
finish
