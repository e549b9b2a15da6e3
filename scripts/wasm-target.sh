#!/usr/bin/env bash
# Makes sure that rustc can build for wasm32-wasip2, in four steps, and stops at the first that works:
#   1. the library is there already
#   2. rustup adds it
#   3. it is built from the distribution's source packages (Debian, in rustc's very version)
#   4. a message that says what was tried and what to install
# Safe to run again and again: where the library is there, it takes a few milliseconds.
set -euo pipefail

target=wasm32-wasip2
say() { printf 'wasm target: %s\n' "$*" >&2; }

command -v rustc >/dev/null || {
  say "no rustc on the PATH. Install Rust (https://rustup.rs), then run this again."
  exit 1
}

# rustup does not list a library that was unpacked by hand, so look for the library itself.
present() {
  local dir
  dir=$(rustc --print target-libdir --target "$target" 2>/dev/null) && compgen -G "$dir/libcore-*.rlib" >/dev/null
}

present && exit 0

tried=()
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The steps below run where bash ignores set -e, so each command that may fail says what then.

with_rustup() {
  command -v rustup >/dev/null || { tried+=("rustup target add: there is no rustup"); return 1; }
  say "adding $target with rustup"
  if rustup target add "$target" >"$work/rustup.log" 2>&1 && present; then return 0; fi
  tried+=("rustup target add $target: $(grep -m1 -i error "$work/rustup.log" || echo 'it did not bring the library')")
  return 1
}

# apt is pointed at the suite that holds rustc's newest releases, with the machine's own mirror and
# keyring, and with lists of its own, so that nothing on the machine changes.
debian_apt() {
  local program=$1
  shift
  "$program" -o Dir::Etc::sourcelist="$work/suite.sources" -o Dir::Etc::sourceparts=- \
    -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" "$@"
}

from_debian_sources() {
  local suite=trixie-backports sources=/etc/apt/sources.list.d/debian.sources version available package sysroot lib src
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null && [ -r "$sources" ] || {
    tried+=("building it from Debian's sources: this is no Debian with $sources")
    return 1
  }
  version=$(rustc --version | awk '{print $2}')
  say "building $target for rustc $version from Debian's source packages (a minute or two)"
  awk -v suite="$suite" '/^[[:space:]]*$/ { if (seen) exit; next } { seen = 1 }
    /^Suites:/ { print "Suites: " suite; next } { print }' "$sources" >"$work/suite.sources"
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/packages" "$work/tree"
  debian_apt apt-get update >"$work/apt.log" 2>&1 || {
    tried+=("apt-get update for $suite: $(tail -n1 "$work/apt.log")")
    return 1
  }
  # The suite keeps several versions; only rustc's very own will do.
  available=$(debian_apt apt-cache madison rust-src | awk '{print $3}')
  package=$(grep -m1 "^$version[+~-]" <<<"$available" || true)
  [ -n "$package" ] || {
    tried+=("Debian's $suite: it has rust-src ${available//$'\n'/, }, and only rustc's very version, $version, will do")
    return 1
  }
  (cd "$work/packages" && debian_apt apt-get download "rust-src=$package" wasi-libc) >>"$work/apt.log" 2>&1 || {
    tried+=("apt-get download rust-src=$package wasi-libc: $(tail -n1 "$work/apt.log")")
    return 1
  }
  for package in "$work"/packages/*.deb; do dpkg-deb -x "$package" "$work/tree" || return 1; done
  src=$(echo "$work"/tree/usr/src/rustc-*/library)
  lib=$work/tree/usr/lib/$target
  # The lock file of the package names the few crates that the library needs; cargo brings them.
  if ! (cd "$src" && RUSTC_BOOTSTRAP=1 __CARGO_DEFAULT_LIB_METADATA=stablestd CARGO_TARGET_DIR="$work/build" \
    RUSTFLAGS="-Zforce-unstable-if-unmarked -Cembed-bitcode=yes -L native=$lib" \
    cargo build --release --target "$target" --manifest-path sysroot/Cargo.toml) >"$work/build.log" 2>&1; then
    tried+=("building Rust's library: $(grep -m1 '^error' "$work/build.log" || tail -n1 "$work/build.log")")
    return 1
  fi
  # Put together beside its place and moved there whole: half a library would pass for one.
  sysroot=$(dirname "$(rustc --print target-libdir --target "$target")")
  rm -rf "$sysroot.new"
  mkdir -p "$sysroot.new/lib/self-contained" || return 1
  for package in "$work/build/$target/release/deps/"*.rlib; do
    case "$package" in */libsysroot-*) continue ;; esac
    cp "$package" "$sysroot.new/lib/" || return 1
  done
  cp "$lib/crt1-command.o" "$lib/crt1-reactor.o" "$lib/libc.a" "$sysroot.new/lib/self-contained/" || return 1
  rm -rf "$sysroot" && mv "$sysroot.new" "$sysroot" || return 1
  present
}

with_rustup || from_debian_sources || {
  say "rustc cannot build for $target, and none of these worked:"
  printf '  - %s\n' "${tried[@]}" >&2
  say "Install it with 'rustup target add $target' on a machine that reaches Rust's servers, or unpack"
  say "rust-std-$(rustc --version | awk '{print $2}')-$target into $(rustc --print sysroot)/lib/rustlib."
  exit 1
}
say "$target is ready"
