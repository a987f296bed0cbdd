/** Restartable sequences: include/uapi/linux/rseq.h */
import { struct, u32, u64n } from './struct.ts';

export const RSEQ_FLAG_UNREGISTER = 0x1;

/** The fields that every kernel since 4.18 knows; a thread may have registered a longer one. */
export const rseq = struct('rseq', 32, {
  cpu_id_start: u32,
  cpu_id: u32,
  /** Address of the rseq_cs of the critical section that the thread is in, or 0. */
  rseq_cs: u64n,
  flags: u32,
  node_id: u32,
  mm_cid: u32,
});

/** A critical section: from start_ip for post_commit_offset bytes; interrupted there, a thread goes on at abort_ip. */
export const rseq_cs = struct('rseq_cs', 32, {
  version: u32,
  flags: u32,
  start_ip: u64n,
  post_commit_offset: u64n,
  abort_ip: u64n,
});
