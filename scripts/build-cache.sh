#!/usr/bin/env bash
# Keeps what was compiled of other people's crates, and the servers that the tests fetch, outside of the checkout:
#
#   scripts/build-cache.sh restore   puts it into a checkout that has no target/ yet
#   scripts/build-cache.sh save      keeps what is in target/ and .cache/ for the next checkout
#
# An entry is found by toolchain, lock files and profiles. Without one the newest of the same toolchain is taken:
# cargo compares every crate with what it would build, and builds what differs. The project's own crates are never
# in it. Nothing needs it: without it, everything is built.
#
# It lies in SPIN_OTP_BUILD_CACHE (default: spin-otp/build in XDG_CACHE_HOME or ~/.cache). The two newest entries are
# kept. When one has more than SPIN_OTP_BUILD_CACHE_MIB (default 6144), all of its toolchain are thrown away: what nothing
# uses any more does not pile up.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${SPIN_OTP_BUILD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/spin-otp/build}
most=${SPIN_OTP_BUILD_CACHE_MIB:-6144}
kept=2

say() { printf 'build cache: %s\n' "$*" >&2; }
digest() { cksum | tr -d '\n' | tr ' ' '-'; }

toolchain=$(rustc -vV | digest)
built=$({
  cat Cargo.lock fuzz/Cargo.lock
  sed -n '/^\[profile/,/^$/p' Cargo.toml fuzz/Cargo.toml
} | digest)
entry=$cache/$toolchain.$built

# The files of target/ that belong to crates from elsewhere, and the servers.
foreign() {
  local own unit
  # Names of packages and of what is built from them. A crate from elsewhere that has such a name is built anew.
  own=$(find . \( -name target -o -name .cache -o -name .git \) -prune -o -name Cargo.toml -print |
    xargs sed -n 's/^name = "\(.*\)"$/\1/p' | tr - _ | sort -u)
  # Cargo's folders are by profile, or by platform and profile, and all that it writes there has a hash behind its name.
  unit='^(.*/([^/]+)-[0-9a-f]{16}[^/]*)$'
  find target \( -path '*/.fingerprint/*' -o -path '*/deps/*' -o -path '*/build/*' \) -prune -print |
    sed -nE "s#$unit#\2 \1#p" |
    OWN=$own awk '
      BEGIN { count = split(ENVIRON["OWN"], names, "\n"); for (i = 1; i <= count; i++) ours[names[i]] = 1 }
      {
        name = $1
        gsub(/-/, "_", name)
        crate = name
        sub(/^lib/, "", crate)
        if (!(name in ours) && !(crate in ours)) { sub(/^[^ ]* /, ""); print }
      }'
  find .cache -mindepth 1 -maxdepth 1 -not -name 'aside.*' -not -name 'postgres-*' 2>/dev/null || true
}

newest() { # the entries of this toolchain, newest first
  ls -dt "$cache/$toolchain".* 2>/dev/null || true
}

restore() {
  local from
  [ ! -e target ] || {
    say "there is a target/ already; it is used as it is"
    return
  }
  from=$entry
  [ -d "$from" ] || from=$(newest | head -n 1)
  [ -n "$from" ] || {
    say "nothing was kept for this toolchain in $cache; everything is built"
    return
  }
  # Times too: cargo goes by them.
  cp -a "$from/." .
  say "restored $(du -sm "$from" | cut -f1) MiB from $from"
}

save() {
  local aside list size old
  mkdir -p "$cache"
  # Of a run that was stopped in the middle of it.
  rm -rf "$cache"/aside.*
  list=$(mktemp)
  aside=$(mktemp -d "$cache/aside.XXXXXX")
  # shellcheck disable=SC2064 # as they are now
  trap "rm -rf '$list' '$aside'" EXIT
  foreign >"$list"
  # Beside its place first, so that half an entry is never taken for a whole one.
  tar -cf - -T "$list" | tar -xf - -C "$aside"
  size=$(du -sm "$aside" | cut -f1)
  if [ "$size" -gt "$most" ]; then
    # And what it began from.
    newest | while read -r old; do rm -rf "$old"; done
    say "$size MiB are more than the $most that an entry may have: the next checkout builds everything"
    return
  fi
  rm -rf "${entry:?}"
  mv "$aside" "$entry"
  touch "$entry"
  # Whatever its toolchain.
  ls -dt "$cache"/*.* | tail -n "+$((kept + 1))" | while read -r old; do rm -rf "$old"; done
  say "kept $size MiB in $entry"
}

case "${1:-}" in
  restore) restore ;;
  save) save ;;
  *)
    say "say what to do: scripts/build-cache.sh restore, or save"
    exit 2
    ;;
esac
