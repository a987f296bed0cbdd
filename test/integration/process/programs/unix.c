/* Sockets of the UNIX domain in every state, with bytes and descriptors in flight. Checks itself on SIGUSR1. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(what) do { if (!(what)) { printf("FAIL line %d: %s (errno %d)\n", __LINE__, #what, errno); fflush(stdout); exit(1); } } while (0)

static struct sockaddr_un name(const char *path, socklen_t *length) {
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  size_t size = strlen(path);
  memcpy(address.sun_path, path, size);
  if (path[0] == '@') address.sun_path[0] = 0, *length = offsetof(struct sockaddr_un, sun_path) + size;
  else *length = offsetof(struct sockaddr_un, sun_path) + size + 1;
  return address;
}

static int bound(int type, const char *path) {
  socklen_t length;
  struct sockaddr_un address = name(path, &length);
  int fd = socket(AF_UNIX, type, 0);
  CHECK(fd >= 0 && bind(fd, (void *)&address, length) == 0);
  return fd;
}

static int connected(int type, const char *path, int own) {
  socklen_t length;
  struct sockaddr_un address = name(path, &length);
  int fd = own >= 0 ? own : socket(AF_UNIX, type, 0);
  CHECK(fd >= 0 && connect(fd, (void *)&address, length) == 0);
  return fd;
}

static void is_named(int fd, const char *path) {
  socklen_t wanted, length = sizeof(struct sockaddr_un);
  struct sockaddr_un address = name(path, &wanted), found;
  CHECK(getsockname(fd, (void *)&found, &length) == 0);
  CHECK(length == wanted && memcmp(&found, &address, wanted) == 0);
}

static void gives(int fd, const char *text) {
  char buffer[64] = "";
  size_t size = strlen(text);
  /* A stream gives no more than it is asked for. */
  ssize_t n = recv(fd, buffer, size > 0 ? size : sizeof buffer, MSG_DONTWAIT);
  if (n == (ssize_t)size && memcmp(buffer, text, size) == 0) return;
  printf("FAIL: %zd bytes '%s' where '%s' was to be (errno %d)\n", n, buffer, text, errno);
  fflush(stdout);
  exit(1);
}

static void talk(int a, int b) {
  CHECK(send(a, "to", 2, 0) == 2);
  gives(b, "to");
  CHECK(send(b, "fro", 3, 0) == 3);
  gives(a, "fro");
}

static void pass(int over, const char *text, int fd) {
  char control[CMSG_SPACE(sizeof(int))] = "";
  struct iovec data = { (void *)text, strlen(text) };
  struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS, header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
  CHECK(sendmsg(over, &message, 0) == (ssize_t)strlen(text));
}

static int got(int from, const char *text) {
  char control[CMSG_SPACE(sizeof(int))] = "", buffer[64];
  struct iovec data = { buffer, sizeof buffer };
  struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
  ssize_t n = recvmsg(from, &message, MSG_DONTWAIT);
  if (n != (ssize_t)strlen(text) || memcmp(buffer, text, n) != 0) {
    printf("FAIL: %zd bytes '%.*s' where '%s' was to be (errno %d)\n", n, n < 0 ? 0 : (int)n, buffer, text, errno);
    fflush(stdout);
    exit(1);
  }
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  CHECK(header != NULL && header->cmsg_type == SCM_RIGHTS);
  int fd;
  memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return fd;
}

static volatile sig_atomic_t asked;
static void ask(int signal) { (void)signal; asked = 1; }

int main(void) {
  char abstract[64];
  snprintf(abstract, sizeof abstract, "@tideover-%d", getpid());
  signal(SIGUSR1, ask);

  int stream[2], gram[2], packet[2], flight[2], half[2], dead[2], closing[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, stream) == 0);
  CHECK(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, gram) == 0);
  CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, packet) == 0);
  CHECK(send(stream[0], "first ", 6, 0) == 6 && send(stream[0], "second", 6, 0) == 6);
  CHECK(send(gram[0], "one", 3, 0) == 3 && send(gram[0], "", 0, 0) == 0 && send(gram[0], "three", 5, 0) == 5);
  CHECK(send(packet[1], "alpha", 5, 0) == 5 && send(packet[1], "beta", 4, 0) == 4);

  /* A path relative to the working directory, one in full, and an abstract name. */
  int relative = bound(SOCK_STREAM, "relative.sock"), listening = bound(SOCK_STREAM, abstract);
  CHECK(chmod("relative.sock", 0640) == 0);
  CHECK(listen(relative, 5) == 0 && listen(listening, 3) == 0);
  int client = connected(SOCK_STREAM, "relative.sock", -1), server = accept(relative, NULL, NULL);
  CHECK(server >= 0 && send(client, "in the queue", 12, 0) == 12);
  int named = connected(SOCK_STREAM, abstract, bound(SOCK_STREAM, "client.sock")), accepted = accept(listening, NULL, NULL);
  int waiting = connected(SOCK_STREAM, abstract, -1);

  /* Datagrams: a server, one connected to it, one of a deleted path. */
  int log = bound(SOCK_DGRAM, "log.sock"), logger = connected(SOCK_DGRAM, "log.sock", -1), gone = bound(SOCK_DGRAM, "gone.sock");
  CHECK(unlink("gone.sock") == 0);
  CHECK(send(logger, "logged", 6, 0) == 6 && send(logger, "again", 5, 0) == 5);

  /* The listener of this one is closed. */
  int once = bound(SOCK_SEQPACKET, "once.sock");
  CHECK(listen(once, 1) == 0);
  int left = connected(SOCK_SEQPACKET, "once.sock", -1), right = accept(once, NULL, NULL);
  close(once);

  /* Descriptors in flight, of a file that nobody has open otherwise, and of a socket. */
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, flight) == 0);
  int file = open("flying", O_RDWR | O_CREAT, 0600), inner[2];
  CHECK(write(file, "content", 7) == 7 && lseek(file, 3, SEEK_SET) == 3);
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, inner) == 0);
  pass(flight[0], "file", file);
  pass(flight[0], "socket", inner[1]);
  CHECK(send(inner[0], "inside", 6, 0) == 6);
  close(file), close(inner[1]);

  /* Half closed, closed with something left, options. */
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, half) == 0 && shutdown(half[0], SHUT_WR) == 0);
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, dead) == 0 && send(dead[1], "last words", 10, 0) == 10 && close(dead[1]) == 0);
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, closing) == 0);
  int on = 1, size = 54321, set;
  struct timeval patience = { 3, 500000 }, found;
  CHECK(setsockopt(closing[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0);
  CHECK(setsockopt(closing[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size) == 0);
  CHECK(setsockopt(closing[1], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0);
  socklen_t length = sizeof set;
  CHECK(getsockopt(closing[0], SOL_SOCKET, SO_SNDBUF, &size, &length) == 0);

  /* Over a fork, both have the same sockets. */
  pid_t child = fork();
  if (child == 0) for (;;) pause();

  puts("ready");
  fflush(stdout);
  while (!asked) pause();

  gives(stream[1], "first second");
  talk(stream[0], stream[1]);
  gives(gram[1], "one"), gives(gram[1], ""), gives(gram[1], "three");
  CHECK((fcntl(gram[0], F_GETFL) & O_NONBLOCK) != 0 && (fcntl(stream[0], F_GETFL) & O_NONBLOCK) == 0);
  talk(gram[0], gram[1]);
  gives(packet[0], "alpha"), gives(packet[0], "beta");
  talk(packet[0], packet[1]);

  struct stat file_of;
  CHECK(stat("relative.sock", &file_of) == 0 && S_ISSOCK(file_of.st_mode) && (file_of.st_mode & 0777) == 0640);
  is_named(relative, "relative.sock"), is_named(server, "relative.sock");
  gives(server, "in the queue");
  talk(client, server);
  is_named(named, "client.sock"), is_named(accepted, abstract);
  talk(named, accepted);
  int late = accept(listening, NULL, NULL);
  CHECK(late >= 0);
  talk(late, waiting);
  int fresh = connected(SOCK_STREAM, "relative.sock", -1), taken = accept(relative, NULL, NULL);
  talk(fresh, taken);

  gives(log, "logged"), gives(log, "again");
  CHECK(send(logger, "more", 4, 0) == 4);
  gives(log, "more");
  is_named(gone, "gone.sock");
  CHECK(access("gone.sock", F_OK) != 0);
  is_named(right, "once.sock");
  talk(left, right);

  int flown = got(flight[1], "file"), landed = got(flight[1], "socket");
  char rest[8] = "";
  CHECK(read(flown, rest, sizeof rest) == 4 && strcmp(rest, "tent") == 0);
  gives(landed, "inside");
  talk(landed, inner[0]);

  char none;
  CHECK(recv(half[1], &none, 1, 0) == 0 && send(half[1], "back", 4, 0) == 4);
  gives(half[0], "back");
  gives(dead[0], "last words");
  CHECK(recv(dead[0], &none, 1, 0) == 0);
  CHECK(send(dead[0], "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
  CHECK(getsockopt(closing[0], SOL_SOCKET, SO_PASSCRED, &set, &length) == 0 && set == 1);
  CHECK(getsockopt(closing[0], SOL_SOCKET, SO_SNDBUF, &set, &length) == 0 && set == size);
  length = sizeof found;
  CHECK(getsockopt(closing[1], SOL_SOCKET, SO_RCVTIMEO, &found, &length) == 0 && found.tv_sec == 3);
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  puts("PASS");
  return 0;
}
