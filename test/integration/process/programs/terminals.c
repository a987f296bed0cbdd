// Pairs of terminals with everything that they have; checked after SIGTERM. Prints "ready", then "ok", or what is wrong and "faults".
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <asm/termbits.h>
#include <unistd.h>

static int faults;
#define CHECK(what)                                                                                                    \
  do {                                                                                                                 \
    if (!(what)) {                                                                                                     \
      printf("line %d: %s (%s)\n", __LINE__, #what, strerror(errno));                                                  \
      faults++;                                                                                                        \
    }                                                                                                                  \
  } while (0)
#define MUST(what)                                                                                                     \
  do {                                                                                                                 \
    if (!(what)) {                                                                                                     \
      printf("line %d: %s (%s)\n", __LINE__, #what, strerror(errno));                                                  \
      exit(1);                                                                                                         \
    }                                                                                                                  \
  } while (0)

enum { LINES, BULK, NO_MASTER, NO_SLAVE, NEVER, HUNG_UP, SESSION, PAIRS };
static struct {
  int master, slave, index;
} pair[PAIRS];

static int open_slave(int master, int flags) { return ioctl(master, TIOCGPTPEER, flags | O_NOCTTY); }

static void open_pair(int which) {
  int unlock = 0;
  MUST((pair[which].master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK)) >= 0);
  MUST(ioctl(pair[which].master, TIOCSPTLCK, &unlock) == 0);
  MUST(ioctl(pair[which].master, TIOCGPTN, &pair[which].index) == 0);
  pair[which].slave = -1;
  if (which != NEVER) MUST((pair[which].slave = open_slave(pair[which].master, O_RDWR | O_NONBLOCK)) >= 0);
}

static void raw(int fd) {
  struct termios2 settings;
  MUST(ioctl(fd, TCGETS2, &settings) == 0);
  settings.c_iflag = settings.c_oflag = settings.c_lflag = 0;
  settings.c_cc[VMIN] = 7;
  settings.c_cc[VTIME] = 0;
  MUST(ioctl(fd, TCSETS2, &settings) == 0);
}

static char from_master[6000], from_slave[6000], got[8192];

// Waits until the kernel has moved what was written, which it does on a work queue.
static int arrived(int fd, int count) {
  int there = 0;
  for (int i = 0; i < 30000 && there < count; i++) {
    struct pollfd any = {.fd = fd, .events = POLLIN};
    poll(&any, 1, 10);
    ioctl(fd, FIONREAD, &there);
  }
  return there;
}

static int take(int fd, char *to, int count) {
  int done = 0;
  for (int i = 0; i < 300000 && done < count; i++) {
    int now = read(fd, to + done, count - done);
    if (now > 0) done += now;
    else if (now < 0 && errno == EAGAIN) usleep(1000);
    else break;
  }
  return done;
}

static int line(int fd, const char *expected) {
  int count = read(fd, got, sizeof got);
  if (count == (int)strlen(expected) && memcmp(got, expected, count) == 0) return 1;
  printf("%d bytes instead of %s: %.*s\n", count, expected, count < 0 ? 0 : count, got);
  return 0;
}

// The leader of a session has its terminal, and a member of it is in the foreground.
static pid_t leader, member;
static int told[2];

static void session(void) {
  int value, tty;
  MUST(setsid() > 0);
  MUST(ioctl(pair[SESSION].slave, TIOCSCTTY, 0) == 0);
  signal(SIGTTOU, SIG_IGN);
  MUST((member = fork()) >= 0);
  if (member == 0) {
    setpgid(0, 0);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    MUST(write(told[1], "m", 1) == 1);
    // ^C of the terminal comes to the foreground.
    sigwait(&set, &value);
    tty = open("/dev/tty", O_RDWR);
    exit(tty >= 0 && ioctl(tty, TIOCGPGRP, &value) == 0 && value == getpid() ? 7 : 8);
  }
  setpgid(member, member);
  MUST(ioctl(pair[SESSION].slave, TIOCSPGRP, &member) == 0);
  MUST((tty = open("/dev/tty", O_RDWR)) >= 0);
  for (int which = 0; which < PAIRS; which++) {
    close(pair[which].master);
    if (pair[which].slave >= 0) close(pair[which].slave);
  }
  MUST(write(told[1], "l", 1) == 1);
  int status;
  CHECK(waitpid(member, &status, 0) == member && WIFEXITED(status) && WEXITSTATUS(status) == 7);
  CHECK(ioctl(tty, TIOCGSID, &value) == 0 && value == getpid());
  fflush(stdout);
  _exit(faults);
}

int main(void) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (int i = 0; i < 6000; i++) {
    from_master[i] = (i * 7) % 251;
    from_slave[i] = (i * 11) % 253;
  }
  for (int which = 0; which < PAIRS; which++) open_pair(which);

  struct termios2 settings, now;
  struct winsize size = {33, 77, 330, 770}, size_now;
  MUST(ioctl(pair[LINES].slave, TCGETS2, &settings) == 0);
  settings.c_cc[VERASE] = '#';
  settings.c_lflag &= ~ECHO;
  settings.c_cflag = (settings.c_cflag & ~CBAUD) | BOTHER;
  settings.c_ospeed = settings.c_ispeed = 12345;
  MUST(ioctl(pair[LINES].slave, TCSETS2, &settings) == 0);
  MUST(ioctl(pair[LINES].slave, TIOCSWINSZ, &size) == 0);
  MUST(fchown(pair[LINES].slave, 1234, 5) == 0 && fchmod(pair[LINES].slave, 0620) == 0);
  // Two lines, of which one has a character that was quoted, an end of file, and the beginning of a line.
  const char *typed = "one\ntwo\026\003x\nend\004\004par";
  MUST(write(pair[LINES].master, typed, strlen(typed)) == (int)strlen(typed));
  MUST(write(pair[LINES].slave, "red\n", 4) == 4);
  MUST(arrived(pair[LINES].master, 5) == 5 && arrived(pair[LINES].slave, 13) == 13);

  int on = 1;
  raw(pair[BULK].slave);
  MUST(write(pair[BULK].master, from_master, 6000) == 6000);
  MUST(write(pair[BULK].slave, from_slave, 6000) == 6000);
  MUST(arrived(pair[BULK].master, 4095) == 4095 && arrived(pair[BULK].slave, 4095) == 4095);
  MUST(ioctl(pair[BULK].master, TIOCPKT, &on) == 0);
  MUST(ioctl(pair[BULK].slave, TIOCEXCL) == 0);
  MUST(ioctl(pair[BULK].master, TIOCSPTLCK, &on) == 0);

  MUST(close(pair[NO_MASTER].master) == 0);
  raw(pair[NO_SLAVE].slave);
  MUST(write(pair[NO_SLAVE].slave, "last", 4) == 4 && close(pair[NO_SLAVE].slave) == 0);
  MUST(ioctl(pair[HUNG_UP].slave, TIOCVHANGUP) == 0);
  int again = open_slave(pair[HUNG_UP].master, O_RDONLY);
  MUST(again >= 0);

  MUST(pipe(told) == 0);
  MUST((leader = fork()) >= 0);
  if (leader == 0) session();
  MUST(read(told[0], got, 1) == 1 && read(told[0], got, 1) == 1);

  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigprocmask(SIG_BLOCK, &set, NULL);
  puts("ready");
  int value;
  sigwait(&set, &value);

  for (int which = 0; which < PAIRS; which++) {
    if (which == NO_MASTER) continue;
    int index;
    CHECK(ioctl(pair[which].master, TIOCGPTN, &index) == 0 && index == pair[which].index);
  }
  CHECK(ioctl(pair[LINES].slave, TCGETS2, &now) == 0 && memcmp(&now, &settings, sizeof now) == 0);
  CHECK(ioctl(pair[LINES].slave, TIOCGWINSZ, &size_now) == 0 && memcmp(&size_now, &size, sizeof size) == 0);
  struct stat stat;
  CHECK(fstat(pair[LINES].slave, &stat) == 0 && stat.st_uid == 1234 && stat.st_gid == 5);
  CHECK((stat.st_mode & 0777) == 0620);
  CHECK(line(pair[LINES].slave, "one\n"));
  CHECK(line(pair[LINES].slave, "two\003x\n"));
  CHECK(line(pair[LINES].slave, "end"));
  CHECK(line(pair[LINES].slave, ""));
  CHECK(read(pair[LINES].slave, got, 9) == -1 && errno == EAGAIN);
  MUST(write(pair[LINES].master, "#t\n", 3) == 3);
  CHECK(arrived(pair[LINES].slave, 4) == 4 && line(pair[LINES].slave, "pat\n"));
  CHECK(line(pair[LINES].master, "red\r\n"));

  value = 0;
  CHECK(ioctl(pair[BULK].master, TIOCGPKT, &value) == 0 && value == 1);
  CHECK(ioctl(pair[BULK].slave, TIOCGEXCL, &value) == 0 && value == 1);
  CHECK(ioctl(pair[BULK].master, TIOCGPTLCK, &value) == 0 && value == 1);
  value = 0;
  MUST(ioctl(pair[BULK].master, TIOCPKT, &value) == 0);
  CHECK(take(pair[BULK].slave, got, 6000) == 6000 && memcmp(got, from_master, 6000) == 0);
  CHECK(take(pair[BULK].master, got, 6000) == 6000 && memcmp(got, from_slave, 6000) == 0);
  CHECK(open_slave(pair[BULK].master, O_RDWR) == -1 && errno == EIO);

  CHECK(read(pair[NO_MASTER].slave, got, 1) == 0);
  CHECK(write(pair[NO_MASTER].slave, "x", 1) == -1 && errno == EIO);
  CHECK(line(pair[NO_SLAVE].master, "last"));
  CHECK(read(pair[NO_SLAVE].master, got, 1) == -1 && errno == EIO);
  CHECK(read(pair[NEVER].master, got, 1) == -1 && errno == EAGAIN);
  CHECK(read(pair[HUNG_UP].slave, got, 1) == 0);
  MUST(write(pair[HUNG_UP].master, "go\n", 3) == 3);
  CHECK(arrived(again, 3) == 3 && line(again, "go\n"));

  CHECK(ioctl(pair[SESSION].master, TIOCGSID, &value) == 0 && value == leader);
  MUST(write(pair[SESSION].master, "\003", 1) == 1);
  CHECK(waitpid(leader, &value, 0) == leader && WIFEXITED(value) && WEXITSTATUS(value) == 0);
  puts(faults == 0 ? "ok" : "faults");
  return 0;
}
