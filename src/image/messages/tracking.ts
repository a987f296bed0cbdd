/**
 * Which processes are watched for what they write after an image was made: tideover's own, as CRIU leaves that to the kernel
 * alone. An image that builds on this one is only right while nobody else has begun to watch anew.
 */
import { message, repeated, required, string, u32, u64n } from '../proto.ts';

/** A process, by what no later one has: its id, and when it was started (proc_pid_stat(5)). */
export const tracked_entry = message('tracked_entry', {
  pid: [1, u32, required],
  starttime: [2, u64n, required],
  /** Of one with memory in the image: its id there, which is another one in a PID namespace of its own. */
  id: [3, u32],
});

export const tracking_entry = message('tracking_entry', {
  /** Of the process that holds it all; it is another one for every image. */
  tracker: [1, tracked_entry, required],
  /** /proc/sys/kernel/random/boot_id. */
  boot_id: [2, string, required],
  tracked: [3, tracked_entry, repeated],
});
