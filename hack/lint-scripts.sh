#!/usr/bin/env bash
# Checks what the Go linter doesn't see: licence headers, the syntax of shell scripts, permissions without wildcards.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0

while IFS= read -r file; do
  if ! head -n 5 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0'; then
    echo "$file: lacks the licence header (see hack/boilerplate.go.txt)" >&2
    failed=1
  fi
done < <(git ls-files '*.go')

while IFS= read -r file; do
  bash -n "$file" || failed=1
done < <(git ls-files '*.sh' .ci/run)

if grep -nE "^\s*-? *['\"]\*['\"]|\[.*['\"]\*['\"].*\]" config/rbac/*.yaml; then
  echo "config/rbac: permissions must not have wildcards" >&2
  failed=1
fi
exit "$failed"
