/*
 * load KIND COUNT REPORT [own]: a program to be checkpointed that measures how long it was stopped.
 *
 *     counter 0        one process
 *     memory MIB       one process with so much random memory, which it checks
 *     tree N           N processes; all but the root wait for a signal
 *     threads N        N threads; all but the first wait for a condition
 *
 * The root runs every millisecond and keeps the longest time between two runs, by CLOCK_REALTIME, which goes on while the
 * program is not there. On SIGUSR1 it writes "gap=MICROSECONDS ok=0|1" into REPORT and begins a new gap; it does so once when it
 * is ready. SIGTERM ends all. Its parent is a process that reaps what a checkpoint kills, so that ids are free at once.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t asked = 1, ended;
static void ask(int signal) { (void)signal; asked = 1; }
static void end(int signal) { (void)signal; ended = 1; }

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER, up = PTHREAD_COND_INITIALIZER;
static int threads = 1;

static uint64_t microseconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec * 1000000ull + now.tv_nsec / 1000;
}

static uint64_t sum(const uint64_t *memory, size_t words)
{
	uint64_t total = 0;
	for (size_t i = 0; i < words; i++) total = total * 31 + memory[i];
	return total;
}

static void *thread(void *unused)
{
	(void)unused;
	pthread_mutex_lock(&mutex);
	threads++;
	pthread_cond_signal(&up);
	for (;;) pthread_cond_wait(&never, &mutex);
	return 0;
}

static int load(const char *kind, int count, const char *file)
{
	uint64_t *memory = NULL, expected = 0, random = 88172645463325252ull, last, longest = 0;
	size_t words = 0;
	pid_t children[4096];
	int others = 0;
	signal(SIGUSR1, ask);
	signal(SIGTERM, end);
	if (!strcmp(kind, "memory")) {
		words = (size_t)count << 17;
		memory = mmap(0, words * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (memory == MAP_FAILED) return 3;
		for (size_t i = 0; i < words; i++) {
			random ^= random << 13; random ^= random >> 7; random ^= random << 17;
			memory[i] = random;
		}
		expected = sum(memory, words);
	} else if (!strcmp(kind, "tree")) {
		while (others < count - 1) {
			pid_t child = fork();
			if (child == 0) {
				prctl(PR_SET_PDEATHSIG, SIGKILL);
				signal(SIGUSR1, SIG_DFL); signal(SIGTERM, SIG_DFL);
				for (;;) pause();
			}
			if (child < 0) return 4;
			children[others++] = child;
		}
	} else if (!strcmp(kind, "threads")) {
		pthread_attr_t small;
		pthread_t made;
		pthread_attr_init(&small);
		pthread_attr_setstacksize(&small, 65536);
		for (int i = 1; i < count; i++) if (pthread_create(&made, &small, thread, 0)) return 4;
		pthread_mutex_lock(&mutex);
		while (threads < count) pthread_cond_wait(&up, &mutex);
		pthread_mutex_unlock(&mutex);
	}
	for (last = microseconds(); !ended;) {
		nanosleep(&(struct timespec){ 0, 1000000 }, 0);
		uint64_t now = microseconds();
		if (now - last > longest) longest = now - last;
		last = now;
		if (!asked) continue;
		int ok = sum(memory, words) == expected, alive = 0;
		for (int i = 0; i < others; i++) alive += kill(children[i], 0) == 0;
		FILE *report = fopen(file, "w");
		fprintf(report, "gap=%llu ok=%d\n", (unsigned long long)longest, ok && alive == others);
		fclose(report);
		asked = 0;
		longest = 0;
		last = microseconds();
	}
	for (int i = 0; i < others; i++) kill(children[i], SIGKILL);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc != 4 && argc != 5) return 2;
	if (argc == 5 && unshare(CLONE_NEWPID)) return 5;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	pid_t child = fork();
	if (child == 0) {
		setsid();
		int null = open("/dev/null", O_RDWR);
		dup2(null, 0); dup2(null, 1); dup2(null, 2);
		close_range(3, ~0u, 0);
		return load(argv[1], atoi(argv[2]), argv[3]);
	}
	printf("%d\n", child);
	fflush(stdout);
	while (wait(0) > 0);
	pause();
}
