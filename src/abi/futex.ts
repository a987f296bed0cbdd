/** Robust futexes: include/uapi/linux/futex.h, get_robust_list(2) */
import { i64n, struct, u64n } from './struct.ts';

/** A list of the locks that a thread holds: circular, so that an empty one points at itself. */
export const robust_list_head = struct('robust_list_head', 24, {
  list: u64n,
  futex_offset: i64n,
  list_op_pending: u64n,
});
