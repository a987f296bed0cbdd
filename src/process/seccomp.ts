/**
 * What system calls a thread may make: seccomp(2). Filters form chains, the newest first, of which threads may share the older ones.
 * While a process is saved or restored its filters are suspended (PTRACE_O_SUSPEND_SECCOMP): they would see calls of ours.
 */
import { PR_SET_SECCOMP } from '../abi/prctl.ts';
import {
  PTRACE_O_EXITKILL,
  PTRACE_O_SUSPEND_SECCOMP,
  PTRACE_O_TRACESYSGOOD,
  PTRACE_SECCOMP_GET_FILTER,
  PTRACE_SECCOMP_GET_METADATA,
} from '../abi/ptrace.ts';
import * as abi from '../abi/seccomp.ts';
import { viewOf } from '../abi/struct.ts';
import { NR } from '../abi/unistd.ts';
import { FormatError, UnsupportedError } from '../errors.ts';
import type { seccomp_filter } from '../image/messages/task.ts';
import type { Value } from '../image/proto.ts';
import type { CoreEntry } from '../image/tree.ts';
import { fileName, images } from '../image/types.ts';
import { ptrace } from '../sys/ptrace.ts';
import type { Remote } from './remote.ts';
import type { Saving } from './saving.ts';
import { setOptions } from './tracee.ts';

export type Filter = Value<typeof seccomp_filter>;
type Mode = NonNullable<NonNullable<CoreEntry['thread_core']>['seccomp_mode']>;

const SIZEOF_INSTRUCTION = 8;
/** BPF_RET | BPF_K: linux/bpf_common.h */
const RETURN = 0x06;

/** @param seccomp of /proc/PID/status */
export function seccompMode(seccomp: number): Mode {
  if (seccomp === abi.SECCOMP_MODE_STRICT) return 'strict';
  return seccomp === abi.SECCOMP_MODE_FILTER ? 'filter' : 'disabled';
}

/** Reads the filters of a stopped thread. @returns the place of the newest in the image @throws UnsupportedError */
export function saveFilters(pid: number, tid: number, { filters }: Saving): number {
  const chain: Omit<Filter, 'prev'>[] = [];
  for (let index = 0; ; index++) {
    const length = ptrace.attempt({ request: PTRACE_SECCOMP_GET_FILTER, pid: tid, addr: index, data: 0 });
    if (length < 0 && index > 0) break;
    const filter = new Uint8Array(SIZEOF_INSTRUCTION * Math.max(0, length));
    ptrace({ request: PTRACE_SECCOMP_GET_FILTER, pid: tid, addr: index, data: filter });
    if (listens(filter)) {
      throw new UnsupportedError({
        pid,
        what: `seccomp of thread ${tid}`,
        why: 'a filter hands system calls to another process (SECCOMP_RET_USER_NOTIF)',
        remedy: 'start the program without that',
      });
    }
    chain.unshift({ filter, flags: flagsOf(tid, index) });
  }
  let prev: number | undefined;
  for (const one of chain) {
    const known = filters.findIndex(
      (each) => each.prev === prev && each.flags === one.flags && Buffer.compare(each.filter, one.filter) === 0,
    );
    prev = known >= 0 ? known : filters.push(prev === undefined ? one : { ...one, prev }) - 1;
  }
  return prev!;
}

/** struct seccomp_metadata: the place of the filter, and its flags. */
function flagsOf(tid: number, index: number): number {
  const data = new Uint8Array(16);
  viewOf(data).setUint32(0, index, true);
  ptrace({ request: PTRACE_SECCOMP_GET_METADATA, pid: tid, addr: data.length, data });
  return viewOf(data).getUint32(8, true);
}

function listens(filter: Uint8Array): boolean {
  const view = viewOf(filter);
  for (let at = 0; at < filter.length; at += SIZEOF_INSTRUCTION) {
    const action = (view.getUint32(at + 4, true) & abi.SECCOMP_RET_ACTION_FULL) >>> 0;
    if (view.getUint16(at, true) === RETURN && action === abi.SECCOMP_RET_USER_NOTIF) return true;
  }
  return false;
}

/** The filters of a thread, the oldest first, by their places in the image. */
function chainOf({ thread_core }: CoreEntry, filters: readonly Filter[]): number[] {
  const chain: number[] = [];
  if (thread_core?.seccomp_mode !== 'filter') return chain;
  for (let at = thread_core.seccomp_filter; at !== undefined; at = filters[at]!.prev) {
    if (filters[at] === undefined || chain.length > filters.length) {
      throw new FormatError({ file: fileName(images.SECCOMP), field: 'prev', expected: 'a filter', found: `${at}` });
    }
    chain.unshift(at);
  }
  return chain;
}

/**
 * Adds the calls that install what all threads of a process have in common, while it has but one: the others are to have the very same
 * filters, or SECCOMP_FILTER_FLAG_TSYNC would not take them along.
 *
 * @returns how many there are
 */
export function restoreCommonFilters(leader: Remote, cores: readonly CoreEntry[], filters: readonly Filter[]): number {
  const chains = cores.map((core) => chainOf(core, filters));
  const [first] = chains;
  let common = 0;
  while (common < first!.length && chains.every((chain) => chain[common] === first![common])) common++;
  if (common > 0) suspend(leader);
  install(leader, first!.slice(0, common), filters);
  return common;
}

/**
 * Adds the calls that install the other ones, the oldest first, while the thread may still do that without no_new_privs; they count from
 * when it is let go of.
 *
 * @param common how many it has already
 */
export function restoreSeccomp(remote: Remote, core: CoreEntry, filters: readonly Filter[], common: number): void {
  const { seccomp_mode = 'disabled' } = core.thread_core ?? {};
  if (seccomp_mode === 'disabled') return;
  suspend(remote);
  if (seccomp_mode === 'strict') remote.call(NR.prctl, PR_SET_SECCOMP, abi.SECCOMP_MODE_STRICT, 0, 0, 0);
  else install(remote, chainOf(core, filters).slice(common), filters);
}

function suspend(remote: Remote): void {
  remote.finish();
  setOptions(remote.tracee.tid, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | PTRACE_O_SUSPEND_SECCOMP);
}

function install(remote: Remote, chain: readonly number[], filters: readonly Filter[]): void {
  for (const place of chain) {
    const { filter, flags } = filters[place]!;
    remote.reserve(1, filter.length + 64);
    const program = { len: filter.length / SIZEOF_INSTRUCTION, filter: remote.put(filter) };
    const at = remote.put(abi.sock_fprog.write(program));
    remote.call(NR.seccomp, abi.SECCOMP_SET_MODE_FILTER, flags ?? 0, at);
  }
}
