/* What a process and its threads have beside memory, files and signals. On SIGTERM says what is not as it was. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static int bad;
#define CHECK(what) do { if (!(what)) { printf("not as it was: %s (line %d, errno %d)\n", #what, __LINE__, errno); bad++; } } while (0)
static volatile sig_atomic_t term;
static void on_term(int s) { (void)s; term = 1; }
/* SIGTERM is for this thread alone, and comes to it nowhere else. */
static void wait_term(void) { sigset_t none; sigemptyset(&none); while (!term) sigsuspend(&none); }

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

/* The fields of smaps for the mapping at an address. */
static char *smaps(const void *at, const char *name)
{
	static char line[4096], found[4096];
	unsigned long start, end;
	int here = 0;
	FILE *f = fopen("/proc/self/smaps", "r");
	found[0] = 0;
	while (fgets(line, sizeof line, f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2) here = start <= (uintptr_t)at && (uintptr_t)at < end;
		if (!here) continue;
		if (!name[0] ? line[0] >= '0' && strchr(line, '-') == line + strcspn(line, "- ") : !strncmp(line, name, strlen(name))) strcpy(found, line);
	}
	fclose(f);
	return found;
}
static int has(const void *at, const char *flag)
{
	char want[8];
	snprintf(want, sizeof want, " %s ", flag);
	return strstr(smaps(at, "VmFlags:"), want) != 0;
}
static long text(const char *file, int base)
{
	char buffer[64] = "";
	int fd = open(file, O_RDWR);
	if (read(fd, buffer, 63) < 0) return -1;
	close(fd);
	return strtol(buffer, 0, base);
}

struct deadline { uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t priority; uint64_t runtime, deadline, period; };
static int deadline_set;
static pthread_barrier_t up, down;

static void *thread(void *arg)
{
	cpu_set_t set, now;
	long i = (long)arg;
	struct deadline attr = { sizeof attr, 6, 0, 0, 0, 10000000, 30000000, 40000000 }, slice = { sizeof slice, 0, 0, 0, 0, 5000000 };
	CPU_ZERO(&set); CPU_SET(0, &set);
	if (i == 0) {
		/* Linux 6.12 and later tell of it. */
		CHECK(syscall(SYS_sched_setattr, 0, &slice, 0) == 0 && syscall(SYS_sched_getattr, 0, &slice, sizeof slice, 0) == 0);
		CHECK(slice.runtime == 5000000 || slice.runtime == 0);
	} else if (i == 1) {
		prctl(PR_SET_TIMERSLACK, 1234567);
		CHECK(sched_setaffinity(0, sizeof set, &set) == 0);
		CHECK(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 6) == 0);
	} else if (i == 2) {
		CHECK(setpriority(PRIO_PROCESS, syscall(SYS_gettid), 7) == 0);
		CHECK(setresgid(-1, 12, -1) == 0 || 1);
		CHECK(syscall(SYS_setresuid, -1, 1234, -1) == 0);
	} else if (i == 3) deadline_set = syscall(SYS_sched_setattr, 0, &attr, 0) == 0;
	pthread_barrier_wait(&up);
	pthread_barrier_wait(&down);
	if (i == 0) {
		CHECK(syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0) == 0 && !memcmp(&attr, &slice, sizeof attr));
	} else if (i == 1) {
		CHECK(prctl(PR_GET_TIMERSLACK) == 1234567);
		CHECK(sched_getaffinity(0, sizeof now, &now) == 0 && CPU_EQUAL(&set, &now));
		CHECK(syscall(SYS_ioprio_get, 1, 0) == (2 << 13 | 6));
	} else if (i == 2) {
		uid_t r, e, s;
		CHECK(getpriority(PRIO_PROCESS, syscall(SYS_gettid)) == 7);
		CHECK(syscall(SYS_getresuid, &r, &e, &s) == 0 && e == 1234 && r == 0);
	} else if (i == 3 && deadline_set) {
		CHECK(syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0) == 0 && attr.policy == 6);
		CHECK(attr.runtime == 10000000 && attr.deadline == 30000000 && attr.period == 40000000);
	}
	return 0;
}

int main(void)
{
	pthread_t t[4];
	const int anon = MAP_PRIVATE | MAP_ANONYMOUS, rw = PROT_READ | PROT_WRITE;
	setsid();
	signal(SIGTERM, on_term);
	sigset_t block; sigemptyset(&block); sigaddset(&block, SIGTERM); sigprocmask(SIG_BLOCK, &block, 0);
	pthread_barrier_init(&up, 0, 5); pthread_barrier_init(&down, 0, 5);
	cpu_set_t all, now;
	CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
	/* memory */
	char *locked = mmap(0, 3 * 4096, rw, anon, -1, 0), *onfault = mmap(0, 2 * 4096, rw, anon, -1, 0);
	CHECK(mprotect(locked + 4096, 4096, PROT_NONE) == 0);
	CHECK(mlock(locked, 4096) == 0 && syscall(SYS_mlock2, onfault, 2 * 4096, 1) == 0);
	char *named = mmap(0, 4096, rw, anon, -1, 0);
	int names = prctl(0x53564d41, 0, named, 4096, "a name") == 0;
	char *sealed = mmap(0, 4096, rw, anon, -1, 0);
	sealed[0] = 's';
	int seals = syscall(462, sealed, 4096, 0) == 0;
	char *guarded = mmap(0, 8 * 4096, rw, anon, -1, 0);
	memset(guarded, 'g', 8 * 4096);
	int guards = madvise(guarded + 2 * 4096, 4096, MADV_GUARD_INSTALL) == 0;
	static const struct { int advice; const char *flag; } advices[] = {
		{ MADV_SEQUENTIAL, "sr" }, { MADV_RANDOM, "rr" }, { MADV_DONTFORK, "dc" }, { MADV_DONTDUMP, "dd" },
		{ MADV_HUGEPAGE, "hg" }, { MADV_NOHUGEPAGE, "nh" }, { MADV_WIPEONFORK, "wf" }, { MADV_MERGEABLE, "mg" },
	};
	enum { ADVICES = sizeof advices / sizeof *advices };
	char *advised[ADVICES];
	for (int i = 0; i < ADVICES; i++) {
		mmap(0, 4096, PROT_NONE, anon, -1, 0);
		advised[i] = mmap(0, 4096, rw, anon, -1, 0);
		advised[i][0] = 'a' + i;
		madvise(advised[i], 4096, advices[i].advice);
		if (!has(advised[i], advices[i].flag)) advised[i] = 0;
	}
	char *grows = mmap(0, 64 * 4096, rw, anon | MAP_GROWSDOWN | MAP_STACK, -1, 0);
	grows[63 * 4096] = 1;
	char *unreserved = mmap(0, 4096, rw, anon | MAP_NORESERVE, -1, 0);
	/* what is inherited */
	struct deadline ordinary = { 0 }, attr = { 0 };
	CHECK(syscall(SYS_sched_getattr, 0, &ordinary, sizeof ordinary, 0) == 0);
	int slack = prctl(PR_GET_TIMERSLACK);
	prctl(PR_SET_TIMERSLACK, 777);
	CHECK(syscall(SYS_ioprio_set, 1, 0, 3 << 13) == 0);
	unsigned long node = 1;
	int policy = syscall(SYS_set_mempolicy, 1, &node, 64) == 0;
	int mce = prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0) == 0;
	int speculation = prctl(PR_SET_SPECULATION_CTRL, 0, PR_SPEC_DISABLE, 0, 0) == 0;
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	FILE *f = fopen("/proc/self/coredump_filter", "w"); fprintf(f, "0x7b"); fclose(f);
	f = fopen("/proc/self/oom_score_adj", "w"); fprintf(f, "321"); fclose(f);
	f = fopen("/proc/self/loginuid", "w"); int login = f && fprintf(f, "54") && fclose(f) == 0;
	prctl(PR_SET_KEEPCAPS, 1); prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); prctl(PR_SET_DUMPABLE, 0);
	personality(0x0040000 | 0x0400000);
	for (long i = 0; i < 4; i++) CHECK(pthread_create(&t[i], 0, thread, (void *)i) == 0);
	pthread_barrier_wait(&up);
	CHECK(mlockall(MCL_FUTURE | 4) == 0);
	printf("ready\n"); fflush(stdout);

	wait_term();

	CHECK(has(locked, "lo") && !has(locked, "lf") && has(onfault, "lo") && has(onfault, "lf"));
	CHECK(atol(strchr(smaps(locked, "Locked:"), ':') + 1) == 4 && atol(strchr(smaps(onfault, "Rss:"), ':') + 1) == 0);
	CHECK(!names || strstr(smaps(named, ""), "[anon:a name]"));
	CHECK(!seals || (sealed[0] == 's' && mprotect(sealed, 4096, PROT_READ) < 0 && errno == EPERM));
	int out[2]; CHECK(pipe(out) == 0);
	CHECK(!guards || (write(out[1], guarded + 2 * 4096, 1) < 0 && errno == EFAULT));
	CHECK(guarded[4096] == 'g' && guarded[3 * 4096] == 'g');
	for (int i = 0; i < ADVICES; i++) if (advised[i]) { errno = i; CHECK(advised[i][0] == 'a' + i && has(advised[i], advices[i].flag)); }
	CHECK(has(grows, "gd") && grows[63 * 4096] == 1); CHECK(has(unreserved, "nr"));
	char *later = mmap(0, 4096, rw, anon, -1, 0);
	CHECK(has(later, "lo") && has(later, "lf"));
	CHECK(prctl(PR_GET_TIMERSLACK) == 777 && syscall(SYS_ioprio_get, 1, 0) == 3 << 13);
	CHECK(prctl(PR_SET_TIMERSLACK, 0) == 0 && prctl(PR_GET_TIMERSLACK) == slack);
	/* With the slice that it has of a processor, from Linux 6.12 on. */
	CHECK(syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0) == 0 && !memcmp(&attr, &ordinary, sizeof attr));
	int mode = -1; unsigned long nodes[16] = { 0 };
	CHECK(!policy || (syscall(SYS_get_mempolicy, &mode, nodes, 1024, 0, 0) == 0 && mode == 1 && nodes[0] == 1));
	CHECK(!mce || prctl(PR_MCE_KILL_GET, 0, 0, 0, 0) == PR_MCE_KILL_EARLY);
	CHECK(!speculation || prctl(PR_GET_SPECULATION_CTRL, 0, 0, 0, 0) == (PR_SPEC_PRCTL | PR_SPEC_DISABLE));
	CHECK(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1);
	CHECK(text("/proc/self/coredump_filter", 16) == 0x7b && text("/proc/self/oom_score_adj", 10) == 321);
	CHECK(!login || text("/proc/self/loginuid", 10) == 54);
	CHECK(prctl(PR_GET_KEEPCAPS) == 1 && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 && prctl(PR_GET_DUMPABLE) == 0);
	CHECK(personality(0xffffffff) == (0x0040000 | 0x0400000));
	CHECK(sched_getaffinity(0, sizeof now, &now) == 0 && CPU_EQUAL(&all, &now));
	pthread_barrier_wait(&down);
	for (int i = 0; i < 4; i++) pthread_join(t[i], 0);
	printf(bad ? "%d faults\n" : "ok\n", bad); fflush(stdout);
	return bad;
}
