/** System V IPC: include/uapi/linux/ipc.h, shm.h, sem.h and asm-generic/ipcbuf.h, shmbuf.h */
import { i32, struct, u16, u32, u64n } from './struct.ts';

export const IPC_PRIVATE = 0;
export const IPC_CREAT = 0o1000;
export const IPC_EXCL = 0o2000;
export const IPC_RMID = 0;
export const IPC_SET = 1;
export const IPC_STAT = 2;
export const IPC_NOWAIT = 0o4000;

/** In the mode of a segment: it goes with the last one that has it attached. */
export const SHM_DEST = 0o1000;
export const SHM_HUGETLB = 0o4000;
export const SHM_RDONLY = 0o10000;

/** For msgrcv(2): a copy of the message at a place of the queue, which stays there. Of CONFIG_CHECKPOINT_RESTORE. */
export const MSG_COPY = 0o40000;

export const GETPID = 11;
export const GETALL = 13;
export const SETALL = 17;

/** With 8 bytes of padding that no header gives a name. */
export const ipc64_perm = struct('ipc64_perm', 48, {
  key: i32,
  uid: u32,
  gid: u32,
  cuid: u32,
  cgid: u32,
  mode: u32,
  seq: u16,
  __pad2: u16,
  __pad3: u32,
  __unused1: u64n,
  __unused2: u64n,
});

export const msqid64_ds = struct('msqid64_ds', 120, {
  msg_perm: ipc64_perm,
  msg_stime: u64n,
  msg_rtime: u64n,
  msg_ctime: u64n,
  msg_cbytes: u64n,
  msg_qnum: u64n,
  msg_qbytes: u64n,
  msg_lspid: i32,
  msg_lrpid: i32,
  __unused4: u64n,
  __unused5: u64n,
});
