#!/bin/sh
# block_golden.sh PROGRAM PYTHON: of the block in this folder our reader and one that was written from the documentation say the same,
# and that has the checksum that it had when the block was written; our writer still writes the same `chunks`; and both readers agree on a
# larger block, too.
set -eu
program=$1 python=$2
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$program" dump "$here/block-v1" >"$work/ours"
"$python" "$here/block_reader.py" "$here/block-v1" >"$work/other"
diff "$work/ours" "$work/other"
[ "$(sha256sum <"$work/other" | cut -d ' ' -f 1)" = "$(cat "$here/block-v1.sha256")" ] || { echo "not what block-v1 said"; exit 1; }

"$program" make "$work/again" 400
cmp "$here/block-v1/chunks" "$work/again/chunks"

"$program" make "$work/large" 5000
"$program" dump "$work/large" >"$work/ours"
"$python" "$here/block_reader.py" "$work/large" >"$work/other"
diff "$work/ours" "$work/other"
echo "$(wc -l <"$work/ours") lines the same"
