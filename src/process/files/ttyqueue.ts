/**
 * What was written to a terminal and not read: Documentation/driver-api/tty/n_tty.rst. It cannot be looked at, only be taken and
 * put back. While that is done, the settings are such that the kernel changes, echoes and interprets nothing.
 *
 *     other end -> flip buffer (as it was written) -> read buffer (4095 bytes, as the settings had them) -> reader
 *
 * TIOCSTI puts a byte straight into the read buffer. What does not fit there was in the flip buffer, and is written from the other end.
 */
import { FIONREAD, POLLIN } from '../../abi/poll.ts';
import * as tio from '../../abi/termios.ts';
import { ioctl, ioctlInt, read, write } from '../../sys/files.ts';
import { poll } from '../../sys/poll.ts';

export type Termios = ReturnType<typeof tio.termios2.read>;

/** N_TTY_BUF_SIZE of drivers/tty/n_tty.c is 4096, of which one stays free. */
const READ_BUFFER = 4095;
const NEWLINE = 10;

export function termiosOf(fd: number): Termios {
  const arg = new Uint8Array(tio.termios2.size);
  ioctl({ fd, request: tio.TCGETS2, arg });
  return tio.termios2.read(arg);
}

export function setTermios(fd: number, settings: Termios): void {
  ioctl({ fd, request: tio.TCSETS2, arg: tio.termios2.write(settings) });
}

/**
 * Settings with which bytes go through as they are. Lines end where they did, as a change of ICANON or EXTPROC would join them;
 * IXON stays, as to switch it off lets output go on that was stopped (n_tty_set_termios()).
 */
function transparent(settings: Termios): Termios {
  const { c_iflag, c_lflag } = settings;
  const lines = (c_lflag & tio.ICANON) !== 0;
  const c_cc = new Uint8Array(settings.c_cc.length);
  // Without lines these are other characters, or the same as VMIN and VTIME.
  if (lines) for (const index of [tio.VEOF, tio.VEOL, tio.VEOL2]) c_cc[index] = settings.c_cc[index]!;
  else c_cc[tio.VMIN] = 1;
  const kept = tio.ICANON | tio.IEXTEN | tio.EXTPROC;
  return { ...settings, c_iflag: c_iflag & tio.IXON, c_oflag: 0, c_lflag: c_lflag & kept, c_cc };
}

/** Reads what waits at a slave, which stays. @param master its other end */
export function peekInput(slave: number, master: number): Uint8Array {
  const settings = termiosOf(slave);
  const lines = (settings.c_lflag & tio.ICANON) !== 0;
  // Work on the flip buffer is waited for by poll(2), and not by FIONREAD, which in turn counts less than VMIN.
  if (!lines && (poll(slave, POLLIN) & POLLIN) === 0 && ioctlInt(slave, FIONREAD) === 0) return new Uint8Array(0);
  const found: Uint8Array[] = [];
  const through = transparent(settings);
  setTermios(slave, through);
  try {
    if (lines) {
      const ends = [NEWLINE, settings.c_cc[tio.VEOL], settings.c_cc[tio.VEOL2]];
      for (const line of readAll(slave)) {
        found.push(line);
        // The character that ends a file or a line in the middle is not part of it.
        if (!ends.includes(line.at(-1) ?? -1)) found.push(Uint8Array.of(settings.c_cc[tio.VEOF]!));
      }
      // What is no line yet.
      setTermios(slave, transparent({ ...through, c_lflag: through.c_lflag & ~tio.ICANON }));
    }
    found.push(...readAll(slave));
  } finally {
    setTermios(slave, settings);
  }
  const bytes = Buffer.concat(found);
  if (bytes.length > 0) putInput(slave, master, bytes);
  return bytes;
}

/** Has bytes wait at a slave that nobody reads from meanwhile. */
export function putInput(slave: number, master: number, bytes: Uint8Array): void {
  const settings = termiosOf(slave);
  setTermios(slave, transparent(settings));
  insert(slave, bytes.subarray(0, READ_BUFFER));
  setTermios(slave, settings);
  writeAll(master, bytes.subarray(READ_BUFFER));
}

/** Reads what waits at a master, which stays. @param openSlave opens its other end, for as long as the action takes */
export function peekOutput(master: number, withSlave: WithSlave): Uint8Array {
  const bytes = Buffer.concat([...readAll(master)]);
  if (bytes.length > 0) putOutput(master, bytes, withSlave);
  return bytes;
}

type WithSlave = (action: (slave: number) => void) => void;

/** Has bytes wait at a master that nobody reads from meanwhile. */
export function putOutput(master: number, bytes: Uint8Array, withSlave: WithSlave): void {
  insert(master, bytes.subarray(0, READ_BUFFER));
  const rest = bytes.subarray(READ_BUFFER);
  if (rest.length === 0) return;
  withSlave((slave) => {
    const settings = termiosOf(slave);
    setTermios(slave, { ...settings, c_oflag: 0 });
    try {
      writeAll(slave, rest);
    } finally {
      setTermios(slave, settings);
    }
  });
}

function* readAll(fd: number): Generator<Uint8Array> {
  while ((poll(fd, POLLIN) & POLLIN) !== 0) {
    const buf = new Uint8Array(READ_BUFFER + 1);
    yield buf.subarray(0, read({ fd, buf, count: buf.length }));
  }
}

function insert(fd: number, bytes: Uint8Array): void {
  for (const byte of bytes) ioctl({ fd, request: tio.TIOCSTI, arg: Uint8Array.of(byte) });
}

function writeAll(fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) {
    const buf = bytes.subarray(done);
    done += write({ fd, buf, count: buf.length });
  }
}
