# `agentspool install` and `uninstall` without the package: for the machine, and for one user.
# shellcheck shell=bash source=checks.sh
. /checks/checks.sh
dpkg-deb -x /package/old.deb /tmp/unpacked
cp /tmp/unpacked/usr/bin/agentspool /usr/local/bin/

# --- for the machine -----------------------------------------------------------------------------------

check '--print shows' holds 'ExecStart=/usr/local/bin/agentspool watch' agentspool install --print
check '--print changes nothing' test ! -e /etc/systemd/system/agentspool.service
useradd --create-home ada
ends_with() { # CODE COMMAND...
    local code=$1
    shift
    "$@" || [[ $? == "$code" ]]
}
check 'only root may install' ends_with 4 as ada agentspool install
agentspool install >/tmp/said 2>&1
check 'install ends with 0' equals 0 echo $?
check 'it prints who may submit' holds 'adduser NAME agentspool' cat /tmp/said
check 'the service runs' equals active systemctl is-active agentspool.service
check 'the timer is enabled' equals enabled systemctl is-enabled agentspool-sweep.timer
check 'the units are valid' equals '' systemd-analyze verify agentspool.service agentspool-sweep.service
gpasswd --add ada agentspool >/dev/null
recipe quick '' <<<'echo done'
check 'a user of the group submits and waits' equals done as ada agentspool submit --recipe quick --wait
check 'a second install succeeds' agentspool install
check 'uninstall' agentspool uninstall
check 'uninstall: the service is removed' fails systemctl cat agentspool.service
check 'uninstall: the spool is there' test -e "$spool/spool.json"
check 'a second uninstall is an error' ends_with 1 agentspool uninstall

# --- for one user --------------------------------------------------------------------------------------

uid=$(id -u ada)
systemctl start "user@$uid.service"
mine() {
    setpriv --reuid ada --regid ada --init-groups env -u AGENTSPOOL_DIR HOME=/home/ada \
        XDG_RUNTIME_DIR="/run/user/$uid" DBUS_SESSION_BUS_ADDRESS="unix:path=/run/user/$uid/bus" "$@"
}
mine agentspool install --user >/tmp/said 2>&1
check '--user ends with 0' equals 0 echo $?
check '--user prints what is missing' holds 'loginctl enable-linger' cat /tmp/said
check '--user: the service runs' equals active mine systemctl --user is-active agentspool.service
check '--user: the timer runs' equals active mine systemctl --user is-active agentspool-sweep.timer
loginctl enable-linger ada
lingers() { [[ -e /var/lib/systemd/linger/ada ]]; }
check '--user: lingering is enabled' wait_until lingers
check '--user: nothing is missing' holds '"missing":[]' mine agentspool --json install --user
home=/home/ada/.local/state/agentspool
mine mkdir -p $home/recipes/quick
printf 'command = ["./run.sh"]\n' | mine tee $home/recipes/quick/recipe.toml >/dev/null
printf '#!/bin/sh\ngrep -q agentspool-task@task_ /proc/self/cgroup && echo unit || echo pool\n' |
    mine tee $home/recipes/quick/run.sh >/dev/null
mine chmod 755 $home/recipes/quick/run.sh
check '--user: a task runs' equals pool mine agentspool submit --recipe quick --wait
mine agentspool config set launcher systemd-user >/dev/null
check '--user: a task runs as a unit' equals unit mine agentspool submit --recipe quick --wait
check '--user: uninstall' mine agentspool uninstall --user
check '--user: the service is removed' fails mine systemctl --user cat agentspool.service
finish
