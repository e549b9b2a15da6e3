#!/usr/bin/env bash
# bench-compare.sh A B: checks both commits out, builds them, and has them measured in turns. What the comparison before has
# built is used again. They lie outside of this checkout: inside, cargo would take its configuration for theirs.
set -euo pipefail
cd "$(dirname "$0")/.."

place=${XDG_CACHE_HOME:-$HOME/.cache}/spin-otp/bench
folders=()
for name in "${1:-}" "${2:-}"; do
  [ -n "$name" ] || {
    echo "usage: make bench-compare A=COMMIT B=COMMIT" >&2
    exit 1
  }
  commit=$(git rev-parse --verify --short "$name^{commit}")
  folder=$place/$commit
  if [ ! -d "$folder" ]; then
    git worktree prune
    git worktree add --quiet --detach "$folder" "$commit"
    # What was compiled of other crates for any checkout need not be compiled again.
    (cd "$folder" && scripts/build-cache.sh restore)
  fi
  echo "building $commit" >&2
  # Its own folder for what is built, whatever the caller has.
  (cd "$folder" && env -u CARGO_TARGET_DIR -u MAKEFLAGS -u MAKELEVEL make --no-print-directory component host)
  folders+=("$folder")
done
# Each has some gigabytes.
for other in "$place"/*; do
  [[ " ${folders[*]} " == *" $other "* ]] || git worktree remove --force "$other"
done
COMPARE="${folders[*]}" TMPDIR=${TMPDIR:-/tmp} exec target/release/spin-otp-bench
