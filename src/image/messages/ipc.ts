/** System V IPC. */
import { bool, message, repeated, required, u32, u64, u64n } from '../proto.ts';

export const ipc_desc_entry = message('ipc_desc_entry', {
  key: [1, u32, required],
  uid: [2, u32, required],
  gid: [3, u32, required],
  cuid: [4, u32, required],
  cgid: [5, u32, required],
  mode: [6, u32, required],
  id: [7, u32, required],
});

/** One message of a queue, whose text follows padded to 8 bytes. */
export const ipc_msg = message('ipc_msg', {
  mtype: [1, u64, required],
  msize: [2, u32, required],
});

/** A message queue; qnum messages follow. */
export const ipc_msg_entry = message('ipc_msg_entry', {
  desc: [1, ipc_desc_entry, required],
  qbytes: [2, u32, required],
  qnum: [3, u32, required],
});

/** A semaphore set; nsems values of 16 bits follow, padded to 8 bytes. */
export const ipc_sem_entry = message('ipc_sem_entry', {
  desc: [1, ipc_desc_entry, required],
  nsems: [2, u32, required],
});

/** A shared memory segment. Its content is a pagemap of its id, in old images bytes that follow padded to 4. */
export const ipc_shm_entry = message('ipc_shm_entry', {
  desc: [1, ipc_desc_entry, required],
  size: [2, u64n, required],
  in_pagemaps: [3, bool],
  hugetlb_flag: [4, u32],
  // Not of CRIU.
  /** When it was made or changed, in seconds: whether it is the same one that is there under its id. */
  changed: [1000, u64],
});

/** The sysctls below kernel.sem, kernel.msg* and kernel.shm*, and fs.mqueue. */
export const ipc_var_entry = message('ipc_var_entry', {
  sem_ctls: [1, u32, repeated],
  msg_ctlmax: [2, u32, required],
  msg_ctlmnb: [3, u32, required],
  msg_ctlmni: [4, u32, required],
  auto_msgmni: [5, u32, required],
  shm_ctlmax: [6, u64, required],
  shm_ctlall: [7, u64, required],
  shm_ctlmni: [8, u32, required],
  shm_rmid_forced: [9, u32, required],
  mq_queues_max: [10, u32, required],
  mq_msg_max: [11, u32, required],
  mq_msgsize_max: [12, u32, required],
  mq_msg_default: [13, u32],
  mq_msgsize_default: [14, u32],
  msg_next_id: [15, u32],
  sem_next_id: [16, u32],
  shm_next_id: [17, u32],
});
