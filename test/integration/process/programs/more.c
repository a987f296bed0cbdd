/* Children that share, hold or lack one thing each. Says "ready", and on SIGTERM "ok" if each finds it as it was. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int bad;
#define CHECK(what) do { if (!(what)) { printf("not as it was: %s (line %d, errno %d)\n", #what, __LINE__, errno); bad++; } } while (0)
static volatile sig_atomic_t term, value;
static void on_term(int s) { (void)s; term = 1; }
static void on_timer(int s, siginfo_t *i, void *c) { (void)s; (void)c; value = i->si_value.sival_int; }
static void wait_term(void) { sigset_t none; sigemptyset(&none); while (!term) sigsuspend(&none); }

/* Shares the table of descriptors of its parent, and puts one into it. */
static int shares(void *arg) { (void)arg; wait_term(); return dup2(0, 77) == 77 ? 11 : 1; }

/* Has no descriptor at all. */
static int lacks(void) { close_range(0, ~0u, 0); wait_term(); return open("/", O_RDONLY) == 0 ? 12 : 1; }

static int locks(int fd, int whole)
{
	struct flock lock = { .l_type = F_WRLCK, .l_start = 10, .l_len = 5 };
	if (fcntl(fd, F_SETLK, &lock) || flock(whole, LOCK_EX | LOCK_NB)) return 1;
	wait_term();
	return 13;
}

/* A mutex that is held by a thread which ends without giving it back. */
static pthread_mutex_t robust;
static void *holder(void *arg) { (void)arg; pthread_mutex_lock(&robust); while (!term) usleep(1000); return 0; }

static int timers(void)
{
	struct sigaction act = { .sa_sigaction = on_timer, .sa_flags = SA_SIGINFO };
	sigaction(SIGRTMIN + 5, &act, 0);
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 5, .sigev_value.sival_int = 4712 };
	struct itimerspec soon = { { 0, 10000000 }, { 0, 10000000 } };
	timer_t id;
	if (timer_create(CLOCK_MONOTONIC, &event, &id) || timer_settime(id, 0, &soon, 0)) return 1;
	wait_term();
	value = 0;
	for (int i = 0; i < 100000 && !value; i++) usleep(1000);
	return value == 4712 ? 14 : 2;
}

int main(void)
{
	setsid();
	signal(SIGTERM, on_term);
	sigset_t block; sigemptyset(&block); sigaddset(&block, SIGTERM); sigprocmask(SIG_BLOCK, &block, 0);
	char stack[16384] __attribute__((aligned(16)));
	int file = open("locked", O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0600), ofd = open("ofd", O_RDWR | O_CREAT, 0600);
	CHECK(write(file, "0123456789abcdefghij", 20) == 20);
	struct flock lock = { .l_type = F_WRLCK, .l_start = 3, .l_len = 4 };
	CHECK(fcntl(ofd, F_OFD_SETLK, &lock) == 0);
	/* memory of several kinds */
	int mem = memfd_create("mapped", 0);
	CHECK(ftruncate(mem, 8192) == 0);
	char *memory = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, mem, 0);
	close(mem);
	strcpy(memory + 4096, "memfd");
	int gone = open("mapped and gone", O_RDWR | O_CREAT | O_TRUNC, 0600);
	CHECK(ftruncate(gone, 4096) == 0 && unlink("mapped and gone") == 0);
	char *ghost = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, gone, 0);
	close(gone);
	strcpy(ghost, "ghost");
	char *wiped = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(madvise(wiped, 4096, MADV_WIPEONFORK) == 0);
	strcpy(wiped, "wiped");
	char *gap = mmap(0, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	strcpy(gap + 8192, "behind the gap");
	munmap(gap + 4096, 4096);
	char *cow = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	strcpy(cow, "before"); strcpy(cow + 4096, "before");
	mkdir("directory", 0700);
	CHECK(chdir("directory") == 0);
	/* children */
	pid_t pid[6];
	pid[0] = clone(shares, stack + sizeof stack, CLONE_FILES | SIGCHLD, 0);
	if (!(pid[1] = fork())) _exit(lacks());
	if (!(pid[2] = fork())) _exit(locks(open("../locked", O_RDWR), open("../ofd", O_RDONLY)));
	if (!(pid[3] = fork())) _exit(timers());
	if (!(pid[4] = fork())) { raise(SIGSTOP); wait_term(); _exit(15); }
	if (!(pid[5] = fork())) {
		strcpy(cow + 4096, "after");
		strcpy(wiped, "again");
		if (fork() == 0) { wait_term(); _exit(strcmp(wiped, "") || strcmp(cow + 4096, "after")); }
		wait_term();
		int status;
		kill(0, 0); wait(&status);
		_exit(status == 0 && !strcmp(cow, "before") && !strcmp(cow + 4096, "after") && !strcmp(memory + 4096, "memfd") ? 16 : 1);
	}
	siginfo_t info;
	CHECK(waitid(P_PID, pid[4], &info, WSTOPPED | WNOWAIT) == 0);
	pthread_mutexattr_t attr; pthread_mutexattr_init(&attr); pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&robust, &attr);
	pthread_t thread;
	pthread_create(&thread, 0, holder, 0);
	usleep(100000);
	printf("ready\n"); fflush(stdout);

	wait_term();

	signal(SIGTERM, SIG_IGN);
	CHECK(kill(pid[4], SIGCONT) == 0);
	CHECK(kill(0, SIGTERM) == 0);
	for (int i = 0; i < 6; i++) {
		int status;
		if (i == 2) {
			struct flock held = { .l_type = F_WRLCK, .l_start = 10, .l_len = 5 }, own = { .l_type = F_WRLCK, .l_start = 3, .l_len = 4 };
			CHECK(fcntl(file, F_GETLK, &held) == 0 && (held.l_type == F_UNLCK || held.l_pid == pid[2]));
			int other = open("../ofd", O_RDWR);
			CHECK(fcntl(other, F_OFD_GETLK, &own) == 0 && own.l_type == F_WRLCK && own.l_start == 3 && own.l_len == 4);
		}
		CHECK(waitpid(pid[i], &status, 0) == pid[i] && WIFEXITED(status) && WEXITSTATUS(status) == 11 + i);
	}
	CHECK(fcntl(77, F_GETFD) == 0);
	CHECK(!strcmp(memory + 4096, "memfd") && !strcmp(ghost, "ghost") && !strcmp(wiped, "wiped"));
	CHECK(!strcmp(gap + 8192, "behind the gap") && mmap(gap + 4096, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == gap + 4096);
	CHECK(!strcmp(cow, "before") && !strcmp(cow + 4096, "before"));
	pthread_join(thread, 0);
	CHECK(pthread_mutex_lock(&robust) == EOWNERDEAD);
	CHECK((fcntl(file, F_GETFL) & O_APPEND) && write(file, "k", 1) == 1 && lseek(file, 0, SEEK_CUR) == 21);
	char name[4096];
	CHECK(getcwd(name, sizeof name) && !strcmp(strrchr(name, '/'), "/directory"));
	printf(bad ? "%d faults\n" : "ok\n", bad); fflush(stdout);
	return bad;
}
