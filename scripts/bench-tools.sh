#!/usr/bin/env bash
# Makes sure that what makes the load of `make bench` is there: vegeta, from Go's registry, in .cache. It sends at a fixed
# rate whether or not the answers keep up, each request of a list once.
set -euo pipefail
cd "$(dirname "$0")/.."

vegeta=github.com/tsenart/vegeta/v12@v12.12.0
to=.cache/vegeta-${vegeta##*@}

[ ! -x "$to/vegeta" ] || exit 0
command -v go >/dev/null || {
  echo "make bench needs Go to build vegeta with, which makes the load. On Debian: apt-get install golang-go" >&2
  exit 1
}
echo "building vegeta, which makes the load" >&2
mkdir -p .cache
aside=$(mktemp -d .cache/aside.XXXXXX)
trap 'rm -rf "$aside"' EXIT
GOBIN=$PWD/$aside GOMODCACHE=$PWD/$aside/modules GOFLAGS=-modcacherw go install "$vegeta"
mkdir -p "$to"
mv "$aside/vegeta" "$to/vegeta"
