/** Rings of io_uring_setup(2): tideover's own, as CRIU cannot save them. In `files` such a file is of type EXT. */
import { message, repeated, required, u32 } from '../proto.ts';
import { fown_entry } from './descriptors.ts';

/** A ring that is idle: what was put in has been done, and what came out was taken. */
export const io_uring_file_entry = message('io_uring_file_entry', {
  id: [1, u32, required],
  flags: [2, u32, required],
  fown: [3, fown_entry, required],
  sq_entries: [4, u32, required],
  cq_entries: [5, u32, required],
  /** IORING_SETUP_*, as far as they can be told. */
  setup_flags: [6, u32, required],
  /** How many requests there were, and how many completions, modulo 2^32. */
  sq_head: [7, u32, required],
  cq_head: [8, u32, required],
  /**
   * Where the kernel kept the parts of the ring, in bytes: those of struct io_sqring_offsets from head to array, then those of
   * struct io_cqring_offsets from head to flags.
   */
  offsets: [9, u32, repeated],
});
