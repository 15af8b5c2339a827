#!/bin/sh
# inspect_block.sh TIDALITE: a whole block is whole, a damaged one is told of, what is no block is refused; nothing is written.
set -eu
tidalite=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$here/block-v1" "$work/b"

"$tidalite" inspect block "$work/b" --series --verify >"$work/out"
grep -q '^holds      403 series, 1105 chunks' "$work/out"
grep -q '^verified ' "$work/out"
[ "$(grep -c '^series ' "$work/out")" = 403 ]
diff -r "$here/block-v1" "$work/b"

printf 'x' | dd of="$work/b/chunks" bs=1 seek=20000 conv=notrunc 2>/dev/null
if "$tidalite" inspect block "$work/b" --verify >"$work/out"; then exit 1; fi
grep -q '^damage: chunks at offset ' "$work/out"
rm "$work/b/index.mdb"
if "$tidalite" inspect block "$work/b" >"$work/out"; then exit 1; fi
grep -q '^damage: index.mdb at offset 0: index: the file is missing; nothing is missing' "$work/out"
if "$tidalite" inspect block "$work" 2>"$work/out"; then exit 1; fi
grep -q 'is not a block' "$work/out"
code=0
"$tidalite" inspect block "$work/b" --bogus 2>/dev/null || code=$?
[ $code = 2 ]
