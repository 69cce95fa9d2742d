#!/bin/sh
# What the tasks of race.rs run: it tells the ledger of its begin and its end, and of everything that
# should not be while it runs. It keeps locks of its own and knows nothing of ours.
root='@ROOT@'
id=$AGENTSPOOL_TASK_ID
tell() { echo "$* $id $AGENTSPOOL_ATTEMPT" >>"$root/ledger"; }

# Two attempts of one task: whatever a lost attempt left behind still holds this.
exec 9>>"$root/own/$id"
flock -n 9 || { tell overlap; exit 9; }

# Two tasks of one session.
if [ "${1:-}" = talk ]; then
    exec 6>>"$root/own/$AGENTSPOOL_SESSION_ID"
    flock -n 6 || { tell overlap; exit 9; }
fi

# One too many at once. $1: the kind of place, $2: how many there are, $3: the file that holds it.
# Its process holds the place and nobody it starts, so it is free once the kernel has ended it. When
# a runner is killed the kernel gives up its slot an instant before it ends its recipe: a holder whose
# runner is no longer its parent is just dying, and counts for nothing.
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
        [ -n "$dying" ] || { tell "crowd-of-$1"; return; }
    done
}
take all @LIMIT@ 8
[ "${1:-}" != narrow ] || take narrow @NARROW@ 7

tell "begin ${AGENTSPOOL_SESSION_ID}"
# It outlives its parent, as a careless recipe's helper does.
[ "${1:-}" != again ] || setsid sleep 20 6>&- 7>&- 8>&- &
sleep 0.0$((AGENTSPOOL_ATTEMPT + 2)) 7>&- 8>&-
tell end
