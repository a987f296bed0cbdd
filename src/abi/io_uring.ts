/** Rings of requests and completions: include/uapi/linux/io_uring.h */
import { array, struct, u32, u64 } from './struct.ts';

export const IORING_SETUP_CQSIZE = 1 << 3;
export const IORING_SETUP_SQE128 = 1 << 10;
export const IORING_SETUP_CQE32 = 1 << 11;

/** Where mmap(2) shows what. */
export const IORING_OFF_SQ_RING = 0;
export const IORING_OFF_CQ_RING = 0x8000000;
export const IORING_OFF_SQES = 0x10000000;

export const IORING_ENTER_GETEVENTS = 1;

/** A request that does nothing, and has no completion if it succeeds. */
export const IORING_OP_NOP = 0;
export const IOSQE_CQE_SKIP_SUCCESS = 1 << 6;

export const io_sqring_offsets = struct('io_sqring_offsets', 40, {
  ...{ head: u32, tail: u32, ring_mask: u32, ring_entries: u32, flags: u32, dropped: u32, array: u32, resv1: u32 },
  resv2: u64,
});

export const io_cqring_offsets = struct('io_cqring_offsets', 40, {
  ...{ head: u32, tail: u32, ring_mask: u32, ring_entries: u32, overflow: u32, cqes: u32, flags: u32, resv1: u32 },
  resv2: u64,
});

export const io_uring_params = struct('io_uring_params', 120, {
  sq_entries: u32,
  cq_entries: u32,
  /** IORING_SETUP_* */
  flags: u32,
  sq_thread_cpu: u32,
  sq_thread_idle: u32,
  features: u32,
  wq_fd: u32,
  resv: array(u32, 3),
  sq_off: io_sqring_offsets,
  cq_off: io_cqring_offsets,
});

/** Offsets of struct io_uring_sqe, whose size is 64 or, with IORING_SETUP_SQE128, 128. */
export const SIZEOF_SQE = 64;
export const SIZEOF_CQE = 16;
export const SQE_FLAGS_AT = 1;

/** Operations of io_uring_register(2). */
export const IORING_REGISTER_EVENTFD = 4;
export const IORING_UNREGISTER_EVENTFD = 5;
