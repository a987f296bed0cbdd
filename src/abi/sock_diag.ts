/** Asking the kernel for its sockets: include/uapi/linux/sock_diag.h, sock_diag(7) */

export const SOCK_DIAG_BY_FAMILY = 20;

/** Elements of the array in the attributes INET_DIAG_SKMEMINFO and UNIX_DIAG_MEMINFO, each a u32 in bytes. */
export const SK_MEMINFO_RMEM_ALLOC = 0;
export const SK_MEMINFO_RCVBUF = 1;
export const SK_MEMINFO_WMEM_ALLOC = 2;
export const SK_MEMINFO_SNDBUF = 3;
