/* waits SECONDS: threads that wait for so long, in one call each. Each says when it began and ended, by the monotonic clock. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int bad, word = 5;
static int seconds;
/* In memory that cannot be written to. */
static struct timespec *time_given;
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
static const char *const names[] = { "nanosleep", "clock_nanosleep", "poll", "futex", "epoll_wait", "ppoll", "select", "nanosleep with rem", "sleep until" };
enum { KINDS = sizeof names / sizeof *names };

static void *wait_for(void *arg)
{
	long kind = (long)arg, result = -2;
	int expected = 0, error = 0, queue = epoll_create1(0);
	struct epoll_event event;
	struct timespec left = *time_given, until;
	struct timeval interval = { seconds, 0 };
	double started = now();
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += seconds;
	switch (kind) {
	case 0: result = syscall(SYS_nanosleep, time_given, 0); break;
	case 1: result = syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, time_given, 0); break;
	case 2: result = poll(0, 0, 1000 * seconds); break;
	case 3: result = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 5, time_given, 0, 0); expected = -1; error = ETIMEDOUT; break;
	case 4: result = epoll_wait(queue, &event, 1, 1000 * seconds); break;
	case 5: result = ppoll(0, 0, time_given, 0); break;
	case 6: result = select(0, 0, 0, 0, &interval); break;
	case 7: result = nanosleep(time_given, &left); break;
	case 8: result = syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &until, 0); break;
	}
	int failed = errno;
	printf("%s: %.3f to %.3f\n", names[kind], started, now());
	if (result != expected || (error && failed != error)) {
		printf("not as it was: %s answered %ld (errno %d)\n", names[kind], result, failed);
		bad++;
	}
	return 0;
}

int main(int c, char **v)
{
	pthread_t t[KINDS];
	setsid();
	seconds = c > 1 ? atoi(v[1]) : 16;
	time_given = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	time_given->tv_sec = seconds;
	mprotect(time_given, 4096, PROT_READ);
	for (long i = 0; i < KINDS; i++) pthread_create(&t[i], 0, wait_for, (void *)i);
	usleep(50000);
	printf("ready\n"); fflush(stdout);
	for (int i = 0; i < KINDS; i++) pthread_join(t[i], 0);
	if (time_given->tv_sec != seconds || time_given->tv_nsec) bad++;
	printf(bad ? "%d faults\n" : "ok\n", bad); fflush(stdout);
	return bad;
}
