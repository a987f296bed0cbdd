/*
 * What processes share that are not threads: pages until one writes, memory, signal handlers, descriptors, working directory,
 * in several combinations of clone(2). On SIGTERM checks all of it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int bad;
#define CHECK(what) do { if (!(what)) { printf("not as it was: %s (line %d, errno %d)\n", #what, __LINE__, errno); bad++; } } while (0)
static volatile sig_atomic_t term;
static void on_term(int s) { (void)s; term = 1; }
static void nothing(int s) { (void)s; }

enum { PAGES = 64, KINDS = 7 };
static const int kinds[KINDS] = {
	CLONE_VM, CLONE_VM | CLONE_SIGHAND, CLONE_FILES, CLONE_FS, CLONE_FILES | CLONE_FS,
	CLONE_VM | CLONE_FS, CLONE_VM | CLONE_FILES | CLONE_FS | CLONE_SIGHAND,
};
/* go[0]: how far the sharers may go. go[1] and go[2]: how often the frames were looked up, and are to be. */
static volatile int stage[KINDS], *go;
static char stacks[KINDS][16384] __attribute__((aligned(16)));
static int step[2];

static uint64_t frame(const char *page)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY);
	if (pread(fd, &entry, 8, (uintptr_t)page / 4096 * 8) != 8) entry = 0;
	close(fd);
	return entry & ((1ull << 55) - 1);
}

static void wait_for(int what) { while (*go < what) usleep(2000); }

/* Each leaves a trace of its own in what it shares. */
static int sharer(void *arg)
{
	int i = (int)(long)arg, kind = kinds[i];
	stage[i] = 1;
	wait_for(1 + i);
	if (kind & CLONE_VM) stage[i] = 2;
	if (kind & CLONE_SIGHAND) signal(SIGRTMIN + i, nothing);
	if (kind & CLONE_FILES) dup2(1, 100 + i);
	if (kind & CLONE_FS) if (chdir("sub")) _exit(9);
	if (write(step[1], "x", 1) != 1) _exit(8);
	wait_for(100);
	_exit(30 + i);
}

int main(void)
{
	pid_t kids[KINDS], cow, cows;
	int status;
	char byte;
	setsid();
	signal(SIGTERM, on_term);
	signal(SIGUSR1, nothing);
	mkdir("sub", 0700); mkdir("sub/sub", 0700); mkdir("sub/sub/sub", 0700); mkdir("sub/sub/sub/sub", 0700);
	go = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(pipe(step) == 0);
	uint64_t *frames = mmap(0, PAGES * 8, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char *pages = mmap(0, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < PAGES - 8; i++) memset(pages + i * 4096, 'a' + i % 26, 4096);
	mprotect(pages + 16 * 4096, 4096, PROT_READ);
	if (!(cow = fork())) {
		pages[4096] = 'X';                                   /* other content */
		madvise(pages + 2 * 4096, 4096, MADV_DONTNEED);      /* none */
		pages[(PAGES - 1) * 4096] = 'Y';                     /* none in the parent */
		if (!(cows = fork())) {
			pages[3 * 4096] = 'Z';
			wait_for(1);
			/* Again each time that it is asked to. */
			for (; *go < 100; usleep(1000)) {
				if (go[1] == go[2]) continue;
				for (int i = 0; i < PAGES; i++) frames[i] = frame(pages + i * 4096);
				go[1] = go[2];
			}
			_exit(pages[4096] == 'X' && pages[2 * 4096] == 0 && pages[3 * 4096] == 'Z' && pages[4 * 4096] == 'e' ? 7 : 8);
		}
		wait_for(100);
		waitpid(cows, &status, 0);
		_exit(pages[4096] == 'X' && pages[2 * 4096] == 0 && pages[3 * 4096] == 'd' && pages[(PAGES - 1) * 4096] == 'Y' &&
			pages[16 * 4096] == 'q' ? WEXITSTATUS(status) : 9);
	}
	for (int i = 0; i < KINDS; i++)
		CHECK((kids[i] = clone(sharer, stacks[i] + 16384, kinds[i] | (i == 3 ? SIGUSR1 : SIGCHLD), (void *)(long)i)) > 0);
	for (int i = 0; i < KINDS; i++) while ((kinds[i] & CLONE_VM) && !stage[i]) usleep(1000);
	usleep(20000);
	printf("ready\n"); fflush(stdout);
	while (!term) pause();

	/* pages */
	*go = 1;
	/* the first of the sharers waits for 1 too, and answers at once */
	CHECK(read(step[0], &byte, 1) == 1);
	/* The kernel may move a page between two looks at it. */
	int shared = 0;
	for (int tries = 0; tries < 100 && shared != PAGES - 8 - 3; tries++) {
		for (go[2]++; go[1] != go[2];) usleep(1000);
		shared = 0;
		for (int i = 0; i < PAGES - 8; i++) shared += frames[i] != 0 && frames[i] == frame(pages + i * 4096);
	}
	CHECK(shared == PAGES - 8 - 3);
	CHECK(pages[4096] == 'b' && pages[2 * 4096] == 'c' && pages[(PAGES - 1) * 4096] == 0);
	/* sharers one after the other; the first step is done */
	int depth = 0, before = 0;
	char at[4096], now[4096];
	CHECK(getcwd(at, sizeof at));
	before = strlen(at);
	for (int i = 0; i < KINDS; i++) {
		if (i > 0) {
			*go = i + 1;
			CHECK(read(step[0], &byte, 1) == 1);
		}
		CHECK((stage[i] == 2) == !!(kinds[i] & CLONE_VM));
		CHECK((fcntl(100 + i, F_GETFD) >= 0) == !!(kinds[i] & CLONE_FILES));
		struct sigaction sa;
		CHECK(sigaction(SIGRTMIN + i, 0, &sa) == 0 && (sa.sa_handler == nothing) == !!(kinds[i] & CLONE_SIGHAND));
		depth += !!(kinds[i] & CLONE_FS);
		CHECK(getcwd(now, sizeof now) && strlen(now) == before + 4 * (size_t)depth);
	}
	*go = 100;
	for (int i = 0; i < KINDS; i++) {
		if (i == 3) CHECK(waitpid(kids[i], &status, 0) < 0 && errno == ECHILD);
		CHECK(waitpid(kids[i], &status, i == 3 ? __WCLONE : 0) == kids[i] && WIFEXITED(status) && WEXITSTATUS(status) == 30 + i);
	}
	CHECK(waitpid(cow, &status, 0) == cow && WIFEXITED(status) && WEXITSTATUS(status) == 7);
	printf(bad ? "%d faults\n" : "ok\n", bad); fflush(stdout);
	return bad;
}
