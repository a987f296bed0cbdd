/** What a thread has of its own, beyond registers: name, robust futexes, restartable sequence, scheduling. */
import { robust_list_head } from '../abi/futex.ts';
import { PR_GET_PDEATHSIG, PR_GET_TID_ADDRESS, PR_SET_NAME, PR_SET_PDEATHSIG } from '../abi/prctl.ts';
import { rseq, rseq_cs } from '../abi/rseq.ts';
import { SCHED_FLAG_RESET_ON_FORK, SCHED_NORMAL, SCHED_RESET_ON_FORK, sched_attr } from '../abi/sched.ts';
import { viewOf } from '../abi/struct.ts';
import { bytesOf } from '../abi/text.ts';
import { NR } from '../abi/unistd.ts';
import type { CoreEntry } from '../image/tree.ts';
import { readMemory, readRanges } from '../sys/process_vm.ts';
import { Region } from '../sys/region.ts';
import { type OwnAttributes, restoreAttributes, saveAttributes, withScheduling } from './attributes.ts';
import { saveCredentials } from './credentials.ts';
import { resumable, saveRegisters } from './registers.ts';
import type { Remote } from './remote.ts';
import { seccompMode } from './seccomp.ts';
import { restoreAlternateStack, saveAlternateStack, savePending } from './signals.ts';
import type { Tracee } from './tracee.ts';

type ThreadCore = NonNullable<CoreEntry['thread_core']>;
type Rseq = NonNullable<ThreadCore['rseq_entry']>;

/** Asks for the state of one thread. */
export function saveThread(remote: Remote): () => CoreEntry {
  const { tracee } = remote;
  const tidAddress = askTidAddress(remote);
  const pdeath = remote.room(4);
  remote.call(NR.prctl, PR_GET_PDEATHSIG, pdeath.address, 0, 0, 0);
  const sas = saveAlternateStack(remote);
  const creds = saveCredentials(remote);
  const robustList = askRobustList(remote);
  const attr = remote.room(sched_attr.size);
  remote.call(NR.sched_getattr, 0, attr.address, sched_attr.size, 0);
  const registers = resumable(tracee.registers);
  const rseq_entry = saveRseq(tracee);
  const { status } = tracee;
  const attributes = saveAttributes(remote);
  return () => {
    const robust = robustList();
    const scheduling = sched_attr.read(attr.bytes);
    const { sched_nice, sched_policy, sched_priority, sched_flags } = scheduling;
    const pdeath_sig = viewOf(pdeath.bytes).getInt32(0, true);
    // All of one shape, also where some is undefined: code for other shapes is thrown away.
    const thread_core: ThreadCore = {
      futex_rla: BigInt(robust.head),
      futex_rla_len: robust.length,
      sched_nice,
      sched_policy: sched_policy | ((sched_flags & SCHED_FLAG_RESET_ON_FORK) === 0 ? 0 : SCHED_RESET_ON_FORK),
      sched_prio: sched_priority,
      blk_sigset: tracee.sigmask,
      sas: sas(),
      signals_p: { signals: savePending(tracee, false) },
      creds: creds(),
      comm: status.Name,
      rseq_entry,
      seccomp_mode: status.Seccomp === 0 ? undefined : seccompMode(status.Seccomp),
      pdeath_sig: undefined,
      attributes: withScheduling(attributes(), scheduling),
    };
    if (pdeath_sig !== 0) thread_core.pdeath_sig = pdeath_sig;
    return { mtype: 'X86_64', thread_info: saveRegisters(tracee, registers, tidAddress()), thread_core };
  };
}

/** Adds what the thread does itself; its registers come last, from outside. */
export function restoreThread(remote: Remote, core: CoreEntry, own: OwnAttributes): void {
  const { thread_info, thread_core } = core;
  remote.call(NR.set_tid_address, Number(thread_info!.clear_tid_addr));
  if (thread_core === undefined) return;
  const { futex_rla, futex_rla_len, sas, rseq_entry, comm } = thread_core;
  if (futex_rla !== 0n) remote.call(NR.set_robust_list, Number(futex_rla), futex_rla_len);
  if (sas !== undefined) restoreAlternateStack(remote, sas);
  if (rseq_entry !== undefined && rseq_entry.rseq_abi_pointer !== 0) {
    const { rseq_abi_pointer, rseq_abi_size, signature } = rseq_entry;
    remote.call(NR.rseq, rseq_abi_pointer, rseq_abi_size, 0, signature);
  }
  const name = comm ?? core.tc?.comm;
  if (name !== undefined) remote.call(NR.prctl, PR_SET_NAME, remote.text(bytesOf(name)));
  const { sched_policy, sched_prio, sched_nice, attributes } = thread_core;
  if (attributes !== undefined) restoreAttributes(remote, attributes, own);
  const ordinary = sched_policy === SCHED_NORMAL && attributes?.sched_runtime === undefined;
  const isOwn = ordinary && own.policy === SCHED_NORMAL && (sched_nice ?? 0) === own.nice;
  if (sched_policy !== undefined && !isOwn) {
    const attr = sched_attr.write({
      size: 48,
      sched_policy: sched_policy & ~SCHED_RESET_ON_FORK,
      sched_flags: (sched_policy & SCHED_RESET_ON_FORK) === 0 ? 0 : SCHED_FLAG_RESET_ON_FORK,
      sched_nice: sched_nice ?? 0,
      sched_priority: sched_prio ?? 0,
      sched_runtime: attributes?.sched_runtime ?? 0,
      sched_deadline: attributes?.sched_deadline ?? 0,
      sched_period: attributes?.sched_period ?? 0,
    });
    remote.call(NR.sched_setattr, 0, remote.put(attr), 0);
  }
}

/** Adds what a change of credentials would undo. The root has one of ours until then, see tree.ts. */
export function restoreParentDeathSignal(remote: Remote, { thread_core }: CoreEntry): void {
  remote.call(NR.prctl, PR_SET_PDEATHSIG, thread_core?.pdeath_sig ?? 0, 0, 0, 0);
}

function askTidAddress(remote: Remote): () => number {
  const room = remote.room(8);
  remote.call(NR.prctl, PR_GET_TID_ADDRESS, room.address, 0, 0, 0);
  const view = new DataView(room.bytes.buffer, room.bytes.byteOffset, 8);
  return () => view.getUint32(4, true) * 2 ** 32 + view.getUint32(0, true);
}

function askRobustList(remote: Remote): () => { head: number; length: number } {
  const { address, bytes } = remote.room(16);
  remote.call(NR.get_robust_list, 0, address, address + 8);
  const view = viewOf(bytes);
  return () => {
    const head = view.getUint32(4, true) * 2 ** 32 + view.getUint32(0, true);
    return { head, length: head === 0 ? robust_list_head.size : view.getUint32(8, true) };
  };
}

let scratch: Region | undefined;

function saveRseq({ rseq }: Tracee): Rseq | undefined {
  const { rseq_abi_pointer, rseq_abi_size, signature } = rseq;
  return rseq_abi_pointer === 0 ? undefined : { rseq_abi_pointer, rseq_abi_size, signature };
}

/**
 * Threads of a process that were stopped within a critical section go on at its abort handler, as the kernel makes them do
 * whenever it took the processor away: code of ours that runs in them meanwhile makes the kernel forget the section. rseq(2)
 */
export function leaveCriticalSections(pid: number, tracees: readonly Tracee[]): void {
  const registered = tracees.filter((tracee) => tracee.rseq.rseq_abi_pointer !== 0);
  for (let from = 0; from < registered.length; from += AT_ONCE) {
    const some = registered.slice(from, from + AT_ONCE);
    for (const [i, section] of sectionsOf(pid, some).entries()) if (section !== 0) leaveSection(some[i]!, section);
  }
}

const POINTER = 8;
const AT_ONCE = 4096 / POINTER;

/** Where their critical sections are described; 0 outside of any. */
function sectionsOf(pid: number, tracees: readonly Tracee[]): number[] {
  scratch ??= new Region(AT_ONCE * POINTER);
  const { address, view } = scratch;
  const ranges = tracees.map(({ rseq: { rseq_abi_pointer } }, i) => {
    return { there: rseq_abi_pointer + rseq.offsets.rseq_cs, here: address + i * POINTER, length: POINTER };
  });
  const number = (at: number) => view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
  if (readRanges(pid, ranges)) return tracees.map((_, i) => number(i * POINTER));
  // One of them has unmapped what it registered.
  return ranges.map(({ there }) => (readMemory(pid, there, address, POINTER) === POINTER ? number(0) : 0));
}

function leaveSection({ pid, registers }: Tracee, section: number): void {
  const { address, bytes } = scratch!;
  if (readMemory(pid, section, address, rseq_cs.size) !== rseq_cs.size) return;
  const { start_ip, post_commit_offset, abort_ip } = rseq_cs.read(bytes);
  const at = registers.number('rip');
  if (at >= start_ip && at < start_ip + post_commit_offset) registers.set('rip', abort_ip);
}
