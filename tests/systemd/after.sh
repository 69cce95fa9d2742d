# After a reboot during the tasks of before.sh.
# shellcheck shell=bash source=checks.sh
. /checks/checks.sh
. /srv/ids
check 'the service runs by itself' wait_until equals active systemctl is-active agentspool.service
check 'the timer runs by itself' equals active systemctl is-active agentspool-sweep.timer
check 'a pending task runs' as ada agentspool wait "$first"
check 'another pending task runs' as ada agentspool wait "$second"
check 'the running task is lost' wait_until equals lost kind_of "$steady"
check 'the running task is not cancelled' is "$steady" failed
check 'the task with on_lost = requeue is tried again' wait_until is_ready "$again" 2
open_gate "$again"
check 'the task that is tried again completes' as ada agentspool wait "$again"
check 'it completes at its second attempt' equals 2 attempt_of "$again"
finish
