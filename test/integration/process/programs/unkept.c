/* unkept KIND: has something that cannot be kept, and says so. Says "going on" on each SIGUSR1. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

static volatile char selector;
static int semaphores = -1;
static void say(int s) { (void)s; if (semaphores >= 0) semctl(semaphores, 0, IPC_RMID); if (write(1, "going on\n", 9) < 0) _exit(1); }
static int wait_for_ever(void *arg) { (void)arg; for (;;) pause(); return 0; }

int main(int c, char **v)
{
	static char stack[65536] __attribute__((aligned(16)));
	setsid();
	signal(SIGUSR1, say);
	if (!strcmp(v[1], "undo")) {
		semaphores = semget(IPC_PRIVATE, 1, 0600);
		struct sembuf up = { 0, 1, SEM_UNDO };
		if (semaphores < 0 || semop(semaphores, &up, 1)) return 1;
	} else if (!strcmp(v[1], "mdwe")) {
		if (prctl(65, 1, 0, 0, 0)) return 1;
	} else if (!strcmp(v[1], "dispatch")) {
		if (prctl(59, 1, 0, -1L, &selector)) return 1;
	} else if (!strcmp(v[1], "fanotify")) {
		if (fanotify_init(FAN_CLASS_NOTIF, 0) < 0) return 1;
	} else if (!strcmp(v[1], "ring")) {
		char parameters[120] = "";
		int ring = syscall(425, 4, parameters), event = eventfd(0, 0);
		if (ring < 0 || syscall(427, ring, 4, &event, 1)) return 1;
	} else if (!strcmp(v[1], "leader")) {
		pthread_t thread;
		pthread_create(&thread, 0, (void *(*)(void *))wait_for_ever, 0);
		printf("ready\n"); fflush(stdout);
		pthread_exit(0);
	} else if (!strcmp(v[1], "gone")) {
		char path[64];
		int pid = fork();
		if (pid == 0) wait_for_ever(0);
		snprintf(path, sizeof path, "/proc/%d", pid);
		if (chdir(path) || kill(pid, SIGKILL) || waitpid(pid, 0, 0) != pid) return 1;
	} else if (!strcmp(v[1], "traced")) {
		int begun[2];
		if (pipe(begun)) return 1;
		int pid = fork();
		if (pid == 0) { ptrace(PTRACE_TRACEME, 0, 0, 0); close(begun[0]); close(begun[1]); wait_for_ever(0); }
		close(begun[1]);
		if (read(begun[0], begun, 1) != 0) return 1;
		printf("child %d\n", pid);
	} else if (!strcmp(v[1], "compat")) {
		/* mov eax, pause; int 0x80; jmp to the first */
		unsigned char *code = mmap(0, 65536, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
		memcpy(code, "\xb8\x1d\0\0\0\xcd\x80\xeb\xf7", 9);
		printf("ready\n"); fflush(stdout);
		/* 0x23: __USER32_CS of the kernel; its stack pointer has 32 bits */
		__asm__ volatile("mov %1, %%rsp; push $0x23; push %0; lretq" : : "r"(code), "r"(code + 65536));
	} else if (!strcmp(v[1], "clocks")) {
		if (unshare(CLONE_NEWTIME)) return 1;
	} else if (!strcmp(v[1], "ended")) {
		int pid = fork();
		if (pid == 0) return 0;
		siginfo_t info;
		waitid(P_PID, pid, &info, WEXITED | WNOWAIT);
		printf("child %d\n", pid);
	} else if (!strcmp(v[1], "outside")) {
		/* The parent is outside of the tree that is saved. */
		int pid = clone(wait_for_ever, stack + sizeof stack, CLONE_FILES | SIGCHLD, 0);
		printf("child %d\n", pid);
	}
	printf("ready\n"); fflush(stdout);
	for (;;) pause();
}
