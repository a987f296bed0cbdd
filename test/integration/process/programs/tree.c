/*
 * tree N THREADS: a parent with N children and THREADS threads in the parent; one zombie; one child in a session of its own
 * with a child that was born before; a descriptor and memory that all share. On SIGTERM checks all of it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int bad;
#define CHECK(what) do { if (!(what)) { printf("not as it was: %s (line %d, errno %d)\n", #what, __LINE__, errno); bad++; } } while (0)
static volatile sig_atomic_t term;
static void on_term(int s) { (void)s; term = 1; }
static atomic_int *shared;
static __thread int own;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int go, up;

static void *thread(void *arg)
{
	char name[16], seen[16];
	sigset_t mask, set;
	own = (int)(long)arg;
	pid_t tid = syscall(SYS_gettid);
	snprintf(name, sizeof name, "thread %d", own);
	prctl(PR_SET_NAME, name);
	sigemptyset(&mask); sigaddset(&mask, SIGRTMIN + 1 + own % 20); sigaddset(&mask, SIGTERM);
	pthread_sigmask(SIG_SETMASK, &mask, 0);
	pthread_mutex_lock(&mutex);
	up++;
	while (!go) pthread_cond_wait(&cond, &mutex);
	pthread_mutex_unlock(&mutex);
	prctl(PR_GET_NAME, seen);
	pthread_sigmask(SIG_SETMASK, 0, &set);
	return (void *)(long)(own == (int)(long)arg && !strcmp(seen, name) && tid == syscall(SYS_gettid) &&
			      sigismember(&set, SIGRTMIN + 1 + own % 20) && !sigismember(&set, SIGUSR1));
}

int main(int c, char **v)
{
	int n = c > 1 ? atoi(v[1]) : 3, threads = c > 2 ? atoi(v[2]) : 0, status;
	pid_t kids[1024], pid, zombie, leader;
	pthread_t t[1024];
	setsid();
	signal(SIGTERM, on_term);
	shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int file = open("counted", O_RDWR | O_CREAT | O_TRUNC, 0600);
	CHECK(write(file, "abcdefghij", 10) == 10 && lseek(file, 0, SEEK_SET) == 0);
	pid = getpid();
	for (int i = 0; i < n; i++) {
		kids[i] = fork();
		if (kids[i]) continue;
		char letter;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (i == 1) setpgid(0, 0);
		atomic_fetch_add(shared, 1);
		while (!term) pause();
		if (getppid() != pid || getsid(0) != pid || getpgrp() != (i == 1 ? getpid() : pid)) _exit(1);
		if (i < 5 && read(file, &letter, 1) != 1) _exit(2);
		atomic_fetch_add(shared, 1000);
		_exit(10 + i % 100);
	}
	if (!(zombie = fork())) _exit(77);
	if (!(leader = fork())) {
		pid_t before = fork();
		if (!before) { while (!term) pause(); _exit(getsid(0) == pid ? 5 : 6); }
		setsid();
		pid_t after = fork();
		if (!after) { while (!term) pause(); _exit(getsid(0) == getppid() ? 7 : 8); }
		atomic_fetch_add(shared, 1);
		while (!term) pause();
		kill(before, SIGTERM); kill(after, SIGTERM);
		int a, b;
		waitpid(before, &a, 0); waitpid(after, &b, 0);
		_exit(WEXITSTATUS(a) * 10 + WEXITSTATUS(b));
	}
	for (int i = 0; i < threads; i++) CHECK(pthread_create(&t[i], 0, thread, (void *)(long)(i + 1)) == 0);
	for (;;) { pthread_mutex_lock(&mutex); int k = up; pthread_mutex_unlock(&mutex); if (k == threads && atomic_load(shared) == n + 1) break; usleep(1000); }
	siginfo_t info;
	waitid(P_PID, zombie, &info, WEXITED | WNOWAIT);
	printf("ready\n"); fflush(stdout);

	while (!term) pause();

	for (int i = 0; i < n; i++) {
		CHECK(kill(kids[i], SIGTERM) == 0);
		CHECK(waitpid(kids[i], &status, 0) == kids[i]);
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 10 + i % 100);
	}
	CHECK(atomic_load(shared) == n + 1 + 1000 * n);
	CHECK(lseek(file, 0, SEEK_CUR) == (n < 5 ? n : 5));
	CHECK(waitpid(zombie, &status, 0) == zombie && WIFEXITED(status) && WEXITSTATUS(status) == 77);
	kill(leader, SIGTERM);
	CHECK(waitpid(leader, &status, 0) == leader && WIFEXITED(status) && WEXITSTATUS(status) == 57);
	pthread_mutex_lock(&mutex); go = 1; pthread_cond_broadcast(&cond); pthread_mutex_unlock(&mutex);
	for (int i = 0; i < threads; i++) { void *fine; CHECK(pthread_join(t[i], &fine) == 0 && fine); }
	printf(bad ? "%d faults\n" : "ok\n", bad); fflush(stdout);
	return bad;
}
