/** Registers of x86-64, and the CPU they were read from. */
import { bool, enumeration, message, repeated, required, string, u32, u64 } from '../proto.ts';

export const user_x86_regs_mode = enumeration('user_x86_regs_mode', {
  NATIVE: 1,
  COMPAT: 2,
});

/** struct user_regs_struct, in its order. */
export const user_x86_regs_entry = message('user_x86_regs_entry', {
  r15: [1, u64, required],
  r14: [2, u64, required],
  r13: [3, u64, required],
  r12: [4, u64, required],
  bp: [5, u64, required],
  bx: [6, u64, required],
  r11: [7, u64, required],
  r10: [8, u64, required],
  r9: [9, u64, required],
  r8: [10, u64, required],
  ax: [11, u64, required],
  cx: [12, u64, required],
  dx: [13, u64, required],
  si: [14, u64, required],
  di: [15, u64, required],
  orig_ax: [16, u64, required],
  ip: [17, u64, required],
  cs: [18, u64, required],
  flags: [19, u64, required],
  sp: [20, u64, required],
  ss: [21, u64, required],
  fs_base: [22, u64, required],
  gs_base: [23, u64, required],
  ds: [24, u64, required],
  es: [25, u64, required],
  fs: [26, u64, required],
  gs: [27, u64, required],
  mode: [28, user_x86_regs_mode, { default: 'NATIVE' }],
});

/** Shadow stack: the MSRs IA32_U_CET and IA32_PL3_SSP. */
export const user_x86_cet_entry = message('user_x86_cet_entry', {
  cet: [1, u64, required],
  ssp: [2, u64, required],
});

/** The extended part of the xsave area, a list for each state component (src/image/xsave.ts). */
export const user_x86_xsave_entry = message('user_x86_xsave_entry', {
  xstate_bv: [1, u64, required],
  ymmh_space: [2, u32, repeated],
  bndreg_state: [3, u64, repeated],
  bndcsr_state: [4, u64, repeated],
  opmask_reg: [5, u64, repeated],
  zmm_upper: [6, u64, repeated],
  hi16_zmm: [7, u64, repeated],
  pkru: [8, u32, repeated],
  cet: [9, user_x86_cet_entry],
});

/** The legacy part of the xsave area: what fxsave writes. */
export const user_x86_fpregs_entry = message('user_x86_fpregs_entry', {
  cwd: [1, u32, required],
  swd: [2, u32, required],
  twd: [3, u32, required],
  fop: [4, u32, required],
  rip: [5, u64, required],
  rdp: [6, u64, required],
  mxcsr: [7, u32, required],
  mxcsr_mask: [8, u32, required],
  st_space: [9, u32, repeated],
  xmm_space: [10, u32, repeated],
  padding: [11, u32, repeated],
  xsave: [13, user_x86_xsave_entry],
});

/** A GDT entry for thread-local storage of 32-bit code (set_thread_area(2)). */
export const user_desc_t = message('user_desc_t', {
  entry_number: [1, u32, required],
  base_addr: [2, u32, required],
  limit: [3, u32, required],
  seg_32bit: [4, bool, required],
  contents_h: [5, bool, required],
  contents_l: [6, bool, required],
  read_exec_only: [7, bool, required],
  limit_in_pages: [8, bool, required],
  seg_not_present: [9, bool, required],
  usable: [10, bool, required],
});

export const thread_info_x86 = message('thread_info_x86', {
  clear_tid_addr: [1, u64, required],
  gpregs: [2, user_x86_regs_entry, required],
  fpregs: [3, user_x86_fpregs_entry, required],
  tls: [4, user_desc_t, repeated],
});

export const cpuinfo_x86_vendor = enumeration('cpuinfo_x86_vendor', {
  UNKNOWN: 0,
  INTEL: 1,
  AMD: 2,
});

/** The CPU: family, model, and the words of CPUID feature bits in the order of the kernel's cpufeatures.h. */
export const cpuinfo_x86_entry = message('cpuinfo_x86_entry', {
  vendor_id: [1, cpuinfo_x86_vendor, required],
  cpu_family: [2, u32, required],
  model: [3, u32, required],
  stepping: [4, u32, required],
  capability_ver: [5, u32, required],
  capability: [6, u32, repeated],
  model_id: [7, string],
  xfeatures_mask: [8, u64],
  xsave_size: [9, u32],
  xsave_size_max: [10, u32],
});

/** Entries of other machines stay among the unknown fields. */
export const cpuinfo_entry = message('cpuinfo_entry', {
  x86_entry: [1, cpuinfo_x86_entry, repeated],
});
