/* client.h: `tidalite query`: asks a running server (Tidalite or Prometheus) over HTTP and shows the answer.
 *
 *     options → request (libcurl) → answer (Jansson) → table, plot or CSV; JSON is passed on as it came
 *
 * Runs on the calling thread and blocks. */
#ifndef TIDALITE_CLIENT_CLIENT_H
#define TIDALITE_CLIENT_CLIENT_H

/* The command line from "query" on. Returns the process' exit code: 0, 1 (no answer, or the query failed), 2
 * (usage). What went wrong stands on standard error. */
int client_query(int argc, char **argv);

#endif
