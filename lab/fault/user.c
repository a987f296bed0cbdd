/*
 * What processes can do to a kernel without a module.
 *
 *     user wait FILE   one thread writes to FILE out of memory that nobody ever brings (userfaultfd), so that it holds
 *                      the lock of its descriptor and that of the file; a second waits for the one, a third for the other
 *     user eat         takes all memory
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *path;
static int shared;
static char *missing;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void *writer(void *unused)
{
	pthread_setname_np(pthread_self(), "user_writer");
	if (write(shared, missing, 1) < 0)
		fail("write");
	return NULL;
}

static void *sharer(void *unused)
{
	pthread_setname_np(pthread_self(), "user_sharer");
	if (write(shared, "", 1) < 0)
		fail("write");
	return NULL;
}

static void *other(void *unused)
{
	int own = open(path, O_WRONLY);

	pthread_setname_np(pthread_self(), "user_other");
	if (own < 0 || write(own, "", 1) < 0)
		fail("write");
	return NULL;
}

static void wait_for_ever(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register registration = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	void *(*const threads[])(void *) = { writer, sharer, other };
	int faults = syscall(SYS_userfaultfd, O_CLOEXEC);
	pthread_t thread;

	missing = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	registration.range.start = (unsigned long)missing;
	registration.range.len = 4096;
	if (faults < 0 || ioctl(faults, UFFDIO_API, &api) || ioctl(faults, UFFDIO_REGISTER, &registration))
		fail("userfaultfd");
	shared = open(path, O_WRONLY | O_CREAT, 0600);
	if (shared < 0)
		fail(path);
	for (int i = 0; i < 3; i++) {
		pthread_create(&thread, NULL, threads[i], NULL);
		sleep(1);
	}
	pause();
}

static void eat(void)
{
	/* What is locked cannot be taken away meanwhile, so that it does not last. */
	mlockall(MCL_CURRENT | MCL_FUTURE);
	for (;;) {
		char *piece = malloc(1 << 20);

		if (piece)
			memset(piece, 1, 1 << 20);
	}
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "wait") == 0) {
		path = argv[2];
		wait_for_ever();
	}
	if (argc == 2 && strcmp(argv[1], "eat") == 0)
		eat();
	return 2;
}
