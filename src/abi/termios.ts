/** Terminals: include/uapi/asm-generic/termbits.h, termios.h and ioctls.h; ioctl_tty(2), termios(3) */
import { bytes, struct, u8, u16, u32 } from './struct.ts';

/** Characters with a meaning. */
export const NCCS = 19;

/** Settings. The speeds count where c_cflag says BOTHER. */
export const termios2 = struct('termios2', 44, {
  ...{ c_iflag: u32, c_oflag: u32, c_cflag: u32, c_lflag: u32 },
  c_line: u8,
  c_cc: bytes(NCCS),
  ...{ c_ispeed: u32, c_ospeed: u32 },
});

/** The same without speeds: what TIOCGLCKTRMIOS takes, where a bit that is set cannot be changed. */
export const termios = struct('termios', 36, {
  ...{ c_iflag: u32, c_oflag: u32, c_cflag: u32, c_lflag: u32 },
  c_line: u8,
  c_cc: bytes(NCCS),
});

export const winsize = struct('winsize', 8, { ws_row: u16, ws_col: u16, ws_xpixel: u16, ws_ypixel: u16 });

/** c_line: the discipline of terminals. Others make a network interface or a device of the line. */
export const N_TTY = 0;

/** Indexes of c_cc. */
export const VEOF = 4;
export const VTIME = 5;
export const VMIN = 6;
export const VEOL = 11;
export const VEOL2 = 16;

/** c_iflag: output stops and goes on by characters. */
export const IXON = 0x400;
/** c_lflag: lines; characters with a meaning beyond POSIX; all meaning is the other end's business. */
export const ICANON = 0x2;
export const IEXTEN = 0x8000;
export const EXTPROC = 0x10000;

export const TIOCEXCL = 0x540c;
export const TIOCSCTTY = 0x540e;
export const TIOCSPGRP = 0x5410;
export const TIOCSTI = 0x5412;
export const TIOCGWINSZ = 0x5413;
export const TIOCSWINSZ = 0x5414;
export const TIOCPKT = 0x5420;
export const TCGETS2 = 0x802c542a;
export const TCSETS2 = 0x402c542b;
/** Index of the terminal behind /dev/ptmx. */
export const TIOCGPTN = 0x80045430;
export const TIOCSPTLCK = 0x40045431;
/** Device number of the terminal itself, also behind /dev/tty. */
export const TIOCGDEV = 0x80045432;
export const TIOCVHANGUP = 0x5437;
export const TIOCGPKT = 0x80045438;
export const TIOCGPTLCK = 0x80045439;
export const TIOCGEXCL = 0x80045440;
/** Opens the other end of /dev/ptmx, in the very file system that it is of. */
export const TIOCGPTPEER = 0x5441;
export const TIOCGLCKTRMIOS = 0x5456;
export const TIOCSLCKTRMIOS = 0x5457;
