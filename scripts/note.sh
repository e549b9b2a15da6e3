#!/usr/bin/env bash
# note.sh FILE TEXT: says TEXT if FILE is not there yet, so that a long first step is no surprise.
[ -e "$1" ] || printf '%s\n' "$2" >&2
