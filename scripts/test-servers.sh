#!/usr/bin/env bash
# Makes sure that the servers that the tests start are installed. On Debian as root it installs what is
# missing; elsewhere it says what to install. None is started here: each test starts its own, on a free
# port, in a folder of its own.
set -euo pipefail

missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing for the tests: ${missing[*]}" >&2
  # The package would start a server of the system's: the tests do not need it.
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  { apt-get update && apt-get install --yes --no-install-recommends "${missing[@]}"; } >/tmp/test-servers.$$ 2>&1 || {
    cat /tmp/test-servers.$$ >&2
    rm -f /tmp/test-servers.$$
    exit 1
  }
  rm -f /tmp/test-servers.$$
else
  echo "The tests need: ${missing[*]}. Install it with your system's packages (Debian: apt-get install ${missing[*]};" >&2
  echo "macOS: brew install redis), then run this again." >&2
  exit 1
fi
