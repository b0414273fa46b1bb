#!/usr/bin/env bash
# Makes two releases for tests, each for this machine's platform alone: trial-releases.sh DIR [COMMIT].
# DIR/new is that of the working tree. DIR/former is one to upgrade from and to roll back to: of COMMIT, or else of the same
# tree under a lower version, whose proxies are as different to Kubernetes as any other's. Their images are named by digest,
# so both can be on a node under one tag.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
mkdir -p "$1"
out=$(cd "$1" && pwd)
commit=${2:-}
platform=linux/$(go env GOARCH)

version() { sed -n 's/.*newTag: *//p' "$1/config/default/kustomization.yaml"; }

release() { # TREE DIST
  make release VERSION="$(version "$1")" DIST="$2" REGISTRY=registry.example/mesh ALLOW_DIRTY=1 PLATFORMS="$platform" TREE="$1"
}

release "$root" "$out/new"

former=$out/tree
rm -rf "$former"
mkdir -p "$former"
if [ -n "$commit" ]; then
  git archive "$commit" | tar -x -C "$former"
else
  git ls-files -z | tar --null --files-from=- -c | tar -x -C "$former"
  now=$(version "$root")
  lower=v0.0.9
  sed -i "s/$now/$lower/" "$former"/config/default/kustomization.yaml "$former"/config/manager/manager.yaml "$former"/internal/names/*.go
fi
release "$former" "$out/former"
