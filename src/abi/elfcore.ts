/** Contents of notes in core files: include/uapi/linux/elfcore.h. A crashed kernel has an elf_prstatus of each CPU. */
import { user_regs_struct } from './ptrace.ts';
import { bytes, chars, i8, i16, i32, struct, u8, u32, u64 } from './struct.ts';
import { timeval } from './time.ts';

export const elf_prstatus = struct('elf_prstatus', 336, {
  si_signo: i32,
  si_code: i32,
  si_errno: i32,
  pr_cursig: i16,
  pr_sigpend: u64,
  pr_sighold: u64,
  pr_pid: i32,
  pr_ppid: i32,
  pr_pgrp: i32,
  pr_sid: i32,
  pr_utime: timeval,
  pr_stime: timeval,
  pr_cutime: timeval,
  pr_cstime: timeval,
  pr_reg: user_regs_struct,
  pr_fpvalid: i32,
});

export const elf_prpsinfo = struct('elf_prpsinfo', 136, {
  pr_state: i8,
  pr_sname: u8,
  pr_zomb: i8,
  pr_nice: i8,
  pr_flag: u64,
  pr_uid: u32,
  pr_gid: u32,
  pr_pid: i32,
  pr_ppid: i32,
  pr_pgrp: i32,
  pr_sid: i32,
  pr_fname: chars(16),
  pr_psargs: bytes(80),
});
