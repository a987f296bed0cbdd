/*
 * apart OTHER: a child that shares pages with its parent, and below it the program OTHER, which is this one with another SIZE: both
 * are to be linked statically and for fixed addresses. On SIGTERM each ends the one below and looks how that ended.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t term;
static void on_term(int s) { (void)s; term = 1; }
static char kept[SIZE] = "of the parent";

static int below(pid_t pid)
{
	int status;
	while (!term) usleep(1000);
	kill(pid, SIGTERM);
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int main(int c, char **v)
{
	signal(SIGTERM, on_term);
	if (c == 1) {
		printf("ready\n"); fflush(stdout);
		while (!term) usleep(1000);
		return kept[0] == 'o' ? 7 : 1;
	}
	setsid();
	for (int i = 4096; i < (int)sizeof kept; i += 4096) kept[i] = 1;
	pid_t child = fork();
	if (!child) {
		pid_t other = fork();
		if (!other) { execl(v[1], v[1], (char *)0); _exit(1); }
		_exit(below(other) == 7 && kept[4096] == 1 ? 8 : 2);
	}
	printf(below(child) == 8 && kept[4096] == 1 ? "ok\n" : "faults\n");
	return 0;
}
