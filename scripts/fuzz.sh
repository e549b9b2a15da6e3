#!/usr/bin/env bash
# fuzz.sh SECONDS [TARGET...]: fuzzes all targets, or those that are named, at the same time and for that long.
# Installs cargo-fuzz if it is not there. Stable Rust will do: without a sanitizer cargo-fuzz needs nothing else, and
# there is no unsafe code here that one could find anything in.
#
# It starts from fuzz/corpus/TARGET and keeps what it finds in target/fuzz/corpus/TARGET. What crashed a target
# lies in fuzz/artifacts/TARGET afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'fuzz: %s\n' "$*" >&2; }

case "${1:-}" in
  '' | *[!0-9]* | 0)
    say "say for how many seconds: scripts/fuzz.sh SECONDS [TARGET...]"
    exit 2
    ;;
esac
seconds=$1
shift

command -v cargo-fuzz >/dev/null || {
  say "installing cargo-fuzz"
  cargo install --locked cargo-fuzz
}
command -v c++ >/dev/null || {
  say "there is no C++ compiler, which libFuzzer needs. Install one (Debian: apt-get install g++)."
  exit 1
}
# cargo fuzz has no --locked, and would change the lock file.
cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null

all=$(cargo fuzz list | tr '\n' ' ')
# shellcheck disable=SC2086 # names of targets have no spaces
[ $# -gt 0 ] || set -- $all
for target; do
  [[ " $all" == *" $target "* ]] || {
    say "there is no target $target. The targets are $all"
    exit 2
  }
done

options=(--sanitizer none --target-dir target/fuzz)
cargo fuzz build "${options[@]}"

fuzz() {
  local target=$1 found=target/fuzz/corpus/$1
  mkdir -p "$found"
  # The largest body that the service reads has 4 KiB; an input that takes 10 s is a crash too.
  cargo fuzz run "${options[@]}" "$target" "$found" "fuzz/corpus/$target" -- \
    -max_total_time="$seconds" -max_len=4096 -timeout=10 -verbosity=0 -print_final_stats=1
}

# All at the same time: each uses one core, and takes what it is given.
say "$*, for $seconds s"
running=() crashed=()
for target; do
  fuzz "$target" >"target/fuzz/$target.log" 2>&1 &
  running+=("$!")
done
for target; do
  wait "${running[0]}" || crashed+=("$target")
  running=("${running[@]:1}")
  printf '\n== %s\n' "$target"
  cat "target/fuzz/$target.log"
done
[ ${#crashed[@]} -eq 0 ] || {
  say "crashed: ${crashed[*]}. What crashed it lies in fuzz/artifacts/"
  exit 1
}
