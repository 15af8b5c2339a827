/* tools.h: commands that look at files, without a server. But for `verify --repair` they write nothing and
 * take no lock, so they may be used on a live data directory. */
#ifndef TIDALITE_TOOLS_H
#define TIDALITE_TOOLS_H

/* `tidalite verify DIR [--repair]`: every checksum and cross-reference. Returns the exit code: 0 all is well,
 * 1 damage, 2 the command line is wrong, 3 something could not be checked. argv[0] is "verify". */
int tools_verify(int argc, char **argv);

/* `tidalite inspect …`: argv[0] is "inspect". Prints to standard output; the process' exit code: 0, 1 if
 * something is damaged or can't be read, 2 for a wrong command line. */
int tools_inspect(int argc, char **argv);

#endif
