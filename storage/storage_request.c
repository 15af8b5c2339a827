/* storage_request.c: requests that the maintaining thread answers when it has done what they ask for. */
#include "base/alloc.h"
#include "storage/storage_private.h"

int storage__request_put(struct storage *storage, struct storage_request **list,
                         struct storage_request request) {
    struct storage_request *copy = mem_alloc(sizeof *copy);
    if (copy == NULL)
        return STATUS_NO_MEMORY;
    *copy = request;
    copy->next = NULL;
    pthread_mutex_lock(&storage->version_mutex);
    while (*list != NULL)
        list = &(*list)->next;
    *list = copy;
    pthread_mutex_unlock(&storage->version_mutex);
    return STATUS_OK;
}

struct storage_request *storage__request_take(struct storage *storage, struct storage_request **list) {
    pthread_mutex_lock(&storage->version_mutex);
    struct storage_request *request = *list;
    if (request != NULL)
        *list = request->next;
    pthread_mutex_unlock(&storage->version_mutex);
    return request;
}

void storage__request_end(struct storage_request *request, int status, const char *name) {
    if (request->cleaned != NULL)
        request->cleaned(request->context, status);
    else
        request->copied(request->context, status, name);
    mem_free(request);
}
