#!/usr/bin/env bash
# Makes a site of docs/ in bin/site, and fails on a link that leads nowhere or a page that no menu has. With --serve it then serves the
# site on the loopback address. The tools are Python's, of the versions and sums in requirements.txt, in a folder of their own.
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=bin/.docs/venv source=bin/.docs/source
stamp=$venv/requirements.txt
if ! cmp -s hack/docs/requirements.txt "$stamp"; then
	rm -rf "$venv"
	mkdir -p bin/.docs
	if ! python3 -m venv "$venv"; then
		echo "make docs: python3 can't make a virtual environment (on Debian: apt-get install python3-venv)" >&2
		exit 1
	fi
	if ! "$venv/bin/pip" --quiet --disable-pip-version-check --retries 2 --timeout 20 install --require-hashes -r hack/docs/requirements.txt; then
		rm -rf "$venv"
		echo "make docs: the tools can't be had from PyPI, see above. Without them the pages are as they are in docs/;" \
			"\"go test ./test/manifests\" follows their links." >&2
		exit 3
	fi
	cp hack/docs/requirements.txt "$stamp"
fi

# The pages, the long ones cut by task, and what only the site has: its first page with the menu.
rm -rf "$source" bin/site
cp -r docs "$source"
cp hack/docs/index.md.in "$source/index.md"
"$venv/bin/python" hack/docs/split.py "$source"
"$venv/bin/sphinx-build" --quiet --fail-on-warning --keep-going --jobs auto --builder dirhtml -c hack/docs "$source" bin/site
echo "the site is in bin/site"

if [ "${1:-}" = --serve ]; then
	exec "$venv/bin/python" -m http.server --bind 127.0.0.1 --directory bin/site "${PORT:-8000}"
fi
