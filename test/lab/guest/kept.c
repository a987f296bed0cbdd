/*
 * A program that an update keeps: counts in memory, and answers each line of a connection with the line, how many lines there were,
 * its process id in its namespace and whether its memory is as it was: 32 answers look at all of it.
 *
 *     kept PORT MEGABYTES
 */
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static unsigned pattern(size_t i) { return (unsigned)i * 2654435761u; }

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  size_t words = (size_t)atoi(argv[2]) << 18;
  unsigned *memory = malloc(words * 4 + 4);
  for (size_t i = 0; i < words; i++) memory[i] = pattern(i);
  setsid();
  int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
  if (bind(listener, (struct sockaddr *)&own, sizeof own) || listen(listener, 8)) return 1;
  struct pollfd fds[16] = {{.fd = listener, .events = POLLIN}};
  int count = 1;
  unsigned long lines = 0;
  static char in[16][4096];
  size_t begun[16] = {0};
  for (;;) {
    poll(fds, count, -1);
    if ((fds[0].revents & POLLIN) && count < 16) fds[count++] = (struct pollfd){.fd = accept(listener, 0, 0), .events = POLLIN};
    for (int i = 1; i < count; i++) {
      if (!fds[i].revents) continue;
      char *text = in[i];
      ssize_t got = read(fds[i].fd, text + begun[i], sizeof in[i] - begun[i] - 1);
      if (got <= 0) {
        close(fds[i].fd);
        fds[i] = fds[--count];
        begun[i] = begun[count];
        memcpy(text, in[count], sizeof in[i]);
        i--;
        continue;
      }
      text[begun[i] + got] = 0;
      char *end;
      for (; (end = strchr(text, '\n')); text = end + 1) {
        *end = 0;
        char out[4200];
        size_t part = words / 32 + 1, at = lines % 32 * part, bad = 0;
        for (size_t stop = at + part; at < stop && at < words; at++) bad += memory[at] != pattern(at);
        const char *state = bad == 0 ? "whole" : "damaged";
        int size = snprintf(out, sizeof out, "%s %lu %d %s\n", text, ++lines, (int)getpid(), state);
        if (write(fds[i].fd, out, size) != size) return 1;
      }
      begun[i] = strlen(text);
      memmove(in[i], text, begun[i] + 1);
    }
  }
}
