/*
 * Has the kernel refuse to load another one, with EBUSY: begins to load one, whose bytes never come, and so has the lock that every
 * load takes (kexec_lock of kernel/kexec_core.c) until it is killed.
 *
 *     kexec-busy FILE     FILE is made when it has the lock
 */
#include <fcntl.h>
#include <linux/kexec.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct kexec_segment segment = {.bufsz = 4096, .mem = (void *)0x1000000, .memsz = 4096};

static void *begin(void *unused) {
  syscall(SYS_kexec_load, 0UL, 1UL, &segment, (unsigned long)KEXEC_ARCH_DEFAULT);
  return unused;
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  int faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
  struct uffdio_api api = {.api = UFFD_API};
  if (ioctl(faults, UFFDIO_API, &api)) return 1;
  segment.buf = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  struct uffdio_register range = {.range = {(unsigned long)segment.buf, 4096}, .mode = UFFDIO_REGISTER_MODE_MISSING};
  if (ioctl(faults, UFFDIO_REGISTER, &range)) return 1;
  pthread_t thread;
  if (pthread_create(&thread, 0, begin, 0)) return 1;
  /* It waits for its bytes. */
  struct pollfd asked = {.fd = faults, .events = POLLIN};
  if (poll(&asked, 1, -1) != 1) return 1;
  close(open(argv[1], O_CREAT | O_WRONLY, 0600));
  pthread_join(thread, 0);
  return 1;
}
