#!/usr/bin/env bash
# Gives all modules that the dev cluster builds the same versions of what they share: Go's cache then compiles each shared
# package once, which saves minutes on a bare machine. Run it after a change of versions in any of them.
set -euo pipefail
cd "$(dirname "$0")/.."

modules=(. hack/devcluster hack/certmanager hack/devcluster/tools/{kubernetes,etcd,containerd,cni,coredns,network-policies})
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A workspace of all of them selects one version of each module; it lives outside the tree.
go -C "$work" work init "${modules[@]/#/$PWD/}"
GOWORK=$work/go.work go list -m -f '{{if not .Main}}{{.Path}} {{.Version}}{{end}}' all >"$work/selected"

for m in "${modules[@]}"; do
	mapfile -t edits < <(GOWORK=off go -C "$m" mod edit -json |
		python3 -c 'import json,sys
want = dict(line.split() for line in open(sys.argv[1]))
for r in json.load(sys.stdin)["Require"]:
    if want.get(r["Path"], r["Version"]) != r["Version"]:
        print("-require=%s@%s" % (r["Path"], want[r["Path"]]))' "$work/selected")
	echo "$m: ${#edits[@]} versions raised"
	if [ ${#edits[@]} -gt 0 ]; then
		GOWORK=off go -C "$m" mod edit "${edits[@]}"
		GOWORK=off go -C "$m" mod tidy
	fi
done
