/*
 * A tree with a mount namespace: the letters of the first argument say what is in it (p a PID namespace too with its /proc, t tmpfs with
 * files, b bind mounts, s mounts that share what is mounted in them, r a root directory of its own). Prints the id of its init, whose
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
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
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

static char before[1 << 18], after[1 << 18];

static int init(void)
{
	int file = -1, deleted = -1, status;
	char long_name[201] = "";
	setsid();
	signal(SIGTERM, on_term);
	CHECK(mount("none", "/", 0, MS_REC | MS_PRIVATE, 0) == 0);
	if (HAS('p')) CHECK(mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0) == 0);
	int about = open("/proc/self/status", O_RDONLY);
	CHECK(about >= 0);
	memset(long_name, 'n', 200);

	CHECK(system("true") == 0);
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
	(void)file; (void)deleted;
	CHECK(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child);
	printf(bad ? "%d faults\n" : "ok\n", bad); fflush(stdout);
	return bad;
}

int main(int argc, char **argv)
{
	if (argc > 1) strncpy(letters, argv[1], sizeof letters - 1);
	if (unshare(CLONE_NEWNS | (HAS('p') ? CLONE_NEWPID : 0))) { printf("unshare: %s\nfaults\n", strerror(errno)); return 1; }
	pid_t child = fork();
	if (!child) return init();
	printf("init %d\n", child); fflush(stdout);
	_exit(0);
}
