/** Terminals. */
import { bool, bytes, enumeration, message, repeated, required, u32 } from '../proto.ts';
import { fown_entry } from './descriptors.ts';

export const TtyType = enumeration('TtyType', {
  UNKNOWN: 0,
  PTY: 1,
  CONSOLE: 2,
  VT: 3,
  CTTY: 4,
  EXT_TTY: 5,
  SERIAL: 6,
});

export const winsize_entry = message('winsize_entry', {
  ws_row: [1, u32, required],
  ws_col: [2, u32, required],
  ws_xpixel: [3, u32, required],
  ws_ypixel: [4, u32, required],
});

export const termios_entry = message('termios_entry', {
  c_iflag: [1, u32, required],
  c_oflag: [2, u32, required],
  c_cflag: [3, u32, required],
  c_lflag: [4, u32, required],
  c_line: [5, u32, required],
  c_ispeed: [6, u32, required],
  c_ospeed: [7, u32, required],
  c_cc: [8, u32, repeated],
});

export const tty_pty_entry = message('tty_pty_entry', {
  index: [1, u32, required],
});

/** Bytes that were written to a terminal and not read. */
export const tty_data_entry = message('tty_data_entry', {
  tty_id: [1, u32, required],
  data: [2, bytes, required],
});

/** A terminal device. Files that are open on it name it by tty_info_id. */
export const tty_info_entry = message('tty_info_entry', {
  id: [1, u32, required],
  type: [2, TtyType, required],
  locked: [3, bool, required],
  exclusive: [4, bool, required],
  packet_mode: [5, bool, required],
  sid: [6, u32, required],
  pgrp: [7, u32, required],
  rdev: [8, u32, required],
  termios: [9, termios_entry],
  termios_locked: [10, termios_entry],
  winsize: [11, winsize_entry],
  pty: [12, tty_pty_entry],
  dev: [13, u32],
  uid: [14, u32],
  gid: [15, u32],
});

export const tty_file_entry = message('tty_file_entry', {
  id: [1, u32, required],
  tty_info_id: [2, u32, required],
  flags: [3, u32, required],
  fown: [4, fown_entry, required],
  regf_id: [6, u32],
});
