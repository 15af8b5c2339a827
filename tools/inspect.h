/* inspect.h: what `tidalite inspect` shows, a file each. */
#ifndef TIDALITE_TOOLS_INSPECT_H
#define TIDALITE_TOOLS_INSPECT_H

/* The log of a data directory, or a directory of segments. Returns the exit code. */
int inspect__wal(const char *path);

#endif
