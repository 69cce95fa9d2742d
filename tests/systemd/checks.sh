# Shared by the files of checks: one line for each check, waiting for facts, and recipes that wait for a file.
#
# Sourced inside the booted system. Invariant: `check` prints exactly one line, `ok NAME` or `FAILED NAME: …`,
# and every wait has a limit.
# shellcheck shell=bash
set -uo pipefail

spool=/var/spool/agentspool
export AGENTSPOOL_DIR=$spool
failures=0

# check NAME COMMAND...: passes if the command succeeds.
check() {
    local name=$1 said
    shift
    if said=$("$@" 2>&1); then
        echo "ok $name"
    else
        echo "FAILED $name: $* printed: $(tail -n 3 <<<"$said" | tr '\n' ' ')"
        failures=$((failures + 1))
    fi
}

# must NAME COMMAND...: a check that the rest needs. If it fails, the file ends here.
must() {
    local before=$failures
    check "$@"
    ((failures == before)) || finish
}

# wait_until COMMAND...: waits until the command succeeds, at most 30 s.
wait_until() {
    local tries
    for ((tries = 0; tries < 300; tries++)); do
        ! "$@" >/dev/null 2>&1 || return 0
        sleep 0.1
    done
    echo "still fails after 30 s: $*"
    "$@"
}

# equals WANTED COMMAND...: the command prints exactly this.
equals() {
    local wanted=$1 got
    shift
    got=$("$@")
    [[ $got == "$wanted" ]] || { echo "expected '$wanted', got '$got'" && return 1; }
}

# holds WANTED COMMAND...: the output of the command contains this.
holds() {
    local wanted=$1 got
    shift
    got=$("$@" 2>&1)
    [[ $got == *"$wanted"* ]] || { echo "expected '$wanted' in '$got'" && return 1; }
}

fails() { ! "$@"; }
differs() { [[ $1 != "$2" && -n $2 ]] || { echo "both are '$1'" && return 1; }; }

as() { setpriv --reuid "$1" --regid "$1" --init-groups env HOME="/home/$1" "${@:2}"; }
owner() { as agentspool "$@"; }
property() { systemctl show --property="$2" --value "$1"; }
main_pid() { property agentspool.service MainPID; }
submit() { as ada agentspool --quiet submit --recipe "$@"; }
field() { agentspool --json status "$1" | sed -n "s/.*\"$2\":\"\\([^\"]*\\)\".*/\\1/p"; }
status_of() { field "$1" status; }
kind_of() { agentspool --json status "$1" | sed -n 's/.*"kind":"\([a-z]*\)".*/\1/p'; }
attempt_of() { agentspool --json status "$1" | sed -n 's/.*"attempt":\([0-9]*\).*/\1/p'; }
child_of() { sed -n '/"child"/,/}/s/.*"pid": *\([0-9]*\).*/\1/p' "$spool/tasks/$1/attempts/1/run.json"; }
is_ready() { [[ -e $spool/tasks/$1/attempts/${2:-1}/work/ready ]]; }
open_gate() { touch "/srv/gate/$1"; }
is() { equals "$2" status_of "$1"; }

# recipe NAME MANIFEST-LINES: body on stdin. Created for the owner, as an administrator would do it.
recipe() {
    local folder=$spool/recipes/$1
    mkdir -p "$folder"
    printf 'command = ["./run.sh"]\n%s\n' "$2" >"$folder/recipe.toml"
    { printf '#!/bin/sh\n' && cat; } >"$folder/run.sh"
    chmod 755 "$folder/run.sh"
    chown -R agentspool:agentspool "$folder"
}

# Recipes that create `ready` and run until their gate is open, with a secret and a temporary file.
waiting_recipes() {
    mkdir -p /srv/gate
    local name on_lost
    for name in steady again; do
        on_lost=fail
        [[ $name == steady ]] || on_lost=requeue
        recipe "$name" "env_file = \"secret.env\"
on_lost = \"$on_lost\"" <<'BODY'
echo "kept $TOKEN" >"$TMPDIR/kept"
touch ready
until [ -e "/srv/gate/$AGENTSPOOL_TASK_ID" ] || [ -e /srv/gate/all ]; do sleep 0.05; done
cat "$TMPDIR/kept" && echo "at the end $TOKEN"
BODY
        echo 'TOKEN=hunter2' >"$spool/recipes/$name/secret.env"
        chmod 600 "$spool/recipes/$name/secret.env"
        chown agentspool: "$spool/recipes/$name/secret.env"
    done
    recipe quick '' <<<'echo done'
}

install_package() {
    # Debian's images for containers forbid packages to start services. A server does not have this file.
    rm -f /usr/sbin/policy-rc.d
    dpkg -i "/package/${1:-old.deb}"
}

people() {
    useradd --create-home ada && gpasswd --add ada agentspool && useradd --create-home eve
}

finish() {
    if ((failures)); then
        journalctl --no-pager --output=short-precise -u 'agentspool*' | tail -n 60 | sed 's/^/    /'
    fi
    exit $((failures > 0))
}
