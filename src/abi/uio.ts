/** Scatter and gather: include/uapi/linux/uio.h */
import { struct, u64n } from './struct.ts';

export const iovec = struct('iovec', 16, { iov_base: u64n, iov_len: u64n });

/** The most elements of one call; more are EINVAL. */
export const UIO_MAXIOV = 1024;
