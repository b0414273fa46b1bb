#!/usr/bin/env bash
# Runs after gotestsum, which tells it how many tests were skipped. Where FAIRWAY_NO_SKIP is set, as in CI, everything is
# there that a test may need, and one that does not run has found something wrong.
set -euo pipefail
if [ -n "${FAIRWAY_NO_SKIP:-}" ] && [ "${TESTS_SKIPPED:-0}" != 0 ]; then
  echo "$TESTS_SKIPPED tests were skipped, for the reasons above, and FAIRWAY_NO_SKIP is set" >&2
  exit 1
fi
