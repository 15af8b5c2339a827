#!/bin/sh
# same_trace.sh SIM: the same seed twice gives the same trace, byte for byte; another seed another one.
set -eu
dir=$(mktemp -d "${TMPDIR:-/tmp}/tidalite-sim-XXXXXX")
trap 'rm -rf "$dir"' EXIT
"$1" --seed 77 --rounds 100 --trace "$dir/a"
"$1" --seed 77 --rounds 100 --trace "$dir/b"
"$1" --seed 78 --rounds 100 --trace "$dir/c"
cmp "$dir/a" "$dir/b"
[ "$(wc -l <"$dir/a")" -gt 1000 ]
! cmp -s "$dir/a" "$dir/c"
