# After the machine went down under the tasks of before.sh and came up again.
# shellcheck shell=bash source=checks.sh
. /checks/checks.sh
. /srv/ids
check 'the service runs by itself' until_true equals active systemctl is-active agentspool.service
check 'the timer runs by itself' equals active systemctl is-active agentspool-sweep.timer
check 'a pending task runs' as ada agentspool wait "$first"
check 'another pending task runs' as ada agentspool wait "$second"
check 'the running task is lost' until_true equals lost kind_of "$steady"
check 'nothing is cancelled by it' is "$steady" failed
check 'the one that asks for it is tried again' until_true is_ready "$again" 2
let_go "$again"
check 'and ends well' as ada agentspool wait "$again"
check 'at its second attempt' equals 2 attempt_of "$again"
finish
