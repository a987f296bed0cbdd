/** Waiting for other processes: include/uapi/linux/wait.h, and the status word of wait(2) taken apart */

export const WNOHANG = 0x1;
export const WUNTRACED = 0x2;
export const WSTOPPED = 0x2;
export const WEXITED = 0x4;
export const WCONTINUED = 0x8;
export const WNOWAIT = 0x1000000;
export const __WNOTHREAD = 0x20000000;
export const __WALL = 0x40000000;
export const __WCLONE = 0x80000000;

/** Which ids waitid(2) takes. */
export const P_ALL = 0;
export const P_PID = 1;
export const P_PGID = 2;
export const P_PIDFD = 3;

/** What a status word says. `event` is PTRACE_EVENT_*, or 0 for a stop by a signal. */
export type WaitStatus =
  | { readonly kind: 'exited'; readonly code: number }
  | { readonly kind: 'killed'; readonly signal: number; readonly core: boolean }
  | { readonly kind: 'stopped'; readonly signal: number; readonly event: number }
  | { readonly kind: 'continued' };

/** WIFEXITED and its siblings of wait(2), and the event that ptrace(2) puts above them. */
export function waitStatus(status: number): WaitStatus {
  if (status === 0xffff) return { kind: 'continued' };
  if ((status & 0xff) === 0x7f) return { kind: 'stopped', signal: (status >> 8) & 0xff, event: status >>> 16 };
  if ((status & 0x7f) === 0) return { kind: 'exited', code: (status >> 8) & 0xff };
  return { kind: 'killed', signal: status & 0x7f, core: (status & 0x80) !== 0 };
}
