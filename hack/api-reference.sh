#!/usr/bin/env bash
# Writes the reference of the mesh's own kinds, from the comments of api/, into a file.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! log=$(bin/crd-ref-docs --source-path=api/v1alpha1 --config=hack/tools/reference/config.yaml --renderer=markdown \
	--output-path="$1" 2>&1); then
	echo "$log" >&2
	exit 1
fi
