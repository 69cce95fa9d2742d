# Before the machine goes down: two tasks run, which is the limit, and two more wait. The argument is the
# launcher.
# shellcheck shell=bash source=checks.sh
. /checks/checks.sh
must 'the package installs' install_package
must 'the service runs' wait_until equals active systemctl is-active agentspool.service
people >/dev/null 2>&1
waiting_recipes
recipe quick '' <<<'echo done'
owner agentspool config set max_concurrent 2 >/dev/null
owner agentspool config set launcher "$1" >/dev/null
systemctl restart agentspool.service
steady=$(submit steady) && again=$(submit again)
check 'the first task runs' wait_until is_ready "$steady"
check 'the second one runs' wait_until is_ready "$again"
first=$(submit quick) && second=$(submit quick)
check 'a third one waits' is "$first" pending
check 'a fourth one waits' is "$second" pending
printf '%s\n' "steady=$steady" "again=$again" "first=$first" "second=$second" >/srv/ids
sync
finish
