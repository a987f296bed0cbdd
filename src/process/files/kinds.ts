/** All kinds of open files. A new one is a file in this folder and a line here. */
import { epoll } from './epoll.ts';
import { eventfd } from './eventfd.ts';
import type { FileKind, FileType, OpenFile } from './file.ts';
import { inet } from './inet.ts';
import { inotify } from './inotify.ts';
import { ioUring } from './io_uring.ts';
import { memfd } from './memfd.ts';
import { netlink } from './netlink.ts';
import { path } from './path.ts';
import { pidfd } from './pidfd.ts';
import { fifo, pipe } from './pipe.ts';
import { refusal } from './refused.ts';
import { signalfd } from './signalfd.ts';
import { timerfd } from './timerfd.ts';
import { tty } from './tty.ts';
import { unix } from './unix.ts';

const kinds: readonly FileKind[] = [
  path,
  tty,
  memfd,
  pipe,
  fifo,
  eventfd,
  epoll,
  signalfd,
  timerfd,
  inotify,
  pidfd,
  ioUring,
  unix,
  inet,
  netlink,
];

/** @throws UnsupportedError for a file that no kind knows */
export function kindOf(file: OpenFile): FileKind {
  const kind = kinds.find((each) => each.matches(file));
  if (kind === undefined) throw refusal(file);
  return kind;
}

export function kindOfType(type: FileType): FileKind | undefined {
  return kinds.find((each) => each.type === type);
}
