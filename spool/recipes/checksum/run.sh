#!/bin/sh
# checksum: SHA-256 of every regular file below a directory, and one digest over all of them.
#
# Input:    {"path": "/some/dir"}, an absolute path.
# Config:   {"pause_ms": 0}, the pause after each file (0 to 60000).
# Output:   one JSON object: path, files, bytes, sha256 (the digest of the list) and list, the name of the
#           file with the list in this attempt's work folder. `cd /some/dir && sha256sum -c LIST` verifies it.
# Progress: at most one line for each percent. The weight of a file is its bytes plus one.
# Exit:     2 for an input that cannot be used, 1 if something below the path could not be read.
#
# It needs a POSIX shell, sed, coreutils, and find and xargs with -print0 and -0. It is not a JSON parser: it
# takes the last "path": "…" of the input, also one in a nested object. It does not follow symbolic links and
# stays on one file system. It leaves out the folder of its own task, which changes while it runs.
#
# Invariant: a digest is printed only if every file that was found was also read. File names are never shell
# words: they are NUL-separated, and in the list they are one per line, as sha256sum escapes them.
set -eu
LC_ALL=C # bytes: names may be invalid in any locale, and the order must not depend on the locale
export LC_ALL
umask 077

list=SHA256SUMS
tmp=${TMPDIR:-.}
progress=${AGENTSPOOL_PROGRESS_FILE:-/dev/null}
own=${AGENTSPOOL_TASK_DIR:-$PWD}
newline='
'

fail() { # fail CODE MESSAGE
    printf 'checksum: %s\n' "$2" >&2
    exit "$1"
}

# Appends the character with this code to $decoded, as UTF-8.
append_code() {
    if [ "$1" -lt 128 ]; then
        octal=$(printf '\\0%03o' "$1")
    elif [ "$1" -lt 2048 ]; then
        octal=$(printf '\\0%03o' $((192 + $1 / 64)) $((128 + $1 % 64)))
    elif [ "$1" -lt 65536 ]; then
        octal=$(printf '\\0%03o' $((224 + $1 / 4096)) $((128 + $1 / 64 % 64)) $((128 + $1 % 64)))
    else
        octal=$(printf '\\0%03o' $((240 + $1 / 262144)) $((128 + $1 / 4096 % 64)) \
            $((128 + $1 / 64 % 64)) $((128 + $1 % 64)))
    fi
    bytes=$(printf '%b.' "$octal") # the dot protects a line break at the end
    decoded=$decoded${bytes%.}
}

# Sets $decoded to the text of a JSON string without its quotes. Fails for an invalid escape.
decode() {
    rest=$1
    decoded=
    while :; do
        case $rest in
        *\\*) ;;
        *)
            decoded=$decoded$rest
            return 0
            ;;
        esac
        decoded=$decoded${rest%%\\*}
        rest=${rest#*\\}
        case $rest in
        [\"\\/]*) decoded=$decoded${rest%"${rest#?}"} ;;
        n*) decoded=$decoded$newline ;;
        t*) append_code 9 ;;
        r*) append_code 13 ;;
        b*) append_code 8 ;;
        f*) append_code 12 ;;
        u[0-9A-Fa-f][0-9A-Fa-f][0-9A-Fa-f][0-9A-Fa-f]*)
            hex=${rest#u}
            code=$((0x${hex%"${hex#????}"}))
            rest=${rest#????}
            if [ "$code" -ge 55296 ] && [ "$code" -lt 56320 ]; then # the first half of a pair
                case $rest in
                ?\\u[Dd][C-Fc-f][0-9A-Fa-f][0-9A-Fa-f]*) ;;
                *) return 1 ;;
                esac
                hex=${rest#???}
                code=$((65536 + (code - 55296) * 1024 + 0x${hex%"${hex#????}"} - 56320))
                rest=${rest#??????}
            elif [ "$code" -eq 0 ] || { [ "$code" -ge 56320 ] && [ "$code" -lt 57344 ]; }; then
                return 1
            fi
            append_code "$code"
            ;;
        *) return 1 ;;
        esac
        rest=${rest#?}
    done
}

# --- the input ---------------------------------------------------------------------------------------

# A raw line break is only white space between two tokens: inside a JSON string it is always escaped.
raw=$({ tr '\n\r\t' '   '; echo; } | sed -n \
    's/.*[{,[:space:]]"path"[[:space:]]*:[[:space:]]*"\([^"\\]*\(\\.[^"\\]*\)*\)".*/\1/p')
[ -n "$raw" ] || fail 2 'the input needs a directory: {"path": "/some/dir"}'
# Messages and the output show the path as in the request, where it is JSON and always one line.
decode "$raw" || fail 2 "\"$raw\": not a path (it has an invalid escape)"
path=$decoded
case $path in
/*) ;;
*) fail 2 "\"$raw\": the path must be absolute" ;;
esac
[ -e "$path" ] || fail 2 "\"$raw\": no such directory"
[ -d "$path" ] || fail 2 "\"$raw\": not a directory"
if ! [ -r "$path" ] || ! [ -x "$path" ]; then
    fail 2 "\"$raw\": permission denied"
fi

pause=$(printf '%s\n' "${AGENTSPOOL_CONFIG:-}" | tr '\n\r\t' '   ' | sed -n \
    's/.*[{,[:space:]]"pause_ms"[[:space:]]*:[[:space:]]*\([^],}[:space:]]*\).*/\1/p')
case ${pause:=0} in
*[!0-9]* | ??????*) fail 2 "config: pause_ms must be a whole number from 0 to 60000" ;;
esac
[ "$pause" -le 60000 ] || fail 2 "config: pause_ms must be a whole number from 0 to 60000"
pause=$(printf '%d.%03d' $((pause / 1000)) $((pause % 1000)))

# --- the files ---------------------------------------------------------------------------------------

mkdir -p "$tmp"
incomplete="part of \"$raw\" could not be read, so there is no digest"
printf '0 searching for files\n' >>"$progress"
(cd "$path" && find . -xdev -samefile "$own" -prune -o -type f -print0) >"$tmp/found" || fail 1 "$incomplete"
sort -z "$tmp/found" >"$tmp/files"
(cd "$path" && xargs -0 -r stat -c %s --) <"$tmp/files" >"$tmp/sizes" || fail 1 "$incomplete"

files=0
bytes=0
while read -r size; do
    files=$((files + 1))
    bytes=$((bytes + size))
done <"$tmp/sizes"

# --- the work ----------------------------------------------------------------------------------------

hash_all() {
    cd "$path"
    if [ "$pause" = 0.000 ]; then
        xargs -0 -r sha256sum --
    else
        # shellcheck disable=SC2016 # the inner shell expands these
        xargs -0 -r -n 1 sh -c 'sha256sum -- "$1" && sleep "$0"' "$pause"
    fi
}

# sha256sum prints a line after each file, so counting the lines gives the progress. The sizes are in the same
# order. 100 is for the end.
rm -f "$tmp/failed"
{ hash_all <"$tmp/files" || : >"$tmp/failed"; } | {
    count=0
    done=0
    shown=0
    while IFS= read -r line; do
        printf '%s\n' "$line"
        read -r size <&3 || size=0
        count=$((count + 1))
        done=$((done + size + 1))
        percent=$((done * 100 / (bytes + files)))
        if [ "$percent" -gt "$shown" ] && [ "$percent" -lt 100 ]; then
            shown=$percent
            printf '%d hashed %d of %d files\n' "$percent" "$count" "$files" >>"$progress"
        fi
    done
} 3<"$tmp/sizes" >"$list"
[ ! -e "$tmp/failed" ] || fail 1 "$incomplete"

digest=$(sha256sum <"$list")
rm -f "$tmp/found" "$tmp/files" "$tmp/sizes"
printf '100 hashed %d files\n' "$files" >>"$progress"
printf '{"path": "%s", "files": %d, "bytes": %d, "sha256": "%s", "list": "%s"}\n' \
    "$raw" "$files" "$bytes" "${digest%% *}" "$list"
