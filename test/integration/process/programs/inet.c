/* Sockets of IPv4 and IPv6 that are no connections, with datagrams that wait. Checks itself on SIGUSR1. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHECK(what) do { if (!(what)) { printf("FAIL line %d: %s (errno %d)\n", __LINE__, #what, errno); fflush(stdout); exit(1); } } while (0)

typedef struct sockaddr_in6 address;

static address of(int family, const char *text) {
  address made = { 0 };
  if (family == AF_INET6) {
    made.sin6_family = AF_INET6;
    CHECK(inet_pton(AF_INET6, text, &made.sin6_addr) == 1);
  } else {
    ((struct sockaddr_in *)&made)->sin_family = AF_INET;
    CHECK(inet_pton(AF_INET, text, &((struct sockaddr_in *)&made)->sin_addr) == 1);
  }
  return made;
}

static socklen_t size(const address *a) { return a->sin6_family == AF_INET6 ? sizeof(*a) : sizeof(struct sockaddr_in); }

static int bound(int family, int type, const char *text, address *own) {
  *own = of(family, text);
  int fd = socket(family, type, 0);
  CHECK(fd >= 0 && bind(fd, (void *)own, size(own)) == 0);
  socklen_t length = sizeof *own;
  CHECK(getsockname(fd, (void *)own, &length) == 0);
  return fd;
}

static void to(int from, const address *where, const char *text) {
  CHECK(sendto(from, text, strlen(text), 0, (void *)where, size(where)) == (ssize_t)strlen(text));
}

static void gives(int fd, const char *text, const address *from) {
  char buffer[64];
  address sender = { 0 };
  socklen_t length = sizeof sender;
  // What was sent is on its way through the kernel.
  struct pollfd any = { .fd = fd, .events = POLLIN };
  CHECK(poll(&any, 1, 300000) == 1);
  ssize_t n = recvfrom(fd, buffer, sizeof buffer, MSG_DONTWAIT, (void *)&sender, &length);
  CHECK(n == (ssize_t)strlen(text) && memcmp(buffer, text, n) == 0);
  CHECK(sender.sin6_family == from->sin6_family && sender.sin6_port == from->sin6_port);
}

static void answers(const address *where) {
  int fd = socket(where->sin6_family, SOCK_STREAM, 0);
  CHECK(connect(fd, (void *)where, size(where)) == 0);
  close(fd);
}

static volatile sig_atomic_t asked;
static void ask(int signal) { (void)signal; asked = 1; }

int main(void) {
  signal(SIGUSR1, ask);
  address listen4, listen6, a4, b4, a6, b6, c4;
  int tcp4 = bound(AF_INET, SOCK_STREAM, "127.0.0.1", &listen4), tcp6 = bound(AF_INET6, SOCK_STREAM, "::1", &listen6);
  int on = 1, depth = 7;
  CHECK(listen(tcp4, 5) == 0 && listen(tcp6, depth) == 0);
  CHECK(setsockopt(tcp4, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
  int one = bound(AF_INET, SOCK_DGRAM, "127.0.0.1", &a4), two = bound(AF_INET, SOCK_DGRAM, "0.0.0.0", &b4);
  int three = bound(AF_INET6, SOCK_DGRAM, "::1", &a6), four = bound(AF_INET6, SOCK_DGRAM, "::", &b6);
  int five = bound(AF_INET, SOCK_DGRAM, "127.0.0.1", &c4);
  CHECK(connect(five, (void *)&a4, size(&a4)) == 0);
  ((struct sockaddr_in *)&b4)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  b6.sin6_addr = in6addr_loopback;
  to(one, &b4, "over four"), to(two, &a4, "back"), to(two, &a4, "again");
  to(three, &b6, "over six"), to(four, &a6, "odd");
  to(one, &c4, "to the connected");
  int fresh = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(setsockopt(fresh, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) == 0);

  puts("ready");
  fflush(stdout);
  while (!asked) pause();

  gives(two, "over four", &a4);
  gives(one, "back", &b4), gives(one, "again", &b4);
  gives(four, "over six", &a6), gives(three, "odd", &b6);
  gives(five, "to the connected", &a4);
  CHECK(send(five, "on", 2, 0) == 2);
  gives(one, "on", &c4);
  answers(&listen4), answers(&listen6);
  int set = 0;
  socklen_t length = sizeof set;
  CHECK(getsockopt(tcp4, IPPROTO_TCP, TCP_NODELAY, &set, &length) == 0 && set == 1);
  CHECK(getsockopt(tcp4, SOL_SOCKET, SO_REUSEADDR, &set, &length) == 0 && set == 0);
  CHECK(getsockopt(fresh, SOL_SOCKET, SO_KEEPALIVE, &set, &length) == 0 && set == 1);
  struct tcp_info info;
  length = sizeof info;
  CHECK(getsockopt(tcp6, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 && info.tcpi_sacked == (unsigned)depth);
  puts("PASS");
  return 0;
}
