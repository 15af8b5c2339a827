/* mutation.h: deliberate faults, to show that the tests would find them. A build with
 * -DTIDALITE_MUTATION=MUTATION_ACK_BEFORE_SYNC (and so on) makes exactly one MUTATED(...) true; in every
 * other build all are the constant 0. tests/mutation runs them. */
#ifndef TIDALITE_BASE_MUTATION_H
#define TIDALITE_BASE_MUTATION_H

#define MUTATION_NONE               0
#define MUTATION_ACK_BEFORE_SYNC    1 /* a write is acknowledged when it is handed to the log */
#define MUTATION_ACK_UNSYNCED_TWIN  2 /* a request equal to one still in flight is acknowledged at once */
#define MUTATION_SKIP_SYNC          3
#define MUTATION_SKIP_DIR_SYNC      4
#define MUTATION_IGNORE_CRC         5
#define MUTATION_ACCEPT_SHORT_WRITE 6
#define MUTATION_APPLY_BEFORE_SYNC  7
#define MUTATION_BELIEVE_TORN_TAIL  8
#define MUTATION_BELIEVE_LABEL_LEN  9 /* this and the next are for the fuzzers (tests/fuzz) */
#define MUTATION_WRAP_SNAPPY_LEN    10
#define MUTATION_BELIEVE_RECORD_LEN 11
#define MUTATION_BELIEVE_CHUNK_LEN  12
#define MUTATION_BELIEVE_BLOCK_LEN  13
#define MUTATION_CUT_DELETED        14 /* what a delete hides in the head comes back with the block */
#define MUTATION_DELETE_LATER       15 /* a delete hides what was written to a block after it, too */
#define MUTATION_DELETE_UNREACHED   16 /* likewise what comes while it is applied */

#ifndef TIDALITE_MUTATION
#define TIDALITE_MUTATION MUTATION_NONE
#endif

#define MUTATED(name) (TIDALITE_MUTATION == MUTATION_##name)

#endif
