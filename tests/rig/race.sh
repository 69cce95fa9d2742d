#!/bin/sh
# The recipe of the tasks of race.rs: it records its start and its end in the ledger, and every violation that
# it sees while it runs. It has locks of its own and knows nothing of the program's locks.
root='@ROOT@'
id=$AGENTSPOOL_TASK_ID
record() { echo "$* $id $AGENTSPOOL_ATTEMPT" >>"$root/ledger"; }

# Two attempts of one task: a process that a lost attempt left behind still holds this lock.
exec 9>>"$root/own/$id"
flock -n 9 || { record overlap; exit 9; }

# Two tasks of one session.
if [ "${1:-}" = talk ]; then
    exec 6>>"$root/own/$AGENTSPOOL_SESSION_ID"
    flock -n 6 || { record overlap; exit 9; }
fi

# One task too many at once. $1: the kind of slot, $2: the number of slots, $3: the file that records the
# holder. The holding process has the slot, and its children do not, so the slot is free once the kernel has
# ended the process. When a runner is killed, the kernel releases its slot an instant before it ends its
# recipe: a holder whose runner is no longer its parent is about to exit and does not count.
take() {
    while :; do
        k=0
        while [ "$k" -lt "$2" ]; do
            eval "exec $3>>'$root/places/$1.$k'"
            if flock -n "$3"; then
                echo "$$ $PPID" >"$root/places/$1.$k.holder"
                return
            fi
            k=$((k + 1))
        done
        k=0
        dying=
        while [ "$k" -lt "$2" ]; do
            pid=0 runner=0
            read -r pid runner <"$root/places/$1.$k.holder" || dying=1
            parent=$(sed -n 's/^PPid:[^0-9]*//p' "/proc/$pid/status" 2>/dev/null)
            [ "$parent" = "$runner" ] || dying=1
            k=$((k + 1))
        done
        [ -n "$dying" ] || { record "too-many-$1"; return; }
    done
}
take all @LIMIT@ 8
[ "${1:-}" != narrow ] || take narrow @NARROW@ 7

record "start ${AGENTSPOOL_SESSION_ID}"
# It outlives its parent, like the helper of a careless recipe.
[ "${1:-}" != again ] || setsid sleep 20 6>&- 7>&- 8>&- &
sleep 0.0$((AGENTSPOOL_ATTEMPT + 2)) 7>&- 8>&-
record end
