/*
 * A tree in namespaces of its own: the letters of the first argument say which (p PID, u UTS, i IPC, t time, n network, N one that others fill). Prints the id of its
 * init, whose parent goes. On SIGTERM says what is not as it was.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <netinet/in.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int bad;
#define CHECK(what) do { if (!(what)) { printf("not as it was: %s (line %d, errno %d)\n", #what, __LINE__, errno); bad++; } } while (0)
static volatile sig_atomic_t term;
static void on_term(int s) { (void)s; term = 1; }
/* SIGTERM is for this thread alone, and comes to it nowhere else. */
static void wait_term(void) { sigset_t none; sigemptyset(&none); while (!term) sigsuspend(&none); }
static struct { long type; char text[32]; } message;
static char letters[32];
#define HAS(letter) (strchr(letters, letter) != 0)

static long setting(const char *path, long value)
{
	FILE *file = fopen(path, value < 0 ? "r" : "w");
	long found = -1;
	if (value < 0) CHECK(file && fscanf(file, "%ld", &found) == 1);
	else CHECK(file && fprintf(file, "%ld", value) > 0);
	if (file) fclose(file);
	return found;
}

static pid_t tid;
static int go[2];
static void *thread(void *none) { char byte; tid = syscall(SYS_gettid); CHECK(read(go[0], &byte, 1) == 1); CHECK(tid == syscall(SYS_gettid)); return none; }

static double seconds(clockid_t clock) { struct timespec now; clock_gettime(clock, &now); return now.tv_sec + now.tv_nsec / 1e9; }

/* A bridge with one end of a pair in it, and what is dropped and counted by a rule. */
#define NETWORK \
	"ip link set lo up; ip link add pair0 index 20 type veth peer name pair1 index 30; ip link add bridge0 type bridge;" \
	"ip link add eth0 address 02:00:00:00:00:07 mtu 1400 type veth peer name far0; ip link set far0 up; ip link set pair0 master bridge0; ip link set pair0 up; ip link set pair1 up;" \
	"ip addr add 10.9.8.7/24 dev eth0; ip addr add fd00::7/64 dev eth0 nodad; ip link set eth0 up; ip link set bridge0 up;" \
	"ip route add 10.20.0.0/16 via 10.9.8.1 metric 5; ip -6 route add fd01::/32 via fd00::1; ip route add blackhole 10.30.0.0/16 table 77;" \
	"ip rule add from 10.9.8.0/24 table 77 priority 100; ip rule del priority 32767; ip neigh add 10.9.8.1 lladdr 02:00:00:00:00:01 dev eth0;" \
	"echo 1 > /proc/sys/net/ipv4/ip_forward; echo 61 > /proc/sys/net/ipv4/conf/eth0/tag; echo 1 > /proc/sys/net/ipv4/conf/eth0/forwarding"
/* What the kernel learns or counts by itself is left out. */
#define LOOK \
	"ip -o link | sed 's/ qdisc.*qlen/ qlen/; s/state [A-Z]*//; s/,M-DOWN//; s/,LOWER_UP//; s/NO-CARRIER,//'; ip -o addr | grep -v fe80; ip route show table all | grep -v 'fe80\\|multicast\\|anycast' | sed 's/linkdown//' | sort;" \
	"ip -6 route show table all | grep fd0 | sort; ip rule; ip neigh show nud permanent; cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/eth0/tag /proc/sys/net/ipv4/conf/*/forwarding"

static void network(const char *name, const char *change)
{
	char line[4096];
	snprintf(line, sizeof line, "set -e; %s; { %s; } > %s", change, LOOK, name);
	CHECK(system(line) == 0);
}

static struct sockaddr_in6 at = { .sin6_family = AF_INET6, .sin6_port = 0x901f };
static struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = 0x901f, .sin_addr.s_addr = 0x0708090a };

static int init(void)
{
	int listening = -1, client = -1, server = -1;
	pthread_t other;
	struct utsname names;
	int status, queue = -1, kept = -1, sems = -1, pipes[2];
	setsid();
	signal(SIGTERM, on_term);
	sigset_t block; sigemptyset(&block); sigaddset(&block, SIGTERM); sigprocmask(SIG_BLOCK, &block, 0);
	CHECK(pipe(go) == 0 && pipe(pipes) == 0);
	int about = open("/proc/self/status", O_RDONLY);
	pid_t self = getpid(), child = fork();
	if (!child) { char byte; for (int i = 0; i < 3; i++) if (!fork()) { pause(); _exit(0); } _exit(read(pipes[0], &byte, 1) == 1 && getppid() == self ? 7 : 1); }
	pid_t ended = fork();
	if (!ended) _exit(5);
	pthread_create(&other, 0, thread, 0);
	if (HAS('p')) CHECK(self == 1 && child == 2);
	if (HAS('u')) CHECK(sethostname("kept.example", 12) == 0 && setdomainname("domain", 6) == 0);
	if (HAS('i')) {
		setting("/proc/sys/kernel/msgmnb", 30000);
		setting("/proc/sys/kernel/shm_rmid_forced", 0);
		// Numbers that a new namespace does not begin with.
		CHECK(shmctl(shmget(5, 4096, IPC_CREAT), IPC_RMID, 0) == 0 && msgctl(msgget(5, IPC_CREAT), IPC_RMID, 0) == 0);
		queue = msgget(77, IPC_CREAT | 0640);
		for (int i = 1; i <= 3; i++) { message.type = i; int length = sprintf(message.text, "message %d", i); CHECK(msgsnd(queue, &message, length, 0) == 0); }
		kept = shmget(78, 8192, IPC_CREAT | 0600);
		char *memory = shmat(kept, 0, 0);
		strcpy(memory + 4096, "nobody has it attached"); shmdt(memory);
		sems = semget(79, 2, IPC_CREAT | 0600);
		// Who changed one last, and has threads, may have something to undo.
		pid_t setter = fork();
		if (!setter) _exit(semctl(sems, 1, SETVAL, 9));
		CHECK(waitpid(setter, &status, 0) == setter && status == 0);
	}
	if (HAS('n')) {
		network("before", NETWORK);
		CHECK((listening = socket(AF_INET6, SOCK_STREAM, 0)) >= 0 && bind(listening, (void *)&at, sizeof at) == 0 && listen(listening, 5) == 0);
		CHECK((client = socket(AF_INET, SOCK_STREAM, 0)) >= 0 && connect(client, (void *)&to, sizeof to) == 0);
		CHECK((server = accept(listening, 0, 0)) >= 0 && write(client, "waits", 5) == 5);
	}
	double before = seconds(CLOCK_BOOTTIME);
	if (HAS('t')) CHECK(before > 999999);
	usleep(50000);
	printf("ready\n"); fflush(stdout);

	wait_term();

	char shown[4096], mine[32];
	int length = pread(about, shown, sizeof shown - 1, 0);
	CHECK(length > 0);
	shown[length > 0 ? length : 0] = 0;
	sprintf(mine, "\t%d\n", self);
	char *line = strstr(shown, "NSpid:");
	CHECK(line && (line = strchr(line, '\n')) && !memcmp(line + 1 - strlen(mine), mine, strlen(mine)));
	CHECK(getpid() == self && (!HAS('p') || getppid() == 0) && getsid(0) == self);
	CHECK(write(go[1], "x", 1) == 1 && pthread_join(other, 0) == 0);
	CHECK(waitpid(ended, &status, 0) == ended && WIFEXITED(status) && WEXITSTATUS(status) == 5);
	CHECK(kill(child, 0) == 0 && write(pipes[1], "x", 1) == 1);
	CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
	if (HAS('p')) {
		// Its children are those of the init now.
		CHECK(kill(-1, SIGKILL) == 0);
		for (int i = 0; i < 3; i++) CHECK(wait(&status) > 0 && WIFSIGNALED(status));
		pid_t next = fork();
		if (!next) _exit(0);
		CHECK(next > 1 && next < 30 && waitpid(next, 0, 0) == next);
	}
	CHECK(uname(&names) == 0);
	if (HAS('u')) CHECK(!strcmp(names.nodename, "kept.example") && !strcmp(names.domainname, "domain"));
	if (HAS('i')) {
		CHECK(setting("/proc/sys/kernel/msgmnb", -1) == 30000);
		CHECK(msgget(77, 0) == queue && shmget(78, 0, 0) == kept && semget(79, 0, 0) == sems);
		struct msqid_ds about;
		CHECK(msgctl(queue, IPC_STAT, &about) == 0 && about.msg_qnum == 3 && about.msg_qbytes == 30000 && (about.msg_perm.mode & 0777) == 0640);
		CHECK(msgrcv(queue, &message, 32, 2, IPC_NOWAIT) == 9 && !memcmp(message.text, "message 2", 9));
		CHECK(msgrcv(queue, &message, 32, 0, IPC_NOWAIT) == 9 && !memcmp(message.text, "message 1", 9) && message.type == 1);
		CHECK(msgrcv(queue, &message, 32, 0, IPC_NOWAIT) == 9 && message.type == 3 && msgrcv(queue, &message, 32, 0, IPC_NOWAIT) < 0);
		char *memory = shmat(kept, 0, 0);
		CHECK(memory != (void *)-1 && !strcmp(memory + 4096, "nobody has it attached"));
		CHECK(semctl(sems, 1, GETVAL) == 9);
	}
	if (HAS('n')) {
		char text[8] = "";
		network("after", "true");
		CHECK(system("cmp before after || diff before after") == 0);
		CHECK(read(server, text, 8) == 5 && !strcmp(text, "waits") && write(server, "answer", 6) == 6 && read(client, text, 8) == 6);
	}
	if (HAS('t')) CHECK(seconds(CLOCK_BOOTTIME) >= before && seconds(CLOCK_BOOTTIME) < before + 600);
	printf(bad ? "%d faults\n" : "ok\n", bad); fflush(stdout);
	return bad;
}

int main(int argc, char **argv)
{
	if (argc > 1) strncpy(letters, argv[1], sizeof letters - 1);
	int flags = (HAS('p') ? CLONE_NEWPID : 0) | (HAS('u') ? CLONE_NEWUTS : 0) | (HAS('i') ? CLONE_NEWIPC : 0) | (HAS('t') ? 0x80 : 0) | (HAS('n') || HAS('N') ? CLONE_NEWNET : 0);
	if (unshare(flags)) { printf("unshare: %s\nfaults\n", strerror(errno)); return 1; }
	if (HAS('t')) {
		FILE *offsets = fopen("/proc/self/timens_offsets", "w");
		CHECK(offsets && fprintf(offsets, "monotonic 1000000 0\nboottime 1000000 0\n") > 0);
		if (offsets) fclose(offsets);
	}
	pid_t child = fork();
	if (!child) return init();
	printf("init %d\n", child); fflush(stdout);
	_exit(0);
}
