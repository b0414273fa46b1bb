#!/usr/bin/env bash
# Runs a command under a heading and says how long it took: timed.sh HEADING COMMAND...
set -uo pipefail
heading=$1
shift
printf '\n\033[1m==> %s\033[0m\n' "$heading"
start=$(date +%s)
"$@"
status=$?
took=$(($(date +%s) - start))
if [ "$status" = 0 ]; then
  printf '\033[32m<== %s: ok after %ss\033[0m\n' "$heading" "$took"
else
  printf '\033[31m<== %s: FAILED (%s) after %ss\033[0m\n' "$heading" "$status" "$took"
fi
exit "$status"
