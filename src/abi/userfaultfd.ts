/** Page faults handled in user space: include/uapi/linux/userfaultfd.h */
import { bytes, i64n, struct, u8, u16, u32, u64, u64n } from './struct.ts';

/** Flag of userfaultfd(2): faults of user mode only, which needs no privilege. */
export const UFFD_USER_MODE_ONLY = 0x1;
/** ioctl of /dev/userfaultfd. */
export const USERFAULTFD_IOC_NEW = 0xaa00;

export const UFFD_API = 0xaa;
export const UFFDIO_API = 0xc018aa3f;
export const UFFDIO_REGISTER = 0xc020aa00;
export const UFFDIO_UNREGISTER = 0x8010aa01;
export const UFFDIO_WAKE = 0x8010aa02;
export const UFFDIO_COPY = 0xc028aa03;
export const UFFDIO_ZEROPAGE = 0xc020aa04;
export const UFFDIO_MOVE = 0xc028aa05;
export const UFFDIO_WRITEPROTECT = 0xc018aa06;
export const UFFDIO_CONTINUE = 0xc020aa07;
export const UFFDIO_POISON = 0xc020aa08;

export const UFFD_FEATURE_PAGEFAULT_FLAG_WP = 0x1;
export const UFFD_FEATURE_EVENT_FORK = 0x2;
export const UFFD_FEATURE_EVENT_REMAP = 0x4;
export const UFFD_FEATURE_EVENT_REMOVE = 0x8;
export const UFFD_FEATURE_MISSING_HUGETLBFS = 0x10;
export const UFFD_FEATURE_MISSING_SHMEM = 0x20;
export const UFFD_FEATURE_EVENT_UNMAP = 0x40;
export const UFFD_FEATURE_SIGBUS = 0x80;
export const UFFD_FEATURE_THREAD_ID = 0x100;
export const UFFD_FEATURE_MINOR_HUGETLBFS = 0x200;
export const UFFD_FEATURE_MINOR_SHMEM = 0x400;
export const UFFD_FEATURE_EXACT_ADDRESS = 0x800;
export const UFFD_FEATURE_WP_HUGETLBFS_SHMEM = 0x1000;
/** Linux 6.4. */
export const UFFD_FEATURE_WP_UNPOPULATED = 0x2000;
/** Linux 6.6. */
export const UFFD_FEATURE_POISON = 0x4000;
/** Linux 6.7: a write to a protected page lifts the protection without an event; PAGEMAP_SCAN shows it. */
export const UFFD_FEATURE_WP_ASYNC = 0x8000;
/** Linux 6.8. */
export const UFFD_FEATURE_MOVE = 0x10000;

export const UFFDIO_REGISTER_MODE_MISSING = 0x1;
export const UFFDIO_REGISTER_MODE_WP = 0x2;
export const UFFDIO_REGISTER_MODE_MINOR = 0x4;
export const UFFDIO_COPY_MODE_DONTWAKE = 0x1;
export const UFFDIO_COPY_MODE_WP = 0x2;
export const UFFDIO_ZEROPAGE_MODE_DONTWAKE = 0x1;
export const UFFDIO_WRITEPROTECT_MODE_WP = 0x1;
export const UFFDIO_WRITEPROTECT_MODE_DONTWAKE = 0x2;

/** `ioctls` has bit n for the ioctl of number n, of which UFFDIO_API is the 64th. */
export const uffdio_api = struct('uffdio_api', 24, { api: u64n, features: u64n, ioctls: u64 });
export const uffdio_range = struct('uffdio_range', 16, { start: u64n, len: u64n });
export const uffdio_register = struct('uffdio_register', 32, { range: uffdio_range, mode: u64n, ioctls: u64 });
/** `copy` holds what was copied, or -errno, also where the ioctl fails. */
export const uffdio_copy = struct('uffdio_copy', 40, { dst: u64n, src: u64n, len: u64n, mode: u64n, copy: i64n });
export const uffdio_zeropage = struct('uffdio_zeropage', 32, { range: uffdio_range, mode: u64n, zeropage: i64n });
export const uffdio_writeprotect = struct('uffdio_writeprotect', 24, { range: uffdio_range, mode: u64n });

export const UFFD_EVENT_PAGEFAULT = 0x12;
export const UFFD_EVENT_FORK = 0x13;
export const UFFD_EVENT_REMAP = 0x14;
export const UFFD_EVENT_REMOVE = 0x15;
export const UFFD_EVENT_UNMAP = 0x16;
export const UFFD_PAGEFAULT_FLAG_WRITE = 0x1;
export const UFFD_PAGEFAULT_FLAG_WP = 0x2;
export const UFFD_PAGEFAULT_FLAG_MINOR = 0x4;

/** `struct uffd_msg` with the union's `pagefault`. */
export const uffd_msg_pagefault = struct('uffd_msg_pagefault', 32, {
  event: u8,
  reserved1: u8,
  reserved2: u16,
  reserved3: u32,
  flags: u64n,
  address: u64n,
  ptid: u32,
});

/** `struct uffd_msg` with the union's `remap`; `remove` and the event of munmap(2) hold start and end in from and to. */
export const uffd_msg_remap = struct('uffd_msg_remap', 32, {
  event: u8,
  reserved1: u8,
  reserved2: u16,
  reserved3: u32,
  from: u64n,
  to: u64n,
  len: u64n,
});

/** `struct uffd_msg` with the union's `fork`. */
export const uffd_msg_fork = struct('uffd_msg_fork', 32, {
  event: u8,
  reserved1: u8,
  reserved2: u16,
  reserved3: u32,
  ufd: u32,
  __pad: bytes(20),
});
