#!/bin/sh
# What this recipe does. It runs in an empty folder of its own. The files beside this one are in
# "$AGENTSPOOL_RECIPE_DIR".
set -eu

# Input: JSON on stdin, as it was given with --input; {} where nothing was given.
input=$(cat)

# Progress: a percentage and a message, one line each time. `agentspool status` shows the last one.
echo "10 reading the input" >> "$AGENTSPOOL_PROGRESS_FILE"

# Log: what is printed to stderr. `agentspool logs` shows it.
echo "the input has ${#input} characters" >&2

echo "90 writing the result" >> "$AGENTSPOOL_PROGRESS_FILE"

# Result: what is printed to stdout, or what is written to "$AGENTSPOOL_RESULT_FILE". `agentspool result` shows it.
# The exit code says how it went: 0 is completed, any other code is failed.
printf 'You said: %s\n' "$input"
