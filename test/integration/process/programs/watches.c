/* inotify, leases and pidfd: of files, a deleted one beside, of a child, a zombie, itself and one that is gone. Checks them on SIGTERM. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int bad;
#define CHECK(what) do { if (!(what)) { printf("not as it was: %s (line %d, errno %d)\n", #what, __LINE__, errno); bad++; } } while (0)
static volatile sig_atomic_t term;
static void on_term(int s) { (void)s; term = 1; }
static volatile sig_atomic_t broken, broken_fd;
static void on_break(int s, siginfo_t *info, void *c) { (void)s; (void)c; broken++; broken_fd = info->si_fd; }
static int lease(const char *name, int flags, int type)
{
	int fd = open(name, flags | O_CREAT, 0600);
	CHECK(fcntl(fd, F_SETLEASE, type) == 0 && fcntl(fd, F_SETSIG, SIGRTMIN + 1) == 0);
	return fd;
}
static int is_held(const char *name, int flags) { return open(name, flags | O_NONBLOCK) < 0 && errno == EAGAIN; }
static int open_pid(pid_t pid, int flags) { return syscall(SYS_pidfd_open, pid, flags); }
static int of(int fd)
{
	char path[64], line[256]; int pid = -2;
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
	FILE *f = fopen(path, "r");
	while (fgets(line, sizeof line, f)) sscanf(line, "Pid:\t%d", &pid);
	fclose(f);
	return pid;
}

int main(void)
{
	char buffer[4096];
	setsid();
	signal(SIGTERM, on_term);
	mkdir("watched", 0700);
	close(open("watched/file", O_CREAT | O_WRONLY, 0600));
	CHECK(symlink("file", "watched/link") == 0);
	int gone_file = open("gone", O_CREAT | O_RDWR, 0600);
	unlink("gone");
	int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	int first = inotify_add_watch(watch, "/", IN_MODIFY);
	int dir = inotify_add_watch(watch, "watched", IN_ALL_EVENTS), file = inotify_add_watch(watch, "watched/file", IN_CLOSE_WRITE);
	int link = inotify_add_watch(watch, "watched/link", IN_ATTRIB | IN_DONT_FOLLOW);
	CHECK(inotify_rm_watch(watch, first) == 0);
	while (read(watch, buffer, sizeof buffer) > 0);
	pid_t child = fork();
	if (!child) for (;;) pause();
	pid_t zombie = fork();
	if (!zombie) _exit(3);
	pid_t gone = fork();
	if (!gone) _exit(4);
	int self = open_pid(getpid(), 0), kid = open_pid(child, 04000), dead = open_pid(zombie, 0), lost = open_pid(gone, 0), lost2 = open_pid(gone, 0);
	siginfo_t info;
	waitid(P_PID, zombie, &info, WEXITED | WNOWAIT);
	waitpid(gone, 0, 0);
	CHECK(of(lost) == -1);
	struct sigaction act = { .sa_sigaction = on_break, .sa_flags = SA_SIGINFO };
	sigaction(SIGRTMIN + 1, &act, 0);
	CHECK(symlink("nowhere", "lost link") == 0);
	int alias = open("watched/link", O_PATH | O_NOFOLLOW), lost_alias = open("lost link", O_PATH | O_NOFOLLOW);
	CHECK(alias >= 0 && lost_alias >= 0 && unlink("lost link") == 0);
	int leased = lease("leased", O_RDONLY, F_RDLCK), down = lease("down", O_RDONLY, F_WRLCK), lost_lease = lease("lost lease", O_RDONLY, F_RDLCK);
	CHECK(is_held("down", O_RDONLY) && broken == 1 && broken_fd == down && is_held("lost lease", O_WRONLY) && broken == 2);
	printf("ready\n"); fflush(stdout);
	while (!term) pause();

	CHECK(broken == 2 && fcntl(leased, F_GETLEASE) == F_RDLCK && fcntl(down, F_GETLEASE) == F_RDLCK && fcntl(lost_lease, F_GETLEASE) == F_UNLCK);
	CHECK(fcntl(leased, F_GETOWN) == getpid() && fcntl(down, F_GETOWN) == getpid() && fcntl(lost_lease, F_GETSIG) == SIGRTMIN + 1);
	CHECK(readlinkat(alias, "", buffer, 64) == 4 && !memcmp(buffer, "file", 4) && readlinkat(lost_alias, "", buffer, 64) == 7 && !memcmp(buffer, "nowhere", 7));
	CHECK(access("lost link", F_OK) < 0 && (fcntl(lost_alias, F_GETFL) & O_PATH));
	CHECK(is_held("leased", O_WRONLY) && broken == 3 && broken_fd == leased && is_held("lost lease", O_RDWR));
	CHECK(fcntl(down, F_SETLEASE, F_RDLCK) == 0 && fcntl(lost_lease, F_SETLEASE, F_UNLCK) == 0);
	int reader = open("down", O_RDONLY | O_NONBLOCK), writer = open("lost lease", O_WRONLY | O_NONBLOCK);
	CHECK(reader >= 0 && writer >= 0);

	CHECK(read(watch, buffer, sizeof buffer) < 0 && errno == EAGAIN);
	int fd = open("watched/file", O_WRONLY);
	struct inotify_event *event = (void *)buffer;
	CHECK(read(watch, buffer, sizeof buffer) > 0 && event->wd == dir && event->mask == IN_OPEN && !strcmp(event->name, "file"));
	close(fd);
	ssize_t size = read(watch, buffer, sizeof buffer);
	int seen = 0;
	for (char *at = buffer; at < buffer + size; at += sizeof *event + event->len) { event = (void *)at; seen += event->wd == file && event->mask == IN_CLOSE_WRITE; }
	CHECK(seen == 1);
	CHECK(fchmodat(AT_FDCWD, "watched/file", 0640, 0) == 0);
	while ((size = read(watch, buffer, sizeof buffer)) > 0) for (char *at = buffer; at < buffer + size; at += sizeof *event + event->len) { event = (void *)at; CHECK(event->wd == dir); }
	CHECK(lchown("watched/link", 1, 1) == 0);
	seen = 0;
	while ((size = read(watch, buffer, sizeof buffer)) > 0) for (char *at = buffer; at < buffer + size; at += sizeof *event + event->len) { event = (void *)at; seen += event->wd == link; }
	CHECK(seen == 1 && fcntl(watch, F_GETFD) == FD_CLOEXEC && inotify_add_watch(watch, ".", IN_MODIFY) == link + 1);
	CHECK(write(gone_file, "x", 1) == 1);

	CHECK(of(self) == getpid() && of(kid) == child && of(dead) == zombie && of(lost) == -1 && of(lost2) == -1);
	struct stat a, b;
	CHECK(fstat(lost, &a) == 0 && fstat(lost2, &b) == 0 && a.st_ino == b.st_ino);
	struct pollfd p[4] = { { self, POLLIN, 0 }, { kid, POLLIN, 0 }, { dead, POLLIN, 0 }, { lost, POLLIN, 0 } };
	CHECK(poll(p, 4, 0) == 2 && p[0].revents == 0 && p[1].revents == 0 && (p[2].revents & POLLIN) && (p[3].revents & POLLIN));
	CHECK(syscall(SYS_pidfd_send_signal, lost, 0, 0, 0) < 0 && errno == ESRCH && (fcntl(kid, F_GETFL) & O_NONBLOCK));
	CHECK(syscall(SYS_pidfd_send_signal, kid, SIGKILL, 0, 0) == 0);
	CHECK(waitid(P_PIDFD, kid, &info, WEXITED) < 0 ? errno == EAGAIN : info.si_pid == child);
	while (waitpid(child, 0, 0) == child);
	CHECK(waitid(P_PIDFD, dead, &info, WEXITED) == 0 && info.si_pid == zombie && info.si_status == 3);
	printf(bad ? "%d faults\n" : "ok\n", bad); fflush(stdout);
	return bad;
}
