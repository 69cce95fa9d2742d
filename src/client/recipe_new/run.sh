#!/bin/sh
# What this recipe does. It runs in an empty folder of its own. The files next to this one are in
# "$AGENTSPOOL_RECIPE_DIR".
set -eu

# Input: JSON on stdin, as it was given with --input; {} if nothing was given.
input=$(cat)

# Progress: a percentage and a message, one line each time. `agentspool status` shows the last one.
echo "10 reading the input" >> "$AGENTSPOOL_PROGRESS_FILE"

# Log: text printed to stderr. `agentspool logs` shows it.
echo "the input has ${#input} characters" >&2

echo "90 writing the result" >> "$AGENTSPOOL_PROGRESS_FILE"

# Result: the text printed to stdout, or the text written to "$AGENTSPOOL_RESULT_FILE". `agentspool result` shows it.
# Exit code: 0 means completed. Any other code means failed.
printf 'You said: %s\n' "$input"
