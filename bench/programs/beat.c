/*
 * Has memory, and appends the time of the day in ms to a file as often as it can sleep for a hundredth of a second.
 *
 *     beat MEGABYTES FILE
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  // A tree is kept from the first process of a session on.
  setsid();
  size_t words = (size_t)atoi(argv[1]) << 17;
  unsigned long *memory = malloc(words * 8), value = 1;
  for (size_t i = 0; i < words; i++) memory[i] = value = value * 6364136223846793005 + 1442695040888963407;
  int file = open(argv[2], O_WRONLY | O_CREAT | O_APPEND, 0644);
  for (;;) {
    struct timespec now;
    char line[32];
    clock_gettime(CLOCK_REALTIME, &now);
    int size = snprintf(line, sizeof line, "%ld\n", now.tv_sec * 1000 + now.tv_nsec / 1000000);
    if (write(file, line, size) != size) return 1;
    usleep(10000);
  }
}
