/* clock THREADS PAUSE: threads that ask for the time all the time, 3 if not said, or with so many ms between the rounds. Says "ready", and on SIGTERM "ok" if it went on evenly. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t term;
static int pause_ms;
static void on_term(int s) { (void)s; term = 1; }

static double seconds(struct timespec t) { return t.tv_sec + t.tv_nsec / 1e9; }

static void *ask(void *arg)
{
	long bad = 0;
	double last = 0;
	struct timespec t, direct;
	while (!term) {
		for (int i = 0; i < (pause_ms ? 20 : 2000); i++) {
			clock_gettime(CLOCK_MONOTONIC, &t);
			if (seconds(t) < last || (last && seconds(t) > last + 3600)) bad++;
			last = seconds(t);
		}
		struct timeval tv;
		gettimeofday(&tv, 0);
		syscall(SYS_clock_gettime, CLOCK_REALTIME, &direct);
		double behind = seconds(direct) - tv.tv_sec - tv.tv_usec / 1e6;
		if (behind < -1e-5 || behind > 3600 || time(0) > direct.tv_sec + 3600 || time(0) < direct.tv_sec - 1) bad++;
		syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &direct);
		clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
		if (seconds(t) < seconds(direct) - 1 || seconds(t) > seconds(direct) + 3600) bad++;
		char some[16];
		if (sched_getcpu() < 0 || getrandom(some, sizeof some, 0) != sizeof some) bad++;
		if (pause_ms) usleep(pause_ms * 1000);
	}
	return (void *)bad;
}

int main(int c, char **v)
{
	pthread_t thread[16];
	int threads = c > 1 ? atoi(v[1]) : 3;
	pause_ms = c > 2 ? atoi(v[2]) : 0;
	long bad = 0;
	signal(SIGTERM, on_term);
	for (int i = 0; i < threads; i++) pthread_create(&thread[i], 0, ask, 0);
	printf("vdso %lx ready\n", getauxval(AT_SYSINFO_EHDR)); fflush(stdout);
	for (int i = 0; i < threads; i++) { void *result; pthread_join(thread[i], &result); bad += (long)result; }
	printf(bad ? "%ld faults\n" : "ok\n", bad); fflush(stdout);
	return bad != 0;
}
