/* Has System V shared memory, and children that have it too and end soon. */
#include <stdio.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
	int id = shmget(IPC_PRIVATE, 4096, 0600);
	shmat(id, 0, 0);
	shmctl(id, IPC_RMID, 0);
	setsid();
	for (int i = 0;; i++) {
		if (fork() == 0) { usleep(2000); _exit(0); }
		if (i == 3) { puts("ready"); fflush(stdout); }
		if (i >= 3) wait(0);
	}
}
