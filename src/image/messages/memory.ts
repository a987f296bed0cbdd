/** Address spaces and their pages. */
import { bool, i32, message, repeated, required, s64n, string, u32, u64, u64n } from '../proto.ts';

/** vma_entry.status: what kind of mapping it is. */
export const VMA_AREA_REGULAR = 1 << 0;
export const VMA_AREA_STACK = 1 << 1;
export const VMA_AREA_VSYSCALL = 1 << 2;
export const VMA_AREA_VDSO = 1 << 3;
export const VMA_AREA_HEAP = 1 << 5;
export const VMA_FILE_PRIVATE = 1 << 6;
export const VMA_FILE_SHARED = 1 << 7;
export const VMA_ANON_SHARED = 1 << 8;
export const VMA_ANON_PRIVATE = 1 << 9;
export const VMA_AREA_SYSVIPC = 1 << 10;
export const VMA_AREA_SOCKET = 1 << 11;
export const VMA_AREA_VVAR = 1 << 12;
export const VMA_AREA_AIORING = 1 << 13;
export const VMA_AREA_MEMFD = 1 << 14;
export const VMA_AREA_SHSTK = 1 << 15;
/** Not a mapping: pages within one that MADV_GUARD_INSTALL guards. These stand after all others. */
export const VMA_AREA_GUARD = 1 << 16;
export const VMA_AREA_UPROBES = 1 << 17;

/** pagemap_entry.flags. */
export const PE_PARENT = 1 << 0;
export const PE_LAZY = 1 << 1;
export const PE_PRESENT = 1 << 2;

/** A mapping. `shmid` joins it: the file's id, or the id of the shared memory; pgoff is in bytes. */
export const vma_entry = message('vma_entry', {
  start: [1, u64n, required],
  end: [2, u64n, required],
  pgoff: [3, u64n, required],
  shmid: [4, u64n, required],
  prot: [5, u32, required],
  flags: [6, u32, required],
  status: [7, u32, required],
  fd: [8, s64n, required],
  madv: [9, u64],
  fdflags: [10, u32],
  // Not of CRIU, which leaves fields out that it does not know.
  /** PR_SET_VMA_ANON_NAME. */
  name: [1000, string],
  /** mseal(2). */
  sealed: [1001, bool],
  /** Locked by MLOCK_ONFAULT. */
  onfault: [1002, bool],
});

/** A ring of io_setup(2). */
export const aio_ring_entry = message('aio_ring_entry', {
  id: [1, u64n, required],
  nr_req: [2, u32, required],
  ring_len: [3, u32, required],
});

/** An address space: struct prctl_mm_map and the mappings. */
export const mm_entry = message('mm_entry', {
  mm_start_code: [1, u64n, required],
  mm_end_code: [2, u64n, required],
  mm_start_data: [3, u64n, required],
  mm_end_data: [4, u64n, required],
  mm_start_stack: [5, u64n, required],
  mm_start_brk: [6, u64n, required],
  mm_brk: [7, u64n, required],
  mm_arg_start: [8, u64n, required],
  mm_arg_end: [9, u64n, required],
  mm_env_start: [10, u64n, required],
  mm_env_end: [11, u64n, required],
  exe_file_id: [12, u32, required],
  mm_saved_auxv: [13, u64, repeated],
  vmas: [14, vma_entry, repeated],
  dumpable: [15, i32],
  aios: [16, aio_ring_entry, repeated],
  thp_disabled: [17, bool],
  // Not of CRIU.
  /** Flags of PR_SET_THP_DISABLE. */
  thp_flags: [1000, u32],
  /** PR_SET_MEMORY_MERGE. */
  memory_merge: [1001, bool],
  /** Flags of mlockall(2) for mappings to come. */
  lock_future: [1002, u32],
});

/** First entry of a pagemap: pages_id names the pages-N.img that has the contents. */
export const pagemap_head = message('pagemap_head', {
  pages_id: [1, u32, required],
});

/** A run of pages. CRIU before 4.2 knows compat_nr_pages only. */
export const pagemap_entry = message('pagemap_entry', {
  vaddr: [1, u64n, required],
  compat_nr_pages: [2, u32, required],
  in_parent: [3, bool],
  flags: [4, u32],
  nr_pages: [5, u64n],
});
