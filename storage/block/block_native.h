/* block_native.h: where LMDB touches files by itself: scratch files, and the index opened by its path. The
 * one place that must know whether there is a kernel's file system under `struct io`. For storage/block
 * alone. */
#ifndef TIDALITE_STORAGE_BLOCK_NATIVE_H
#define TIDALITE_STORAGE_BLOCK_NATIVE_H

#include "storage/block/block.h"

#define BLOCK__NATIVE_PATH_BYTES 4096

/* An empty file without a name, readable and writable, gone when *fd_out is closed; in the file system of
 * `dir` where that can be, else in memory. `path` gets a path by which this process can open it again. */
int block__scratch_open(struct io *io, const char *dir, int *fd_out, char path[BLOCK__NATIVE_PATH_BYTES],
                        struct error_detail *detail);

/* The path again, while the descriptor is open. */
void block__scratch_path(int fd, char path[BLOCK__NATIVE_PATH_BYTES]);

/* A path by which the kernel knows the open file. */
int block__native_path(struct io *io, struct io_file *file, char path[BLOCK__NATIVE_PATH_BYTES],
                       struct error_detail *detail);

#endif
