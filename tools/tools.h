/* tools.h: commands that look at a data directory by themselves, without a server. */
#ifndef TIDALITE_TOOLS_TOOLS_H
#define TIDALITE_TOOLS_TOOLS_H

/* `tidalite verify DIR [--repair]`: every checksum and cross-reference. Returns the exit code: 0 all is well,
 * 1 damage, 2 the command line is wrong, 3 something could not be checked. argv[0] is "verify". */
int tools_verify(int argc, char **argv);

/* `tidalite inspect wal PATH`: what stands in a log. Returns the exit code. argv[0] is "inspect". */
int tools_inspect(int argc, char **argv);

#endif
