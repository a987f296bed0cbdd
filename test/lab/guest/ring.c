/*
 * A tree of a hundred processes, and a token that goes around in it through pipes: each process adds its id and counts rounds. The first
 * writes how many rounds there were and what the ids add up to.
 *
 *     first -- 9 children -- 10 children of each
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROCESSES = 100 };
struct token { unsigned long round, ids, processes; };

static int pipes[PROCESSES][2];

/* Passes the token on for ever. */
static void pass(int me) {
  struct token token;
  for (unsigned long round = 1;; round++) {
    if (read(pipes[me][0], &token, sizeof token) != sizeof token || token.round != round) exit(1);
    token.ids += getpid();
    token.processes++;
    if (write(pipes[(me + 1) % PROCESSES][1], &token, sizeof token) != sizeof token) exit(1);
  }
}

int main(void) {
  for (int i = 0; i < PROCESSES; i++) if (pipe(pipes[i])) return 1;
  for (int child = 1; child < PROCESSES; child += 11) {
    if (fork()) continue;
    for (int i = child + 1; i <= child + 10; i++) if (!fork()) pass(i);
    pass(child);
  }
  for (unsigned long round = 1;; round++) {
    struct token token = {round, getpid(), 1};
    if (write(pipes[1][1], &token, sizeof token) != sizeof token) return 1;
    if (read(pipes[0][0], &token, sizeof token) != sizeof token || token.round != round) return 1;
    printf("round %lu: %lu processes, %lu\n", round, token.processes, token.ids);
    fflush(stdout);
    usleep(100000);
  }
}
