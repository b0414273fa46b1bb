#!/usr/bin/env bash
# Fails if a generated file is not what its sources say. Generates into a temporary folder, so it needs no clean tree.
set -euo pipefail
cd "$(dirname "$0")/.."

make --no-print-directory bin/controller-gen bin/crd-ref-docs
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

bin/controller-gen object:headerFile=hack/boilerplate.go.txt paths=./api/... output:object:dir="$tmp/api"
bin/controller-gen crd:maxDescLen=600 paths=./api/... output:crd:dir="$tmp/crd"
bin/controller-gen rbac:roleName=fairway-operator paths=./controllers/... paths=./api/... output:rbac:dir="$tmp/rbac"
hack/api-reference.sh "$tmp/api.md"
go -C hack/packages run ./cmd/bundle -root ../.. -out "$tmp/bundle"

stale=0
check() { # generated, committed
  if ! diff -u "$2" "$1"; then
    stale=1
  fi
}
check "$tmp/api/zz_generated.deepcopy.go" api/v1alpha1/zz_generated.deepcopy.go
check "$tmp/rbac/role.yaml" config/rbac/role.yaml
check "$tmp/api.md" docs/reference/api.md
if ! diff -ru config/crd/bases "$tmp/crd" || ! diff -ru bundle "$tmp/bundle"; then
  stale=1
fi
if [ "$stale" != 0 ]; then
  echo 'Generated files are not current: run "make generate" and commit what it changes.' >&2
  exit 1
fi
echo "generated files are current"
