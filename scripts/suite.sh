#!/usr/bin/env bash
# suite.sh NAME COMMAND...: runs a suite of tests, and says how long it took. What it prints also goes to
# target/suites/NAME.log. With TIMES=1, each test says how long it took.
# suite.sh: says how each suite ended, and how long it took.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p target/suites

[ $# -gt 0 ] || {
  printf '\n'
  grep -h '^suite ' target/suites/*.log
  exit
}

name=$1
shift
# Not for cargo, which would look for the jobs of this make.
unset MAKEFLAGS MFLAGS MAKELEVEL
log=target/suites/$name.log
if [ -n "${TIMES:-}" ] && [ "$name" != docs ]; then
  # libtest calls this unstable, and lets those have it who say that they know.
  host=$(rustc -vV | sed -n 's/^host: //p' | tr a-z- A-Z_)
  export "CARGO_TARGET_${host}_RUNNER=env RUSTC_BOOTSTRAP=1"
  case " $* " in
    *' -- '*) set -- "$@" -Zunstable-options --report-time ;;
    *) set -- "$@" -- -Zunstable-options --report-time ;;
  esac
fi
begun=$SECONDS ended=passed
printf '== %s\n' "$name" >"$log"
"$@" >>"$log" 2>&1 || ended=FAILED
printf 'suite %s: %s after %s s\n' "$name" "$ended" "$((SECONDS - begun))" >>"$log"
cat "$log"
[ "$ended" = passed ]
