/* inspect.h: what `tidalite inspect` shows, a file each. Each returns the exit code. */
#ifndef TIDALITE_TOOLS_INSPECT_H
#define TIDALITE_TOOLS_INSPECT_H

#include <stdbool.h>

#include "storage/io/io.h"

/* A block's directory. */
int inspect__block(struct io *io, const char *path, bool with_series, bool verify);

/* The log of a data directory, or a directory of segments. */
int inspect__wal(struct io *io, const char *path);

/* The snapshots that the manifest of a data directory names, or one snapshot's file. */
int inspect__head(struct io *io, const char *path);

#endif
