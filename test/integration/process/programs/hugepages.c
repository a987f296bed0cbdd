/* Huge pages of hugetlbfs: private, shared with a child, a memfd mapped both ways. Checks them on SIGTERM. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
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
enum { HUGE = 2 << 20 };

/* The kernel's page size of the mapping at an address, in KiB. */
static int page_size(const void *at)
{
	char line[4096];
	unsigned long start, end;
	int here = 0, size = 0;
	FILE *f = fopen("/proc/self/smaps", "r");
	while (fgets(line, sizeof line, f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2) here = start <= (unsigned long)at && (unsigned long)at < end;
		if (here) sscanf(line, "KernelPageSize: %d", &size);
	}
	fclose(f);
	return size;
}

int main(void)
{
	int status;
	setsid();
	signal(SIGTERM, on_term);
	const int huge = MAP_ANONYMOUS | MAP_HUGETLB, rw = PROT_READ | PROT_WRITE;
	char *mine = mmap(0, 2 * HUGE, rw, MAP_PRIVATE | huge, -1, 0), *ours = mmap(0, 2 * HUGE, rw, MAP_SHARED | huge | 21 << 26, -1, 0);
	CHECK(mine != MAP_FAILED && ours != MAP_FAILED);
	for (int i = 0; i < HUGE; i += 4096) mine[i] = i / 4096 % 100;
	mprotect(mine, HUGE, PROT_READ);
	strcpy(ours + HUGE + 12345, "in the second one");
	int fd = memfd_create("huge", MFD_HUGETLB | MFD_ALLOW_SEALING);
	CHECK(ftruncate(fd, 2 * HUGE) == 0);
	char *file = mmap(0, 2 * HUGE, rw, MAP_SHARED, fd, 0);
	strcpy(file + 100, "in the file"); strcpy(file + HUGE, "second page");
	char *copy = mmap(0, HUGE, rw, MAP_PRIVATE, fd, HUGE);
	strcpy(copy + 50, "a copy");
	pid_t child = fork();
	if (!child) { while (!term) pause(); strcpy(ours, "by the child"); _exit(strcmp(ours + HUGE + 12345, "in the second one") ? 1 : 5); }
	printf("ready\n"); fflush(stdout);
	while (!term) pause();

	for (int i = 0; i < HUGE; i += 4096) if (mine[i] != i / 4096 % 100) { CHECK(!"private content"); break; }
	CHECK(page_size(mine) == 2048 && page_size(ours) == 2048 && page_size(file) == 2048 && page_size(copy) == 2048);
	CHECK(mprotect(mine, HUGE, rw) == 0);
	mine[HUGE] = 1;
	kill(child, SIGTERM);
	CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 5);
	CHECK(!strcmp(ours, "by the child") && !strcmp(ours + HUGE + 12345, "in the second one"));
	struct stat st;
	CHECK(fstat(fd, &st) == 0 && st.st_size == 2 * HUGE && st.st_blksize == HUGE);
	char *again = mmap(0, 2 * HUGE, rw, MAP_SHARED, fd, 0);
	CHECK(again != MAP_FAILED && !strcmp(again + 100, "in the file") && !strcmp(file + HUGE, "second page"));
	strcpy(again + 100, "changed"); CHECK(!strcmp(file + 100, "changed"));
	CHECK(!strcmp(copy, "second page") && !strcmp(copy + 50, "a copy") && again[HUGE + 50] == 0);
	CHECK(fcntl(fd, F_GET_SEALS) == 0);
	printf(bad ? "%d faults\n" : "ok\n", bad); fflush(stdout);
	return bad;
}
