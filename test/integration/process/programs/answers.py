"""Answers each line of each client with its number and its text; `fill` makes it send more than fits.

`terminal`: it has one of its own, of which it reads nothing. `ballast`: it has 150 MiB that take a while to write.
"""
import os, pty, select, socket, sys

if 'terminal' in sys.argv:
    master, slave = pty.openpty()
    os.write(slave, b'unread\n')
if 'ballast' in sys.argv:
    ballast = b'x' * (150 << 20)
listening = socket.create_server(('::', 0), family=socket.AF_INET6, dualstack_ipv6=True)
print('port', listening.getsockname()[1], flush=True)
poll = select.poll()
poll.register(listening, select.POLLIN)
clients, seen = {}, 0
while True:
    for fd, _ in poll.poll():
        if fd == listening.fileno():
            client, _ = listening.accept()
            clients[client.fileno()] = client
            poll.register(client, select.POLLIN)
            continue
        try:
            text = clients[fd].recv(1 << 20)
        except ConnectionResetError:
            text = b''
        if not text:
            print('closed', flush=True)
            poll.unregister(fd)
            continue
        for line in text.decode().splitlines():
            seen += 1
            clients[fd].sendall(f'{seen} {line}\n'.encode())
            if line == 'fill':
                clients[fd].sendall(b'x' * 3000000 + b'\n')
                print('filled', flush=True)
