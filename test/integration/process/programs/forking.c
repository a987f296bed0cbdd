/*
 * Has System V shared memory, and children that have it too and end soon, which takes a moment as they have used all of it; and two
 * that send a byte to and fro.
 */
#include <stdio.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE (16 << 20)

int main(void)
{
	int id = shmget(IPC_PRIVATE, SIZE, 0600);
	volatile char *shared = shmat(id, 0, 0);
	shmctl(id, IPC_RMID, 0);
	setsid();
	int there[2], back[2];
	char byte = 0;
	if (pipe(there) || pipe(back)) return 1;
	for (int child = 0; child < 2; child++) {
		int *from = child ? there : back, *to = child ? back : there;
		if (fork() == 0) for (;;) if (write(to[1], &byte, 1) != 1 || read(from[0], &byte, 1) != 1) _exit(1);
	}
	for (int i = 0;; i++) {
		if (fork() == 0) {
			for (int at = 0; at < SIZE; at += 4096) shared[at]++;
			usleep(20000);
			_exit(0);
		}
		if (i == 3) { puts("ready"); fflush(stdout); }
		if (i >= 3) wait(0);
	}
}
