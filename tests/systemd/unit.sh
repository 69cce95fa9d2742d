# Each task as a unit of its own: limits that the kernel enforces, cancellation by `systemctl stop`, the
# journal, and what the unprivileged watcher may do. With the v1 controllers, which is what this way of
# booting can delegate: MemoryMax=, TasksMax= and CPUQuota= hold there.
# shellcheck shell=bash source=checks.sh
. /checks/checks.sh
must 'the package installs' install_package
must 'the service runs' until_true equals active systemctl is-active agentspool.service
people >/dev/null 2>&1
waiting_recipes
check 'the launcher is set' owner agentspool config set launcher systemd
unit_of() { echo "agentspool-task@$1.service"; }

# --- a unit for each task ------------------------------------------------------------------------------

recipe where '' <<<'cat /proc/self/cgroup'
task=$(submit where)
check 'a task runs as a unit' as ada agentspool wait "$task"
check 'in a cgroup of its own' holds "$(unit_of "$task")" as ada agentspool result "$task"
check 'the journal of the unit tells its transitions' until_true holds completed \
    journalctl --no-pager -u "$(unit_of "$task")"
check 'the unit is gone afterwards' until_true equals inactive property "$(unit_of "$task")" ActiveState

# --- limits --------------------------------------------------------------------------------------------

neighbour=$(submit steady)
check 'a neighbour runs' until_true is_ready "$neighbour"
before=$(main_pid)
recipe hungry 'memory_max = "64M"' <<<'exec tail /dev/zero'
check 'the limit is shown' holds 'MemoryMax=67108864' as ada agentspool recipe info hungry
task=$(submit hungry)
as ada agentspool wait "$task" >/dev/null 2>&1
check 'memory: the task failed' is "$task" failed
check 'memory: and is told why' equals resources kind_of "$task"
recipe offspring 'memory_max = "64M"' <<<'tail /dev/zero; exit 3'
task=$(submit offspring)
as ada agentspool wait "$task" >/dev/null 2>&1
check 'memory: also of a child' equals resources kind_of "$task"
recipe killed '' <<<'kill -KILL $$'
task=$(submit killed)
as ada agentspool wait "$task" >/dev/null 2>&1
check 'a plain KILL stays a signal' equals signal kind_of "$task"
recipe many 'tasks_max = 10' <<<'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; wait'
task=$(submit many)
as ada agentspool wait "$task" >/dev/null 2>&1
check 'processes: the limit holds' holds 'fork' as ada agentspool logs "$task"
recipe part 'cpu_quota = "20%"' <<'BODY'
cat "/sys/fs/cgroup/cpu$(awk -F: '$2 == "cpu" { print $3 }' /proc/self/cgroup)/cpu.cfs_quota_us"
BODY
task=$(submit part)
as ada agentspool wait "$task" >/dev/null 2>&1
check 'processor: the kernel has the limit' equals 20000 as ada agentspool result "$task"
check 'no limit is left behind' until_true equals '' find /run/systemd/system.control -name 'agentspool-task@*'
check 'the neighbour runs on' is "$neighbour" running
check 'the watcher is the same' equals "$before" main_pid

# --- restarting, cancelling, losing --------------------------------------------------------------------

check 'the watcher is restarted' systemctl restart agentspool.service
check 'restart: the neighbour runs on' is "$neighbour" running
check 'restart: the watcher knows of it' \
    until_true holds '1 running, 0 pending' property agentspool.service StatusText
let_go "$neighbour"
check 'restart: the neighbour ends well' as ada agentspool wait "$neighbour"

task=$(submit steady)
check 'stop: a task runs' until_true is_ready "$task"
check 'stop: the unit stops' systemctl stop "$(unit_of "$task")"
check 'stop: the task is cancelled' is "$task" cancelled

task=$(submit steady)
check 'cancel: a task runs' until_true is_ready "$task"
check 'cancel' as ada agentspool cancel "$task"
check 'cancel: the task is cancelled' is "$task" cancelled

task=$(submit again)
check 'lost: a task runs' until_true is_ready "$task"
kill -KILL "$(property "$(unit_of "$task")" MainPID)"
check 'lost: it is tried again' until_true is_ready "$task" 2
let_go "$task"
check 'lost: and ends well' as ada agentspool wait "$task"

# --- secrets -------------------------------------------------------------------------------------------

mkdir -p /etc/systemd/system/agentspool-task@.service.d /etc/agentspool
(umask 077 && echo hunter3 >/etc/agentspool/key)
printf '[Service]\nLoadCredential=key:/etc/agentspool/key\n' \
    >/etc/systemd/system/agentspool-task@.service.d/key.conf
systemctl daemon-reload
recipe credential '' <<<'cat "$CREDENTIALS_DIRECTORY/key"'
task=$(submit credential)
as ada agentspool wait "$task" >/dev/null 2>&1
check 'a credential reaches the task' equals hunter3 as ada agentspool result "$task"

# --- what the watcher's user may -----------------------------------------------------------------------

task=$(submit steady)
check 'polkit: a task runs' until_true is_ready "$task"
ask() { systemctl --no-ask-password "$@"; }
check 'polkit: no other unit' fails owner systemctl --no-ask-password restart agentspool-sweep.timer
check 'polkit: no other user' fails as ada systemctl --no-ask-password stop "$(unit_of "$task")"
check 'polkit: no unit of one'"'"'s own' fails as agentspool systemd-run --no-ask-password true
check 'polkit: its tasks' owner systemctl --no-ask-password stop "$(unit_of "$task")"
check 'doctor tries the rule' holds 'units of tasks may be started' owner agentspool doctor
rm /usr/share/polkit-1/rules.d/50-agentspool.rules
refused() { journalctl --no-pager -u agentspool.service | grep -q 'no unit could be started'; }
until_true sh -c 'systemctl restart polkit.service'
task=$(submit steady)
check 'without the rule the journal says so' until_true refused
check 'without the rule the task waits' is "$task" pending
check 'without the rule doctor says what to install' holds '50-agentspool.rules' owner agentspool doctor
owner agentspool config set launcher local >/dev/null
let_go "$task"
check 'and runs when the launcher is local again' as ada agentspool wait "$task"
finish
