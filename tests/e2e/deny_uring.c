/* deny_uring PROGRAM ARGUMENT...: runs the program with io_uring_setup answering EPERM, as Docker's default
 * seccomp profile does. */
#include <errno.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: deny_uring PROGRAM ARGUMENT...\n");
        return 2;
    }
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    int rc = filter == NULL ? -ENOMEM : 0;
    if (rc == 0)
        rc = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(io_uring_setup), 0);
    if (rc == 0)
        rc = seccomp_load(filter);
    if (filter != NULL)
        seccomp_release(filter);
    if (rc != 0) {
        fprintf(stderr, "deny_uring: seccomp: %s\n", strerror(-rc));
        return 1;
    }
    execv(argv[1], argv + 1);
    fprintf(stderr, "deny_uring: %s: %s\n", argv[1], strerror(errno));
    return 1;
}
