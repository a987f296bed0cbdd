/** Where this process writes, without Node's streams as long as nothing needs them: each costs a millisecond or two. */
import { fstatSync, writeSync } from 'node:fs';
import type { Sink } from './io.ts';

/** @param open the stream, for a terminal and for what cannot take more now */
export function sink(fd: number, open: () => NodeJS.WriteStream): Sink {
  // Terminals are character devices. What else is one - /dev/null - may be a stream as well.
  const isDevice = fstatSync(fd).isCharacterDevice();
  let opened: NodeJS.WriteStream | undefined;
  const stream = () => {
    opened ??= open().on('error', unlessClosed);
    return opened;
  };
  return {
    get isTTY() {
      return isDevice && stream().isTTY;
    },
    get columns() {
      return isDevice ? stream().columns : undefined;
    },
    write(text) {
      let rest: Uint8Array = Buffer.from(text);
      try {
        while (!isDevice && opened === undefined && rest.length > 0) rest = rest.subarray(writeSync(fd, rest));
      } catch (error) {
        // It does not block (O_NONBLOCK) and is full: a stream waits until it is not.
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') return unlessClosed(error as NodeJS.ErrnoException);
      }
      if (rest.length > 0) stream().write(rest);
    },
  };
}

/** Whoever read may have had enough (`tideover ... | head -1`): the work goes on, its words are dropped. */
function unlessClosed(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE') throw error;
}
