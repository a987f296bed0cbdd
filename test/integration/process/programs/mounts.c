/*
 * A tree with a mount namespace: the letters of the first argument say what is in it (p a PID namespace too with its /proc, t tmpfs with
 * files, b bind mounts, s mounts that share what is mounted in them, r a root directory of its own, d one on the disk, with the
 * program itself in it, which has to be static). Prints the id of its init, whose
 * parent goes. On SIGTERM says what is not as it was.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int bad;
#define CHECK(what) do { if (!(what)) { printf("not as it was: %s (line %d, errno %d)\n", #what, __LINE__, errno); bad++; } } while (0)
static volatile sig_atomic_t term;
static void on_term(int s) { (void)s; term = 1; }
static char letters[32];
#define HAS(letter) (strchr(letters, letter) != 0)
#define MAX 200

static struct line { int id, parent, shared, master, device; char what[1024], at[256], source[300]; } lines[MAX];
static int by_place(const void *a, const void *b)
{
	const struct line *x = a, *y = b;
	int at = strcmp(x->at, y->at);
	return at ? at : strcmp(x->what, y->what);
}

/* The mounts that paths lead to, without numbers that are new every time: those stand by the place where they are seen first. */
static void look(char *text, size_t size)
{
	FILE *file = fopen("/proc/thread-self/mountinfo", "r");
	char line[4096], root[512], options[256], type[64], source[512], super[1024];
	int n = 0;
	CHECK(file);
	while (file && n < MAX && fgets(line, sizeof line, file)) {
		struct line *each = &lines[n];
		struct statx found;
		int major, minor, used;
		CHECK(sscanf(line, "%d %d %d:%d %511s %255s %255s%n", &each->id, &each->parent, &major, &minor, root, each->at, options, &used) == 7);
		char *shared = strstr(line, " shared:"), *master = strstr(line, " master:"), *rest = strstr(line + used, " - ");
		each->shared = shared && shared < rest ? atoi(shared + 8) : 0;
		each->master = master && master < rest ? atoi(master + 8) : 0;
		each->device = major << 20 | minor;
		*super = 0;
		if (sscanf(rest + 3, "%63s %511s %1023s", type, source, super) != 3) strcpy(source, "");
		if (statx(AT_FDCWD, each->at, AT_NO_AUTOMOUNT, 0x1000, &found) || (int)found.stx_mnt_id != each->id) continue;
		snprintf(each->what, sizeof each->what, "%.300s %.200s %s %.200s %.200s%s", root, options, type, source, super, strstr(line, " unbindable") ? " unbindable" : "");
		n++;
	}
	if (file) fclose(file);
	qsort(lines, n, sizeof *lines, by_place);
	char *to = text;
	for (int i = 0; i < n; i++) {
		int device = i, shared = i, master = i;
		for (int j = i; j >= 0; j--) {
			if (lines[j].device == lines[i].device) device = j;
			if (lines[j].shared == lines[i].shared) shared = j;
		}
		for (int j = n - 1; j >= 0; j--) if (lines[i].master && lines[j].shared == lines[i].master) master = j;
		to += snprintf(to, text + size - to, "%s %s device %d shared %d master %d%s\n", lines[i].at, lines[i].what, device, lines[i].shared ? shared : -1, master,
			lines[i].master ? " slave" : "");
	}
}

static void put(const char *path, const char *text, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && fchmod(fd, mode) == 0 && close(fd) == 0);
}

static int is(const char *path, const char *text)
{
	char found[256] = "";
	int fd = open(path, O_RDONLY);
	int length = read(fd, found, sizeof found - 1);
	close(fd);
	return length == (int)strlen(text) && !memcmp(found, text, length);
}

static char *cat(const char *a, const char *b)
{
	char *all = malloc(strlen(a) + strlen(b) + 1);
	return strcat(strcpy(all, a), b);
}

static char before[1 << 18], after[1 << 18], pty[64], *memory;
static int master = -1, slave = -1, bound = -1, inotify = -1, listening = -1;

static void make_root(void)
{
	CHECK(mkdir("root", 0755) == 0);
	if (HAS('d')) CHECK(mount("root", "root", 0, MS_BIND, 0) == 0 && system("cp /proc/$PPID/exe root/mounts") == 0);
	else CHECK(mount("jail", "root", "tmpfs", 0, "size=8m,mode=755") == 0);
	CHECK(system("cd root && mkdir old proc usr bin lib lib64 etc dev sys work tmp && ln -s /work work/self") == 0);
	if (HAS('r')) {
		CHECK(mount("/usr", "root/usr", 0, MS_BIND | MS_REC, 0) == 0 && mount(0, "root/usr", 0, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID, 0) == 0);
		for (int i = 0; i < 3; i++) {
			char line[200];
			const char *name = (const char *[]){ "bin", "lib", "lib64" }[i];
			snprintf(line, sizeof line, "if [ -L /%s ]; then rmdir root/%s && cp -a /%s root/%s; else mount --rbind /%s root/%s; fi", name, name, name, name, name, name);
			CHECK(system(line) == 0);
		}
	}
	CHECK(mount("proc", "root/proc", "proc", MS_NOSUID, HAS('r') ? "hidepid=2" : 0) == 0 && mount("sysfs", "root/sys", "sysfs", MS_RDONLY, 0) == 0);
	CHECK(mount("devs", "root/dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=64k") == 0);
	CHECK(mknod("root/dev/null", S_IFCHR | 0666, 0x103) == 0 && mkdir("root/dev/pts", 0755) == 0 && mkdir("root/dev/mqueue", 0755) == 0 && symlink("pts/ptmx", "root/dev/ptmx") == 0);
	CHECK(mount("devpts", "root/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620") == 0);
	CHECK(mount("mqueue", "root/dev/mqueue", "mqueue", MS_NOEXEC, 0) == 0);
	put("root/masked", "", 0644);
	CHECK(mount("root/dev/null", "root/masked", 0, MS_BIND, 0) == 0);
	CHECK(syscall(SYS_pivot_root, "root", "root/old") == 0 && chdir("/work") == 0 && umount2("/old", MNT_DETACH) == 0);
}

/* What other tests have mounted beside, of which nothing may be left when this is restored. */
static void leave_out_others(void)
{
	char own[512] = "", *tests, *all = malloc(1 << 20), *next;
	CHECK(getcwd(own, sizeof own) && (tests = strstr(own, "/tideover-")));
	const int prefix = tests - own;
	for (int again = 1; again;) {
		int fd = open("/proc/thread-self/mountinfo", O_RDONLY), size = 0, got;
		while ((got = read(fd, all + size, (1 << 20) - 1 - size)) > 0) size += got;
		close(fd);
		all[size] = again = 0;
		for (char *line = all; *line; line = next) {
			char at[1024] = "";
			next = strchr(line, '\n') + 1;
			if (sscanf(line, "%*d %*d %*s %*s %1023s", at) != 1 || strncmp(at, own, prefix) || at[prefix] != '/') continue;
			/* Its own folder is no mount point. */
			again |= umount2(at, MNT_DETACH) == 0;
		}
	}
	free(all);
}

static int inside(void);

static int init(void)
{
	setsid();
	CHECK(mount("none", "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
	leave_out_others();
	if (HAS('p')) CHECK(mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0) == 0);
	if (HAS('r') || HAS('d')) make_root();
	if (!HAS('d')) return inside();
	// Nothing of outside stays open.
	int log = open("/log", O_WRONLY | O_CREAT | O_APPEND, 0644), null = open("/dev/null", O_RDWR);
	CHECK(null >= 0 && dup2(null, 0) == 0 && dup2(log, 1) == 1 && dup2(log, 2) == 2 && close(log) == 0 && close(null) == 0);
	strcat(letters, "x");
	execl("/mounts", "/mounts", letters, (char *)0);
	return 1;
}

static int inside(void)
{
	int file = -1, deleted = -1, status;
	char long_name[201] = "";
	signal(SIGTERM, on_term);
	memset(long_name, 'n', 200);
	if (HAS('r') || HAS('d')) {
		master = posix_openpt(O_RDWR | O_NOCTTY);
		CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
		CHECK((slave = open(ptsname(master), O_RDWR | O_NOCTTY)) >= 0);
		strcpy(pty, ptsname(master));
	}
	int about = open("/proc/self/status", O_RDONLY);
	CHECK(about >= 0);
	if (HAS('t')) {
		CHECK(mkdir("t", 0755) == 0 && mount("files", "t", "tmpfs", MS_NODEV, "size=20m,nr_inodes=1000,mode=1770,uid=3,gid=4") == 0);
		CHECK(mkdir("t/d", 0750) == 0 && mkdir(cat("t/d/", long_name), 0700) == 0 && chown("t/d", 5, 4000000000u) == 0);
		put("t/d/file", "content", 04711);
		put(cat(cat("t/d/", long_name), "/deep"), "deep", 0600);
		CHECK(link("t/d/file", "t/hard") == 0 && symlink("../outside", "t/soft") == 0 && mkfifo("t/fifo", 0640) == 0 && mknod("t/device", S_IFCHR | 0600, 0x103) == 0);
		CHECK(truncate(cat("t/", "hard"), 0) == 0);
		put("t/d/file", "content", 04711);
		int holes = open("t/holes", O_WRONLY | O_CREAT, 0600);
		CHECK(holes >= 0 && pwrite(holes, "end", 3, 15 << 20) == 3 && close(holes) == 0);
		struct timespec times[2] = { { 1000000000, 5 }, { 1000000001, 123456789 } };
		CHECK(utimensat(AT_FDCWD, "t/d", times, 0) == 0 && utimensat(AT_FDCWD, "t/soft", times, AT_SYMLINK_NOFOLLOW) == 0);
		// Over one of its directories; the files below it are kept too.
		CHECK(mkdir("t/over", 0755) == 0);
		put("t/over/below", "below", 0600);
		CHECK(mount("small", "t/over", "tmpfs", 0, "size=16k") == 0);
		put("t/over/above", "above", 0600);
		CHECK(mkdir("sealed", 0755) == 0 && mount("sealed", "sealed", "tmpfs", 0, "size=16k") == 0);
		put("sealed/file", "sealed", 0444);
		CHECK(mount(0, "sealed", 0, MS_REMOUNT | MS_RDONLY, 0) == 0);
		CHECK((file = open("t/d/file", O_RDWR)) >= 0 && (deleted = open("t/deleted", O_RDWR | O_CREAT, 0600)) >= 0 && write(deleted, "ghost", 5) == 5 && unlink("t/deleted") == 0);
		CHECK(lseek(file, 3, SEEK_SET) == 3);
		memory = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
		CHECK(memory != MAP_FAILED);
		CHECK((inotify = inotify_init1(IN_NONBLOCK)) >= 0 && inotify_add_watch(inotify, "t/d", IN_CREATE) == 1);
		struct sockaddr_un at = { AF_UNIX, "t/socket" };
		CHECK((listening = socket(AF_UNIX, SOCK_STREAM, 0)) >= 0 && bind(listening, (void *)&at, sizeof at) == 0 && listen(listening, 1) == 0);
	}
	if (HAS('b')) {
		CHECK(mkdir("b", 0755) == 0 && mkdir("b/from", 0755) == 0 && mkdir("b/to", 0755) == 0);
		put("b/from/file", "bound", 0644);
		put("b/target", "", 0644);
		CHECK(mount("b/from", "b/to", 0, MS_BIND, 0) == 0 && mount(0, "b/to", 0, MS_BIND | MS_REMOUNT | MS_NOEXEC | MS_NOATIME | MS_RDONLY, 0) == 0);
		CHECK(mount("b/from/file", "b/target", 0, MS_BIND, 0) == 0);
		CHECK(mkdir("b/deep", 0755) == 0 && mount("deep", "b/deep", "tmpfs", 0, "size=1m") == 0 && mkdir("b/deep/sub", 0755) == 0 && mkdir("b/sub", 0755) == 0);
		put("b/deep/sub/file", "deep", 0644);
		CHECK(mount("b/deep/sub", "b/sub", 0, MS_BIND, 0) == 0);
		CHECK(mkdir("b/gone", 0755) == 0 && mkdir("b/empty", 0755) == 0 && mount("b/gone", "b/empty", 0, MS_BIND, 0) == 0 && rmdir("b/gone") == 0);
		bound = open("b/sub/file", O_RDONLY);
		CHECK(bound >= 0);
	}
	if (HAS('s')) {
		CHECK(mkdir("s", 0755) == 0 && mount("s", "s", "tmpfs", 0, 0) == 0 && mount(0, "s", 0, MS_SHARED, 0) == 0 && mkdir("peer", 0755) == 0 && mkdir("slave", 0755) == 0 && mkdir("both", 0755) == 0);
		CHECK(mkdir("s/point", 0755) == 0 && mkdir("s/other", 0755) == 0 && mkdir("unbindable", 0755) == 0);
		CHECK(mount("s", "peer", 0, MS_BIND, 0) == 0 && mount("s", "slave", 0, MS_BIND, 0) == 0 && mount(0, "slave", 0, MS_SLAVE, 0) == 0);
		CHECK(mount("slave", "both", 0, MS_BIND, 0) == 0 && mount(0, "both", 0, MS_SHARED, 0) == 0);
		CHECK(mount("none", "unbindable", "tmpfs", 0, 0) == 0 && mount(0, "unbindable", 0, MS_UNBINDABLE, 0) == 0);
		CHECK(mount("before", "s/point", "tmpfs", 0, "size=4k") == 0);
	}
	look(before, sizeof before);
	pid_t child = fork();
	if (!child) { while (1) pause(); }
	printf("ready\n"); fflush(stdout);
	while (!term) pause();

	look(after, sizeof after);
	if (strcmp(before, after)) { printf("not as it was: mounts\n%s\nnow\n%s\n", before, after); bad++; }
	char mine[64] = "", shown[4096] = "";
	CHECK(pread(about, shown, sizeof shown - 1, 0) > 0);
	snprintf(mine, sizeof mine, "\nPid:\t%d\n", getpid());
	CHECK(strstr(shown, mine));
	if (HAS('p')) {
		snprintf(mine, sizeof mine, "/proc/%d/exe", child);
		CHECK(getpid() == 1 && access(mine, F_OK) == 0);
	}
	if (HAS('r') || HAS('d')) {
		char byte;
		CHECK(getcwd(shown, sizeof shown) && !strcmp(shown, "/work") && access("self/self", F_OK) == 0 && access("/old", F_OK) == 0 && rmdir("/old") == 0);
		CHECK(write(slave, "x", 1) == 1 && read(master, &byte, 1) == 1 && byte == 'x' && !strcmp(ptsname(master), pty) && access(pty, R_OK) == 0);
		if (HAS('r')) CHECK(open("/usr/new", O_CREAT | O_WRONLY, 0600) < 0 && errno == EROFS);
		CHECK(posix_openpt(O_RDWR) >= 0);
	}
	if (HAS('t')) {
		struct stat st, other;
		CHECK(lstat("t", &st) == 0 && st.st_mode == (S_IFDIR | 01770) && st.st_uid == 3 && st.st_gid == 4);
		CHECK(lstat("t/d", &st) == 0 && st.st_mode == (S_IFDIR | 0750) && st.st_uid == 5 && st.st_gid == 4000000000u && st.st_mtim.tv_sec == 1000000001 && st.st_mtim.tv_nsec == 123456789);
		CHECK(lstat("t/d/file", &st) == 0 && st.st_mode == (S_IFREG | 04711) && st.st_nlink == 2 && lstat("t/hard", &other) == 0 && st.st_ino == other.st_ino && is("t/hard", "content"));
		CHECK(is(cat(cat("t/d/", long_name), "/deep"), "deep"));
		CHECK(readlink("t/soft", shown, 100) == 10 && lstat("t/soft", &st) == 0 && st.st_mtim.tv_nsec == 123456789 && lstat("t/fifo", &st) == 0 && st.st_mode == (S_IFIFO | 0640));
		CHECK(lstat("t/device", &st) == 0 && st.st_mode == (S_IFCHR | 0600) && st.st_rdev == 0x103);
		CHECK(lstat("t/holes", &st) == 0 && st.st_size == (15 << 20) + 3 && st.st_blocks < 100);
		CHECK(is("t/over/above", "above") && is("sealed/file", "sealed") && unlink("sealed/file") < 0 && errno == EROFS);
		CHECK(read(file, shown, 10) == 4 && !memcmp(shown, "tent", 4) && pread(deleted, shown, 10, 0) == 5 && !memcmp(shown, "ghost", 5));
		CHECK(fstat(deleted, &st) == 0 && st.st_nlink == 0 && access("t/deleted", F_OK) < 0);
		memory[0] = 'C';
		CHECK(is("t/d/file", "Content"));
		memory[0] = 'c';
		put("t/d/fresh", "", 0600);
		CHECK(read(inotify, shown, sizeof shown) > 0 && unlink("t/d/fresh") == 0);
		struct timespec times[2] = { { 1000000000, 5 }, { 1000000001, 123456789 } };
		CHECK(utimensat(AT_FDCWD, "t/d", times, 0) == 0);
		struct sockaddr_un at = { AF_UNIX, "t/socket" };
		int client = socket(AF_UNIX, SOCK_STREAM, 0);
		CHECK(connect(client, (void *)&at, sizeof at) == 0 && accept(listening, 0, 0) >= 0);
		CHECK(umount("t/over") == 0 && is("t/over/below", "below"));
	}
	if (HAS('b')) {
		CHECK(is("b/to/file", "bound") && is("b/target", "bound") && is("b/sub/file", "deep"));
		CHECK(pread(bound, shown, 10, 0) == 4);
		CHECK(access("b/empty", F_OK) == 0 && mkdir("b/empty/new", 0700) < 0 && access("b/gone", F_OK) < 0);
		put("b/deep/sub/file", "more", 0644);
		CHECK(is("b/sub/file", "more"));
	}
	if (HAS('s')) {
		CHECK(mount("after", "s/other", "tmpfs", 0, "size=4k") == 0);
		put("s/other/file", "seen", 0600);
		CHECK(is("peer/other/file", "seen") && is("slave/other/file", "seen") && is("both/other/file", "seen"));
		CHECK(umount("slave/other") == 0 && is("peer/other/file", "seen") && is("both/other/file", "seen"));
	}
	CHECK(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child);
	printf(bad ? "%d faults\n" : "ok\n", bad); fflush(stdout);
	return bad;
}

int main(int argc, char **argv)
{
	if (argc > 1) strncpy(letters, argv[1], sizeof letters - 1);
	if (HAS('x')) return inside();
	if (unshare(CLONE_NEWNS | (HAS('p') ? CLONE_NEWPID : 0))) { printf("unshare: %s\nfaults\n", strerror(errno)); return 1; }
	pid_t child = fork();
	if (!child) return init();
	printf("init %d\n", child); fflush(stdout);
	_exit(0);
}
