/** What threads and processes have that CRIU leaves behind: scheduling beyond nice, input and output, NUMA, the processor. */
import { writeFileSync } from 'node:fs';
import { AT_FDCWD, O_CLOEXEC, O_WRONLY } from '../abi/fcntl.ts';
import { IOPRIO_WHO_PROCESS } from '../abi/ioprio.ts';
import * as prctl from '../abi/prctl.ts';
import { SCHED_BATCH, SCHED_DEADLINE, SCHED_NORMAL, sched_attr } from '../abi/sched.ts';
import { viewOf } from '../abi/struct.ts';
import { NR } from '../abi/unistd.ts';
import type { thread_attributes_entry } from '../image/messages/task.ts';
import type { Value } from '../image/proto.ts';
import type { CoreEntry } from '../image/tree.ts';
import { close, openat } from '../sys/files.ts';
import { readTaskText } from '../sys/proc.ts';
import { ioprio_get, sched_getaffinity, sched_getattr } from '../sys/process.ts';
import { ordinarySlice } from './haste.ts';
import { lend, type Remote } from './remote.ts';

export type Attributes = Value<typeof thread_attributes_entry>;
type TaskCore = NonNullable<CoreEntry['tc']>;

/** Processors and nodes that a mask has room for: more than a kernel has (CONFIG_NR_CPUS, MAX_NUMNODES). */
const CPUS = 8192;
const NODES = 1024;
const SPECULATION = [prctl.PR_SPEC_STORE_BYPASS, prctl.PR_SPEC_INDIRECT_BRANCH, prctl.PR_SPEC_L1D_FLUSH];
/** How a thread is told to be of those that can be: PR_SPEC_PRCTL says that it can. */
const CHOSEN = prctl.PR_SPEC_DISABLE | prctl.PR_SPEC_FORCE_DISABLE | prctl.PR_SPEC_DISABLE_NOEXEC;

/** Asks a thread. What a processor or kernel does not have is not in the answer. */
export function saveAttributes(remote: Remote): () => Attributes {
  const slack = remote.call(NR.prctl, prctl.PR_GET_TIMERSLACK, 0, 0, 0, 0);
  const ioprio = remote.attempt(NR.ioprio_get, IOPRIO_WHO_PROCESS, 0);
  const cpus = remote.room(CPUS / 8);
  const affinity = remote.call(NR.sched_getaffinity, 0, CPUS / 8, cpus.address);
  const mce = remote.attempt(NR.prctl, prctl.PR_MCE_KILL_GET, 0, 0, 0, 0);
  const tsc = remote.room(4);
  remote.attempt(NR.prctl, prctl.PR_GET_TSC, tsc.address, 0, 0, 0);
  const cpuid = remote.attempt(NR.arch_prctl, prctl.ARCH_GET_CPUID, 0);
  const speculation = SPECULATION.map((which) =>
    remote.attempt(NR.prctl, prctl.PR_GET_SPECULATION_CTRL, which, 0, 0, 0),
  );
  const [mode, nodes] = [remote.room(4), remote.room(NODES / 8)];
  const policy = remote.attempt(NR.get_mempolicy, mode.address, nodes.address, NODES, 0, 0);
  return () => {
    const found: Attributes = { timer_slack: remote.result(slack), speculation: [] };
    if (remote.result(ioprio) >= 0) found.ioprio = remote.result(ioprio);
    found.affinity = trimmed(cpus.bytes.subarray(0, remote.result(affinity)));
    if (remote.result(mce) >= 0 && remote.result(mce) !== prctl.PR_MCE_KILL_DEFAULT)
      found.mce_kill = remote.result(mce);
    if (tsc.bytes[0]! > prctl.PR_TSC_ENABLE) found.tsc = tsc.bytes[0]!;
    if (remote.result(cpuid) === 0) found.cpuid = 0;
    const controls = speculation.map((index) => Math.max(0, remote.result(index)));
    if (controls.some((control) => (control & prctl.PR_SPEC_PRCTL) !== 0 && (control & CHOSEN) !== 0)) {
      found.speculation = controls;
    }
    const chosen = viewOf(mode.bytes).getUint32(0, true);
    if (remote.result(policy) === 0 && chosen !== 0) {
      found.mempolicy = chosen;
      found.nodes = trimmed(nodes.bytes);
    }
    return found;
  };
}

/** What a new process has from this one. */
export interface OwnAttributes {
  readonly policy: number;
  readonly nice: number;
  readonly ioprio: number;
  readonly affinity: Uint8Array;
}

export function ownAttributes(): OwnAttributes {
  const mask = new Uint8Array(CPUS / 8);
  const length = sched_getaffinity({ pid: 0, cpusetsize: mask.length, mask });
  const attr = sched_attr.write({});
  sched_getattr({ pid: 0, attr, size: attr.length, flags: 0 });
  const { sched_policy, sched_nice } = sched_attr.read(attr);
  return {
    policy: sched_policy,
    nice: sched_nice,
    ioprio: ioprio_get({ which: IOPRIO_WHO_PROCESS, who: 0 }),
    affinity: trimmed(mask.subarray(0, length)),
  };
}

/** Adds the calls that set what is not as this process has it. Before the scheduling policy: SCHED_DEADLINE needs its processors. */
export function restoreAttributes(remote: Remote, attributes: Attributes, own: OwnAttributes): void {
  const { timer_slack, ioprio, affinity, mce_kill, tsc, cpuid, mempolicy, nodes } = attributes;
  remote.reserve(12, 4096);
  // Threads with a real-time policy have none.
  if (timer_slack) remote.call(NR.prctl, prctl.PR_SET_TIMERSLACK, timer_slack, 0, 0, 0);
  if (ioprio !== undefined && ioprio !== own.ioprio) remote.call(NR.ioprio_set, IOPRIO_WHO_PROCESS, 0, ioprio);
  if (affinity !== undefined && Buffer.compare(affinity, own.affinity) !== 0) {
    remote.call(NR.sched_setaffinity, 0, affinity.length, remote.put(affinity));
  }
  if (mce_kill !== undefined) remote.call(NR.prctl, prctl.PR_MCE_KILL, prctl.PR_MCE_KILL_SET, mce_kill, 0, 0);
  if (tsc !== undefined) remote.call(NR.prctl, prctl.PR_SET_TSC, tsc, 0, 0, 0);
  if (cpuid === 0) remote.call(NR.arch_prctl, prctl.ARCH_SET_CPUID, 0);
  for (const [which, control] of attributes.speculation.entries()) {
    const chosen = control & CHOSEN;
    if ((control & prctl.PR_SPEC_PRCTL) === 0 || chosen === 0) continue;
    remote.call(NR.prctl, prctl.PR_SET_SPECULATION_CTRL, which, chosen, 0, 0);
  }
  if (mempolicy !== undefined && nodes !== undefined) {
    const mask = new Uint8Array(NODES / 8);
    mask.set(nodes);
    remote.call(NR.set_mempolicy, mempolicy, remote.put(mask), NODES);
  }
}

/** Adds to the attributes what sched_getattr(2) says of SCHED_DEADLINE, and of a slice of its own. */
export function withScheduling(attributes: Attributes, attr: ReturnType<typeof sched_attr.read>): Attributes {
  const { sched_policy, sched_runtime, sched_deadline, sched_period } = attr;
  if (sched_policy === SCHED_DEADLINE) return { ...attributes, sched_runtime, sched_deadline, sched_period };
  const hasSlice = sched_policy === SCHED_NORMAL || sched_policy === SCHED_BATCH;
  return hasSlice && sched_runtime !== ordinarySlice() ? { ...attributes, sched_runtime } : attributes;
}

/** Without the zeros at its end. */
function trimmed(mask: Uint8Array): Uint8Array {
  let length = mask.length;
  while (length > 1 && mask[length - 1] === 0) length--;
  return mask.slice(0, length);
}

export type ProcFiles = Pick<TaskCore, 'loginuid' | 'oom_score_adj' | 'coredump_filter'>;

/** What stands in files of /proc. A kernel that lacks one has nothing to keep either. */
export function saveProcFiles(pid: number | 'self'): ProcFiles {
  const [loginuid, oom, filter] = ['loginuid', 'oom_score_adj', 'coredump_filter'].map((name) => read(pid, name));
  return {
    ...(loginuid === undefined ? {} : { loginuid: Number(loginuid) }),
    ...(oom === undefined ? {} : { oom_score_adj: Number(oom) }),
    ...(filter === undefined ? {} : { coredump_filter: Number.parseInt(filter, 16) }),
  };
}

function read(pid: number | 'self', name: string): string | undefined {
  try {
    return readTaskText(`/proc/${pid}/${name}`);
  } catch {
    return undefined;
  }
}

/** Writes what is not as this process has it. */
export function restoreProcFiles(remote: Remote, tc: TaskCore, own: ProcFiles): void {
  const { pid } = remote.scratch;
  const { oom_score_adj, coredump_filter } = tc;
  if (oom_score_adj !== undefined && oom_score_adj !== own.oom_score_adj) {
    writeFileSync(`/proc/${pid}/oom_score_adj`, `${oom_score_adj}`);
  }
  if (coredump_filter !== undefined && coredump_filter !== own.coredump_filter)
    writeFileSync(`/proc/${pid}/coredump_filter`, `${coredump_filter}`);
}

/** A process may only write its own. @param keep see lend() */
export function restoreLoginUid(remote: Remote, { loginuid }: TaskCore, own: ProcFiles, keep: number): void {
  if (loginuid === undefined || loginuid === own.loginuid) return;
  const pathname = `/proc/${remote.scratch.pid}/loginuid`;
  const fd = openat({ dirfd: AT_FDCWD, pathname, flags: O_WRONLY | O_CLOEXEC, mode: 0 });
  const text = Buffer.from(`${loginuid}`);
  const lent = lend(remote, keep, fd);
  const written = remote.call(NR.write, 0, remote.put(text), text.length);
  const closed = remote.call(NR.close, 0);
  remote.passResult(lent, written, 0);
  remote.passResult(lent, closed, 0);
  remote.run();
  close({ fd });
}
