/*
 * QPL with an accelerator, for machines without one: jobs of the hardware path are done by the real
 * library's software path, but only when they are waited for, as if they had been in flight till then.
 * Every third submission finds the queue full, and every second one of those stays refused.
 *
 * REAL_LIBQPL names the real library. The counts go to stderr, for the test to read.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { HARDWARE = 1, SOFTWARE = 2, QUEUES_ARE_BUSY = 5, JOBS = 1024 };

static void *real;
static void *in_flight[JOBS];
static unsigned submitted, refused, waited, most_in_flight, now_in_flight;

static void *symbol(const char *name)
{
    if (!real) real = dlopen(getenv("REAL_LIBQPL"), RTLD_NOW);
    return dlsym(real, name);
}

static void report(void)
{
    fprintf(stderr, "accelerator: submitted %u refused %u waited %u together %u left %u\n",
            submitted, refused, waited, most_in_flight, now_in_flight);
}

const char *qpl_get_library_version(void) { return "accelerated"; }

int qpl_get_job_size(int path, uint32_t *bytes)
{
    (void)path;
    return ((int (*)(int, uint32_t *))symbol("qpl_get_job_size"))(SOFTWARE, bytes);
}

int qpl_init_job(int path, void *job)
{
    (void)path;
    return ((int (*)(int, void *))symbol("qpl_init_job"))(SOFTWARE, job);
}

int qpl_execute_job(void *job) { return ((int (*)(void *))symbol("qpl_execute_job"))(job); }

int qpl_fini_job(void *job)
{
    report(); /* the last one counts; Bun runs no exit handlers */
    return ((int (*)(void *))symbol("qpl_fini_job"))(job);
}

int qpl_submit_job(void *job)
{
    static unsigned calls, full;
    if (full > 0 || ++calls % 3 == 0) {
        /* Once full it stays so for two more calls, or for seven, more than anybody asks. */
        if (full == 0) full = calls % 2 ? 2 : 7;
        full--;
        refused++;
        return QUEUES_ARE_BUSY;
    }
    for (int slot = 0; slot < JOBS; slot++) {
        if (in_flight[slot]) continue;
        in_flight[slot] = job;
        submitted++;
        if (++now_in_flight > most_in_flight) most_in_flight = now_in_flight;
        return 0;
    }
    return QUEUES_ARE_BUSY;
}

int qpl_wait_job(void *job)
{
    for (int slot = 0; slot < JOBS; slot++) {
        if (in_flight[slot] != job) continue;
        in_flight[slot] = NULL;
        waited++;
        now_in_flight--;
        return qpl_execute_job(job);
    }
    return 4; /* waited for without having been submitted */
}
