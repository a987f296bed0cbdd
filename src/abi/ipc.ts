/** System V IPC: include/uapi/linux/ipc.h, shm.h, sem.h and asm-generic/ipcbuf.h, shmbuf.h */
import { i32, i64n, struct, u16, u32, u64n } from './struct.ts';

export const IPC_PRIVATE = 0;
export const IPC_CREAT = 0o1000;
export const IPC_EXCL = 0o2000;
export const IPC_RMID = 0;
export const IPC_SET = 1;

/** In the mode of a segment: it goes with the last one that has it attached. */
export const SHM_DEST = 0o1000;
export const SHM_HUGETLB = 0o4000;
export const SHM_RDONLY = 0o10000;

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

/** What shmctl(2) IPC_SET reads: of it only uid, gid and mode. */
export const shmid64_ds = struct('shmid64_ds', 112, {
  shm_perm: ipc64_perm,
  shm_segsz: u64n,
  shm_atime: i64n,
  shm_dtime: i64n,
  shm_ctime: i64n,
  shm_cpid: i32,
  shm_lpid: i32,
  shm_nattch: u64n,
  __unused4: u64n,
  __unused5: u64n,
});
