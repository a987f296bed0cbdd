/*
 * large MIB: a process with so much memory that never stands still: it writes one page after the other, all with the number of
 * the round. Some memory is not copied by a fork, some is empty after one. On SIGTERM checks that it is all of one moment, and
 * that it never had a child.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
static volatile sig_atomic_t term, children;
static void on_term(int s) { (void)s; term = 1; }
static void on_child(int s) { (void)s; children++; }

static uint8_t *map(size_t size)
{
	uint8_t *at = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED) exit(3);
	return at;
}

int main(int c, char **v)
{
	size_t pages = (size_t)(c > 1 ? atoi(v[1]) : 64) << 8;
	uint8_t *memory = map(pages * PAGE), *unforked = map(16 * PAGE), *wiped = map(16 * PAGE);
	uint64_t round = 0, next = 0;
	int bad = 0;
	setsid();
	signal(SIGTERM, on_term);
	signal(SIGCHLD, on_child);
	memset(unforked, 0x5a, 16 * PAGE);
	memset(wiped, 0xa5, 16 * PAGE);
	if (madvise(unforked, 16 * PAGE, MADV_DONTFORK) || madvise(wiped, 16 * PAGE, MADV_WIPEONFORK)) return 4;
	while (!term) {
		*(uint64_t *)(memory + next * PAGE + 8 * (next % 512)) = round + 1;
		if (++next < pages) continue;
		if (round++ == 0) { printf("ready\n"); fflush(stdout); }
		next = 0;
		usleep(1000);
	}
	for (uint64_t i = 0; i < pages; i++) {
		uint64_t found = *(uint64_t *)(memory + i * PAGE + 8 * (i % 512));
		if (found != round + (i < next)) bad++;
	}
	for (int i = 0; i < 16 * PAGE; i++) bad += (unforked[i] != 0x5a) + (wiped[i] != 0xa5);
	if (children > 0 || waitpid(-1, 0, __WALL | WNOHANG) != -1 || errno != ECHILD) bad++;
	puts(bad ? "faults" : "ok");
	return bad != 0;
}
