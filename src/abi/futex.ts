/** Futexes, and robust ones: include/uapi/linux/futex.h, futex(2), get_robust_list(2) */
import { i64n, struct, u64n } from './struct.ts';

export const FUTEX_WAIT = 0;
export const FUTEX_WAIT_BITSET = 9;
export const FUTEX_PRIVATE_FLAG = 128;
export const FUTEX_CLOCK_REALTIME = 256;
export const FUTEX_CMD_MASK = ~(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME);

/** A list of the locks that a thread holds: circular, so that an empty one points at itself. */
export const robust_list_head = struct('robust_list_head', 24, {
  list: u64n,
  futex_offset: i64n,
  list_op_pending: u64n,
});
