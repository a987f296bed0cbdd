/* System V shared memory and semaphores, with keys and without, removed and in parts. On SIGTERM says what is not as it was. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

static int bad;
#define CHECK(what) do { if (!(what)) { printf("not as it was: %s (line %d, errno %d)\n", #what, __LINE__, errno); bad++; } } while (0)
static volatile sig_atomic_t term;
static void on_term(int s) { (void)s; term = 1; }

/* Until the child waits, which it does when it has the processor. */
static int waits(int sems)
{
	for (int i = 0; i < 100000 && semctl(sems, 2, GETNCNT) != 1; i++) usleep(1000);
	return semctl(sems, 2, GETNCNT) == 1;
}

int main(void)
{
	int status;
	setsid();
	signal(SIGTERM, on_term);
	key_t key = 0x71de0000 | (getpid() & 0xffff);
	int with = shmget(key, 5 * 4096 - 100, IPC_CREAT | IPC_EXCL | 0640), without = shmget(IPC_PRIVATE, 8192, 0600);
	CHECK(with >= 0 && without >= 0);
	char *all = shmat(with, 0, 0), *part = shmat(with, 0, 0), *reader = shmat(with, 0, SHM_RDONLY), *gone = shmat(without, 0, 0);
	strcpy(all, "first page"); strcpy(all + 3 * 4096, "fourth page"); strcpy(gone + 4096, "removed");
	munmap(part + 4096, 4096); munmap(part + 4 * 4096, 4096); mprotect(part + 3 * 4096, 4096, PROT_READ);
	char *hole = mmap(part + 4096, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	strcpy(hole, "in the hole");
	shmctl(without, IPC_RMID, 0);
	int sems = semget(key, 3, IPC_CREAT | IPC_EXCL | 0600);
	struct sembuf up[3] = { { 0, 1, 0 }, { 1, 22, 0 }, { 2, 333, 0 } }, down = { 2, -334, 0 };
	CHECK(sems >= 0 && semop(sems, up, 3) == 0);
	pid_t child = fork();
	if (!child) { int result = semop(sems, &down, 1); all[8] = 'c'; gone[0] = 'c'; _exit(result ? 1 : 5); }
	struct shmid_ds seg; struct semid_ds set;
	CHECK(waits(sems) && shmctl(with, IPC_STAT, &seg) == 0);
	shmatt_t attached = seg.shm_nattch;
	printf("ids %d %d\n", with, sems);
	printf("ready\n"); fflush(stdout);

	while (!term) pause();

	CHECK(shmget(key, 0, 0) == with && semget(key, 0, 0) == sems);
	CHECK(shmctl(with, IPC_STAT, &seg) == 0 && seg.shm_segsz == 5 * 4096 - 100 && (seg.shm_perm.mode & 0777) == 0640 && seg.shm_nattch == attached);
	CHECK(shmctl(without, IPC_STAT, &seg) == 0 && (seg.shm_perm.mode & SHM_DEST) && seg.shm_nattch == 2);
	CHECK(!strcmp(all, "first page") && !strcmp(reader + 3 * 4096, "fourth page") && !strcmp(part, "first page"));
	CHECK(!strcmp(gone + 4096, "removed") && !strcmp(hole, "in the hole"));
	CHECK(mprotect(reader, 4096, PROT_READ | PROT_WRITE) < 0 && errno == EACCES);
	CHECK(mprotect(part + 3 * 4096, 4096, PROT_READ | PROT_WRITE) == 0);
	strcpy(part + 3 * 4096, "by another way"); CHECK(!strcmp(all + 3 * 4096, "by another way"));
	CHECK(semctl(sems, 0, IPC_STAT, &set) == 0 && set.sem_nsems == 3 && (set.sem_perm.mode & 0777) == 0600);
	CHECK(semctl(sems, 0, GETVAL) == 1 && semctl(sems, 1, GETVAL) == 22 && semctl(sems, 2, GETVAL) == 333);
	CHECK(waits(sems) && semop(sems, up, 1) == 0);
	struct sembuf last = { 2, 1, 0 };
	CHECK(semop(sems, &last, 1) == 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 5);
	CHECK(all[8] == 'c' && gone[0] == 'c');
	CHECK(shmdt(all) == 0 && shmdt(gone) == 0 && shmctl(without, IPC_STAT, &seg) < 0);
	shmctl(with, IPC_RMID, 0); semctl(sems, 0, IPC_RMID);
	printf(bad ? "%d faults\n" : "ok\n", bad); fflush(stdout);
	return bad;
}
