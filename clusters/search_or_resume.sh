#!/bin/sh
# Searches, or goes on where an earlier driver was, for schedulers that start a command again:
#
#   search-or-resume RUN_DIRECTORY FILE [options of gsfl-tune search]
set -eu
run=$1
shift
if [ -e "$run/run.json" ]; then
  set -- "$@" --resume
fi
exec gsfl-tune search "$@" --run-dir "$run"
