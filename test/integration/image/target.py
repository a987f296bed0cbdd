"""Something worth a checkpoint: threads, a child, shared memory, a memfd, a deleted file, data in a pipe and in a socket.

It counts in the file that is its argument, once in ten milliseconds, and says there when anything is not what it was."""
import mmap
import os
import socket
import sys
import threading
import time

log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
reading, writing = os.pipe()
os.write(writing, b"in flight")
deleted = os.open(sys.argv[1] + ".deleted", os.O_RDWR | os.O_CREAT, 0o600)
os.write(deleted, b"deleted content")
os.unlink(sys.argv[1] + ".deleted")
shared = mmap.mmap(-1, 1 << 20)
shared[4096:4104] = b"together"
private = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
private[8192:8201] = b"by itself"
memfd = os.memfd_create("target")
os.write(memfd, b"memory file" * 1000)
left, right = socket.socketpair()
left.send(b"queued")
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
if os.fork() == 0:
    threading.Event().wait()


def same():
    return (
        shared[4096:4104] == b"together"
        and private[8192:8201] == b"by itself"
        and os.pread(deleted, 100, 0) == b"deleted content"
        and os.pread(memfd, 11, 11 * 999) == b"memory file"
        and right.recv(100, socket.MSG_PEEK) == b"queued"
    )


count = 0
while same():
    count += 1
    os.write(log, b"%d\n" % count)
    time.sleep(0.01)
os.write(log, b"changed\n")
