/*
 * Goes on writing, moving, dropping and mapping memory, and knows what has to be in it. SIGUSR1: forks, and the child does the
 * same. SIGUSR2: executes itself. SIGTERM: looks at all of it, and at its children.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SLOTS = 128, PAGES = 16, PAGE = 4096, SIZE = PAGES * PAGE };

static uint64_t *slot[SLOTS];
static uint32_t version[SLOTS][PAGES];
static volatile sig_atomic_t fork_wanted, exec_wanted, end_wanted;
static pid_t children[64];
static int child_count, is_child;
static uint32_t random_state = 12345;

static void on_signal(int number) {
  if (number == SIGUSR1) fork_wanted = 1;
  else if (number == SIGUSR2) exec_wanted = 1;
  else end_wanted = 1;
}

static uint32_t next_random(void) {
  random_state = random_state * 1664525 + 1013904223;
  return random_state >> 8;
}

static uint64_t *map(void *at) {
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0);
  uint64_t *memory = mmap(at, SIZE, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (memory == MAP_FAILED) exit(2);
  return memory;
}

static uint64_t expected(int s, int p, int word) {
  return version[s][p] == 0 ? 0 : (uint64_t)version[s][p] * 0x9e3779b97f4a7c15ull + s * 1000003ull + p * 511ull + word;
}

static void write_page(int s, int p) {
  version[s][p]++;
  for (int word = 0; word < PAGE / 8; word++) slot[s][p * (PAGE / 8) + word] = expected(s, p, word);
}

static int faults(void) {
  int wrong = 0;
  for (int s = 0; s < SLOTS; s++)
    for (int p = 0; p < PAGES; p++)
      for (int word = 0; word < PAGE / 8; word += 7)
        if (slot[s][p * (PAGE / 8) + word] != expected(s, p, word)) {
          if (wrong++ < 3) printf("slot %d page %d word %d version %u\n", s, p, word, version[s][p]);
          break;
        }
  return wrong;
}

static void step(void) {
  int s = next_random() % SLOTS, p = next_random() % PAGES;
  switch (next_random() % 16) {
    case 0: {
      uint64_t *to = map(NULL);
      if (mremap(slot[s], SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to) exit(3);
      slot[s] = to;
      break;
    }
    case 1:
      if (munmap(slot[s], SIZE) != 0) exit(4);
      map(slot[s]);
      memset(version[s], 0, sizeof version[s]);
      break;
    case 2:
      if (madvise(slot[s] + p * (PAGE / 8), PAGE, MADV_DONTNEED) != 0) exit(5);
      version[s][p] = 0;
      break;
    case 3: {
      /* What stands in one place was in another one before. */
      int other = (s + 1) % SLOTS;
      uint64_t *a = slot[s], *b = slot[other], *aside = map(NULL);
      if (mremap(a, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, aside) != aside) exit(6);
      if (mremap(b, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, a) != a) exit(6);
      if (mremap(aside, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, b) != b) exit(6);
      slot[s] = b;
      slot[other] = a;
      break;
    }
    default:
      write_page(s, p);
  }
}

int main(int argc, char **argv) {
  struct sigaction action = {.sa_handler = on_signal};
  sigaction(SIGUSR1, &action, NULL);
  sigaction(SIGUSR2, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  random_state += getpid() + argc;
  for (int s = 0; s < SLOTS; s++) {
    slot[s] = map(NULL);
    for (int p = 0; p < PAGES; p++) write_page(s, p);
  }
  printf(argc > 1 ? "again\n" : "ready\n");
  fflush(stdout);
  while (!end_wanted) {
    if (exec_wanted) execl("/proc/self/exe", argv[0], "again", NULL);
    if (fork_wanted && child_count < 64) {
      fork_wanted = 0;
      pid_t child = fork();
      if (child == 0) {
        child_count = 0;
        is_child = 1;
        random_state ^= getpid();
        printf("forked\n");
        fflush(stdout);
      } else children[child_count++] = child;
    }
    for (int i = 0; i < 4; i++) step();
    usleep(500);
  }
  int wrong = faults();
  for (int i = 0; i < child_count; i++) {
    int status;
    kill(children[i], SIGTERM);
    if (waitpid(children[i], &status, 0) != children[i] || status != 0) wrong++;
  }
  if (!is_child) printf(wrong == 0 ? "ok\n" : "faults\n");
  fflush(stdout);
  return wrong != 0;
}
