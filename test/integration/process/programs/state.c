/* state: builds up state of all kinds, says "ready", and on SIGTERM says what of it is not as it was; "ok" if all is. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static int bad;
#define CHECK(what) do { if (!(what)) { printf("not as it was: %s (line %d, errno %d)\n", #what, __LINE__, errno); bad++; } } while (0)

static volatile sig_atomic_t term, alarms;
static void on_term(int s) { (void)s; term = 1; }
static void on_alarm(int s) { (void)s; alarms++; }
static double now(clockid_t c) { struct timespec t; clock_gettime(c, &t); return t.tv_sec + t.tv_nsec / 1e9; }

int main(void)
{
	setsid();
	/* memory */
	const size_t size = 1 << 20;
	uint32_t *heap = malloc(size);
	for (size_t i = 0; i < size / 4; i++) heap[i] = i * 2654435761u;
	char *hidden = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	strcpy(hidden, "behind PROT_NONE");
	mprotect(hidden, 8192, PROT_NONE);
	char *shared = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	strcpy(shared + 20000, "shared");
	int map = open("mapped", O_RDWR | O_CREAT | O_TRUNC, 0600);
	CHECK(write(map, "first page", 10) == 10 && ftruncate(map, 12288) == 0);
	char *cow = mmap(0, 12288, PROT_READ | PROT_WRITE, MAP_PRIVATE, map, 0);
	strcpy(cow + 4096, "copied on write");
	char *through = mmap(0, 12288, PROT_READ | PROT_WRITE, MAP_SHARED, map, 0);
	strcpy(through + 8192, "written through");
	char *locked = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(mlock(locked, 4096) == 0);
	/* files */
	int file = open("file", O_RDWR | O_CREAT | O_TRUNC, 0644);
	CHECK(write(file, "0123456789", 10) == 10 && lseek(file, 4, SEEK_SET) == 4);
	int twin = dup(file), other = open("file", O_RDONLY | O_CLOEXEC);
	int gone = open("gone", O_RDWR | O_CREAT | O_TRUNC, 0640);
	CHECK(write(gone, "deleted but open", 16) == 16 && unlink("gone") == 0);
	int dir = open(".", O_RDONLY | O_DIRECTORY), at = open("file", O_PATH);
	int null = open("/dev/null", O_RDWR), zero = open("/dev/zero", O_RDONLY);
	mkdir("sub", 0700);
	CHECK(chdir("sub") == 0);
	umask(027);
	/* descriptors of other kinds */
	int p[2], q[2];
	CHECK(pipe2(p, O_NONBLOCK) == 0 && pipe(q) == 0 && write(p[1], "in the pipe", 11) == 11);
	fcntl(q[1], F_SETPIPE_SZ, 262144);
	int ev = eventfd(41, EFD_NONBLOCK), sem = eventfd(2, EFD_SEMAPHORE);
	sigset_t usr; sigemptyset(&usr); sigaddset(&usr, SIGUSR2);
	int sig = signalfd(-1, &usr, SFD_NONBLOCK);
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	struct itimerspec far = { { 7, 5 }, { 100000, 0 } };
	timerfd_settime(timer, 0, &far, 0);
	/* one that has gone off, will again, and has not been read */
	int again = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	struct itimerspec often = { { 100000, 0 }, { 0, 1000 } };
	timerfd_settime(again, 0, &often, 0);
	int ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event e = { EPOLLIN, { .u64 = 0x1122334455667788 } };
	CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, ev, &e) == 0);
	int mem = memfd_create("a name", MFD_ALLOW_SEALING);
	CHECK(write(mem, "in memory", 9) == 9 && fcntl(mem, F_ADD_SEALS, F_SEAL_GROW) == 0);
	mkfifo("fifo", 0600);
	int fifo = open("fifo", O_RDWR);
	CHECK(write(fifo, "in the fifo", 11) == 11);
	/* signals and timers */
	struct sigaction sa = { .sa_handler = on_term, .sa_flags = SA_RESTART }, sb;
	sigaddset(&sa.sa_mask, SIGHUP);
	sigaction(SIGTERM, &sa, 0);
	signal(SIGTRAP, SIG_IGN);
	signal(SIGALRM, on_alarm);
	stack_t alt = { .ss_sp = malloc(65536), .ss_size = 65536 }, alt2;
	sigaltstack(&alt, 0);
	sigset_t block, pending; sigemptyset(&block); sigaddset(&block, SIGRTMIN + 3); sigaddset(&block, SIGUSR1);
	sigprocmask(SIG_BLOCK, &block, 0);
	union sigval v = { .sival_int = 4711 };
	sigqueue(getpid(), SIGRTMIN + 3, v); v.sival_int++; sigqueue(getpid(), SIGRTMIN + 3, v);
	kill(getpid(), SIGUSR1);
	struct itimerval it = { { 0, 20000 }, { 0, 20000 } };
	setitimer(ITIMER_REAL, &it, 0);
	timer_t t0, t1; struct sigevent se = { .sigev_notify = SIGEV_NONE };
	timer_create(CLOCK_MONOTONIC, &se, &t0); timer_create(CLOCK_MONOTONIC, &se, &t1); timer_delete(t0);
	timer_settime(t1, 0, &far, 0);
	/* the rest */
	struct rlimit lim = { 200, 300 }; setrlimit(RLIMIT_NOFILE, &lim);
	prctl(PR_SET_NAME, "a (name) x"); prctl(PR_SET_CHILD_SUBREAPER, 1); prctl(PR_SET_PDEATHSIG, SIGWINCH);
	pid_t pid = getpid(), ppid_group = getpgrp();
	char exe[4096] = "", exe2[4096] = ""; CHECK(readlink("/proc/self/exe", exe, 4095) > 0);
	double mono = now(CLOCK_MONOTONIC), longest = 0, left;
	volatile double x = 1.0 / 3;
	printf("ready\n"); fflush(stdout);

	while (!term) {
		struct timespec ts = { 0, 5000000 };
		nanosleep(&ts, 0);
		double t = now(CLOCK_MONOTONIC);
		if (t - mono > longest) longest = t - mono;
		if (t < mono) bad++;
		mono = t;
	}

	/* however short the time was until SIGTERM: the interval timer goes on */
	const int before = alarms;
	for (double end = now(CLOCK_MONOTONIC) + 300; alarms < before + 2 && now(CLOCK_MONOTONIC) < end;) usleep(1000);
	CHECK(alarms >= before + 2);
	setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, 0);
	char buf[64];
	for (size_t i = 0; i < size / 4; i++) if (heap[i] != (uint32_t)i * 2654435761u) { CHECK(!"heap"); break; }
	CHECK(mprotect(hidden, 8192, PROT_READ) == 0 && !strcmp(hidden, "behind PROT_NONE"));
	CHECK(!strcmp(shared + 20000, "shared") && shared[0] == 0);
	CHECK(!memcmp(cow, "first page", 10) && !strcmp(cow + 4096, "copied on write"));
	CHECK(!strcmp(through + 8192, "written through") && pread(map, buf, 15, 8192) == 15 && !memcmp(buf, "written through", 15));
	CHECK(pread(map, buf, 1, 4096) == 1 && buf[0] == 0);
	CHECK(read(twin, buf, 3) == 3 && !memcmp(buf, "456", 3) && lseek(file, 0, SEEK_CUR) == 7);
	CHECK(lseek(other, 0, SEEK_CUR) == 0 && fcntl(other, F_GETFD) == FD_CLOEXEC && fcntl(twin, F_GETFD) == 0);
	CHECK(pread(gone, buf, 64, 0) == 16 && !memcmp(buf, "deleted but open", 16) && access("../gone", F_OK) < 0);
	struct stat st, st2; CHECK(fstat(gone, &st) == 0 && st.st_nlink == 0 && (st.st_mode & 0777) == 0640);
	CHECK(fstat(dir, &st) == 0 && stat("..", &st2) == 0 && st.st_ino == st2.st_ino);
	CHECK(fcntl(at, F_GETFL) & O_PATH); CHECK(write(null, "x", 1) == 1 && read(zero, buf, 1) == 1 && buf[0] == 0);
	CHECK(umask(0) == 027);
	CHECK(read(p[0], buf, 64) == 11 && !memcmp(buf, "in the pipe", 11) && read(p[0], buf, 1) < 0 && errno == EAGAIN);
	CHECK(fcntl(q[0], F_GETPIPE_SZ) == 262144 && write(q[1], "y", 1) == 1 && read(q[0], buf, 64) == 1);
	struct epoll_event got[4]; CHECK(epoll_wait(ep, got, 4, 0) == 1 && got[0].data.u64 == 0x1122334455667788);
	uint64_t n; CHECK(read(ev, &n, 8) == 8 && n == 41); CHECK(epoll_wait(ep, got, 4, 0) == 0);
	CHECK(read(sem, &n, 8) == 8 && n == 1);
	sigprocmask(SIG_BLOCK, &usr, 0); kill(getpid(), SIGUSR2);
	struct signalfd_siginfo si; CHECK(read(sig, &si, sizeof si) == sizeof si && si.ssi_signo == SIGUSR2);
	CHECK(timerfd_gettime(timer, &far) == 0 && far.it_interval.tv_sec == 7 && far.it_value.tv_sec > 90000 && far.it_value.tv_sec < 100000);
	CHECK(timerfd_gettime(again, &often) == 0 && often.it_interval.tv_sec == 100000 && often.it_value.tv_sec > 90000);
	CHECK(read(again, &n, 8) == 8 && n == 1);
	CHECK(pread(mem, buf, 64, 0) == 9 && !memcmp(buf, "in memory", 9) && fcntl(mem, F_GET_SEALS) == F_SEAL_GROW);
	CHECK(read(fifo, buf, 64) == 11 && !memcmp(buf, "in the fifo", 11));
	CHECK(sigaction(SIGTERM, 0, &sb) == 0 && sb.sa_handler == on_term && (sb.sa_flags & SA_RESTART) && sigismember(&sb.sa_mask, SIGHUP));
	CHECK(signal(SIGTRAP, SIG_DFL) == SIG_IGN);
	CHECK(sigaltstack(0, &alt2) == 0 && alt2.ss_sp == alt.ss_sp && alt2.ss_size == 65536);
	CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1));
	siginfo_t info; struct timespec zero_time = { 0, 0 }; sigset_t rt; sigemptyset(&rt); sigaddset(&rt, SIGRTMIN + 3);
	CHECK(sigtimedwait(&rt, &info, &zero_time) > 0 && info.si_value.sival_int == 4711 && info.si_code == SI_QUEUE && info.si_pid == pid);
	CHECK(sigtimedwait(&rt, &info, &zero_time) > 0 && info.si_value.sival_int == 4712);
	CHECK(timer_gettime(t1, &far) == 0 && far.it_interval.tv_sec == 7 && far.it_value.tv_sec > 90000);
	CHECK(getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur == 200 && lim.rlim_max == 300);
	CHECK(prctl(PR_GET_NAME, buf) == 0 && !strcmp(buf, "a (name) x"));
	int value; CHECK(prctl(PR_GET_CHILD_SUBREAPER, &value) == 0 && value == 1);
	CHECK(getpid() == pid && getpgrp() == ppid_group && getsid(0) == pid);
	CHECK(readlink("/proc/self/exe", exe2, 4095) > 0 && !strcmp(exe, exe2));
	CHECK(getcwd(exe2, 4095) && !strcmp(exe2 + strlen(exe2) - 4, "/sub"));
	CHECK(sbrk(4096) != (void *)-1); CHECK(x == 1.0 / 3);
	/* More than any move takes, and less than what lies between the clocks of two machines. */
	left = longest; if (left > 3600) { printf("the monotonic clock jumped by %f s\n", left); bad++; }
	printf(bad ? "%d faults\n" : "ok\n", bad); fflush(stdout);
	return bad;
}
