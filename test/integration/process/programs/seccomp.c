/* Filters on system calls: one of all, a second one of a thread, a child in strict mode. Checks them on SIGTERM. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int bad;
#define CHECK(what) do { if (!(what)) { printf("not as it was: %s (line %d, errno %d)\n", #what, __LINE__, errno); bad++; } } while (0)
static volatile sig_atomic_t term;
static void on_term(int s) { (void)s; term = 1; }
/* SIGTERM is for this thread alone, and comes to it nowhere else. */
static void wait_term(void) { sigset_t none; sigemptyset(&none); while (!term) sigsuspend(&none); }
static pthread_barrier_t up, down, both;

/* Lets a call fail with an error. */
static int forbid(int nr, int error, int flags)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { 4, code };
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}
static int fails(int nr, int error) { return syscall(nr, 0, 0, 0, 0, 0, 0) < 0 && errno == error; }

/* The filter that it has in common with the others is the very same: so one of them can give it another one. */
static void *follower(void *arg)
{
	(void)arg;
	pthread_barrier_wait(&both); pthread_barrier_wait(&both);
	CHECK(fails(SYS_getgid, 66));
	return 0;
}

static void *thread(void *arg)
{
	(void)arg;
	CHECK(forbid(SYS_getppid, 77, 0) == 0 && forbid(SYS_munmap, 78, 0) == 0 && forbid(SYS_mmap, 79, 0) == 0);
	pthread_barrier_wait(&up); pthread_barrier_wait(&down);
	CHECK(fails(SYS_getppid, 77) && fails(SYS_getuid, 99) && fails(SYS_munmap, 78) && fails(SYS_mmap, 79));
	return 0;
}

int main(void)
{
	pthread_t t, t2;
	int status, order[2];
	setsid();
	signal(SIGTERM, on_term);
	sigset_t block; sigemptyset(&block); sigaddset(&block, SIGTERM); sigprocmask(SIG_BLOCK, &block, 0);
	pthread_barrier_init(&up, 0, 2); pthread_barrier_init(&down, 0, 2); pthread_barrier_init(&both, 0, 2);
	CHECK(pipe(order) == 0);
	pid_t strict = fork();
	if (!strict) {
		char byte = 0;
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
		while (read(order[0], &byte, 1) < 0);
		if (byte == 'x') syscall(SYS_getpid);
		syscall(SYS_exit, 9);
	}
	CHECK(forbid(SYS_getuid, 99, 0) == 0);
	pthread_create(&t2, 0, follower, 0);
	pthread_create(&t, 0, thread, 0);
	pthread_barrier_wait(&up);
	usleep(50000);
	printf("ready\n"); fflush(stdout);
	wait_term();
	CHECK(fails(SYS_getuid, 99) && syscall(SYS_getppid) > 0);
	CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0);
	pthread_barrier_wait(&down);
	pthread_join(t, 0);
	pthread_barrier_wait(&both);
	CHECK(forbid(SYS_getgid, 66, SECCOMP_FILTER_FLAG_TSYNC) == 0);
	pthread_barrier_wait(&both);
	pthread_join(t2, 0);
	CHECK(write(order[1], "x", 1) == 1 && waitpid(strict, &status, 0) == strict && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	printf(bad ? "%d faults\n" : "ok\n", bad); fflush(stdout);
	return bad;
}
