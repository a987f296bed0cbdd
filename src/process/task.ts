/** One process as a whole, from being stopped to the entries of the image. */
import { Errno } from '../abi/errno.ts';
import { KCMP_FILES, KCMP_FS, KCMP_SIGHAND, KCMP_VM } from '../abi/kcmp.ts';
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE } from '../abi/mman.ts';
import { PR_GET_CHILD_SUBREAPER } from '../abi/prctl.ts';
import { SIG_IGN, SIGCHLD, SIGTRAP } from '../abi/signal.ts';
import { NR } from '../abi/unistd.ts';
import { SyscallError } from '../errors.ts';
import { VMA_AREA_VDSO } from '../image/messages/memory.ts';
import { TASK_ALIVE, TASK_DEAD, TASK_STOPPED } from '../image/messages/task.ts';
import type { VmaEntry } from '../image/pages.ts';
import type { CoreEntry, FsEntry, IdsEntry, MmEntry } from '../image/tree.ts';
import { readTaskText } from '../sys/proc.ts';
import { readStat } from '../sys/stat.ts';
import { saveProcFiles } from './attributes.ts';
import { cgroupsOf } from './cgroups.ts';
import { Doorstep } from './doorstep.ts';
import type { Descriptor, FileTables } from './files/table.ts';
import type { FrozenProcess } from './freeze.ts';
import { saveLimits } from './limits.ts';
import { saveMm, saveVmas } from './mm.ts';
import type { NamespaceIds, Namespaces } from './namespaces.ts';
import { ObjectSet } from './objects.ts';
import { findPages } from './pages.ts';
import { refuseExecutable, refuseStopped } from './refused.ts';
import { writeFrame } from './registers.ts';
import { Remote } from './remote.ts';
import { NO_RUNS, type Runs, unknownRuns } from './runs.ts';
import type { Saving } from './saving.ts';
import { copyAll, quietSignal, Scratch, saveLayout, scratchSize, slotOf } from './scratch.ts';
import { saveFilters } from './seccomp.ts';
import { hasLeader } from './sessions.ts';
import { saveActions, savePending } from './signals.ts';
import { leaveCriticalSections, saveThread } from './thread.ts';
import { saveTimers } from './timers.ts';
import { timeLeft } from './waits.ts';

/** The entries of one process. A zombie has but `cores` and its place in the tree. */
export interface SavedTask {
  /** Ids are those of the image, but for this one. */
  readonly host: number;
  readonly pid: number;
  readonly ppid: number;
  readonly pgid: number;
  readonly sid: number;
  readonly zombie: boolean;
  readonly threads: readonly { readonly tid: number; readonly core: CoreEntry }[];
  readonly ids: IdsEntry;
  readonly mm?: MmEntry;
  readonly fs?: FsEntry;
  readonly descriptors?: readonly Descriptor[];
  readonly vmas: readonly VmaEntry[];
  readonly pages: Runs;
  /** Pages that an earlier image has, and that are as they were. */
  readonly unchanged: Runs;
}

/** Numbers of kernel objects: processes that share one have the same number. */
export class SharedObjects {
  readonly #sets = [KCMP_VM, KCMP_FILES, KCMP_FS, KCMP_SIGHAND].map((type) => new ObjectSet<number>(type));
  readonly #namespaces: NamespaceIds;
  #last = 0;

  constructor({ ids }: Namespaces) {
    this.#namespaces = ids;
  }

  of(pid: number): IdsEntry {
    const [vm_id, files_id, fs_id, sighand_id] = this.#sets.map((set) =>
      set.find({ pid, index: 0 }, () => ++this.#last),
    );
    return { vm_id: vm_id!, files_id: files_id!, fs_id: fs_id!, sighand_id: sighand_id!, ...this.#namespaces };
  }
}

/** The memory and the helpers that a stopped process gets for as long as it is saved. */
export class Guest {
  readonly process: FrozenProcess;
  readonly #doorstep: Doorstep;
  #remotes: readonly Remote[] = [];
  #scratch: Scratch | undefined;
  /** A call at the doorstep that was begun: how it goes on. */
  #pending: readonly ('cross' | 'enter' | 'leave')[] = [];

  /** Becomes a guest by beginEntry(), crossDoorstep(), enter(). @param vdso that of the process */
  constructor(process: FrozenProcess, vdso: { readonly end: number } | undefined) {
    this.process = process;
    this.#doorstep = new Doorstep(process.pid, vdso);
  }

  get remotes(): readonly Remote[] {
    return this.#remotes;
  }

  /** Begins to map the scratch memory. */
  beginEntry(): void {
    const { pid, threads } = this.process;
    for (const thread of threads) refuseStopped(pid, thread.tid);
    leaveCriticalSections(pid, threads);
    const size = scratchSize(slotOf(saveLayout, threads.length));
    const [prot, flags] = [PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS];
    this.#doorstep.begin(threads[0]!, NR.mmap, 0, size, prot, flags, -1, 0);
    this.#pending = ['cross', 'enter'];
  }

  /** Between the beginning and the end of both entry and exit. */
  crossDoorstep(): void {
    this.#doorstep.cross(this.process.threads[0]!);
    this.#pending = this.#pending.slice(1);
  }

  enter(): void {
    const { pid, threads } = this.process;
    const address = this.#doorstep.end(threads[0]!);
    this.#pending = [];
    if (address === -Errno.EACCES) throw refuseExecutable(pid);
    if (address < 0) throw new SyscallError('mmap', `mmap(scratch) in process ${pid}`, -address);
    const scratch = new Scratch(
      pid,
      address,
      scratchSize(slotOf(saveLayout, threads.length)),
      quietSignal(threads.map((thread) => thread.status)),
    );
    this.#scratch = scratch;
    scratch.install();
    const { leader, thread: others } = saveLayout;
    this.#remotes = threads.map(
      (thread, i) => new Remote(thread, scratch, i === 0 ? leader : others, slotOf(saveLayout, i)),
    );
    copyAll(scratch, this.#remotes.map(writeFrame));
    for (const remote of this.#remotes) remote.enter();
  }

  /** Begins to take the scratch memory away, if there is any. The threads stand where they were found. */
  beginExit(): boolean {
    const scratch = this.#scratch;
    if (scratch === undefined) return false;
    const { threads } = this.process;
    for (const thread of threads) thread.putBack();
    this.#doorstep.begin(threads[0]!, NR.munmap, scratch.address, scratch.size);
    this.#pending = ['cross', 'leave'];
    scratch[Symbol.dispose]();
    this.#scratch = undefined;
    return true;
  }

  leave(): void {
    const { pid, threads } = this.process;
    const result = this.#doorstep.end(threads[0]!);
    this.#pending = [];
    if (result < 0) throw new SyscallError('munmap', `munmap(scratch) in process ${pid}`, -result);
  }

  /** Brings to its end what was begun, after something went wrong with another one. */
  settle(): void {
    for (const remote of this.#remotes) remote.finish();
    if (this.#pending[0] === 'cross') this.crossDoorstep();
    if (this.#pending[0] === 'enter') this.enter();
    if (this.#pending[0] === 'leave') this.leave();
  }

  [Symbol.dispose](): void {
    this.#doorstep[Symbol.dispose]();
    this.#scratch?.[Symbol.dispose]();
  }
}

export function isVdso({ status }: VmaEntry): boolean {
  return (status & VMA_AREA_VDSO) !== 0;
}

/** All processes go on at the same time: a stop of each after the other would take longer than what they do. */
export function enterAll(guests: readonly Guest[]): void {
  for (const guest of guests) guest.beginEntry();
  for (const guest of guests) guest.crossDoorstep();
  for (const guest of guests) guest.enter();
}

export function leaveAll(guests: readonly Guest[]): void {
  const left = guests.filter((guest) => guest.beginExit());
  for (const guest of left) guest.crossDoorstep();
  for (const guest of left) guest.leave();
}

/** What is collected of a process before code runs in it. */
export interface Outside {
  readonly vmas: VmaEntry[];
  readonly descriptors: readonly Descriptor[];
  readonly ids: IdsEntry;
  readonly fs: FsEntry;
  readonly pages: Runs;
  /** Pages that an earlier image has, and that are as they were. */
  readonly unchanged: Runs;
}

/** include/uapi/linux/membarrier.h, Linux 6.3. */
const MEMBARRIER_CMD_GET_REGISTRATIONS = 1 << 9;

/** What /proc tells. @throws UnsupportedError for what cannot be saved */
export function saveOutside(
  process: { readonly pid: number; readonly umask: number | undefined },
  saving: Saving,
  tables: FileTables,
  objects: SharedObjects,
): Outside {
  const { pid, umask } = process;
  const ids = objects.of(pid);
  const descriptors = tables.save(pid);
  const vmas = saveVmas(pid, saving);
  const cwd_id = saving.path(pid, `/proc/${pid}/cwd`, 0);
  const root_id = saving.path(pid, `/proc/${pid}/root`, 0);
  const fs = { cwd_id, root_id, ...(umask === undefined ? {} : { umask }) };
  return { vmas, descriptors, ids, fs, ...pagesOf(pid, vmas, saving) };
}

/** Pages to be saved, and those that need not be; or only how many there are, where a snapshot will tell. */
function pagesOf(pid: number, vmas: readonly VmaEntry[], { foresight, options: { tracking } }: Saving) {
  const size = foresight?.sizeOf(pid);
  if (size !== undefined) return { pages: unknownRuns(size), unchanged: NO_RUNS };
  if (tracking !== undefined) return tracking.divide(pid, vmas);
  return { pages: findPages(pid, vmas).pages, unchanged: NO_RUNS };
}

/**
 * Asks for what only the process itself can tell.
 *
 * @returns waits for the answer, and puts it together with what was collected
 */
export function saveTask(guest: Guest, outside: Outside, saving: Saving): () => SavedTask {
  const { process, remotes } = guest;
  const { pid, status, threads } = process;
  const leader = remotes[0]!;
  const actions = saveActions(leader);
  const mm = saveMm(leader, outside.vmas, saving);
  const limits = saveLimits(leader);
  const reaper = leader.room(4);
  leader.call(NR.prctl, PR_GET_CHILD_SUBREAPER, reaper.address, 0, 0, 0);
  const barriers = leader.attempt(NR.membarrier, MEMBARRIER_CMD_GET_REGISTRATIONS, 0, 0);
  const timers = saveTimers(leader, saving.ids);
  const answers = remotes.map(saveThread);
  Remote.startAll(remotes);
  return () => {
    Remote.finishAll(remotes);
    const sigactions = actions();
    // A breakpoint or step of another tracer may have reset it; what /proc said when the process was stopped counts.
    const at = SIGTRAP - 1;
    if ((status.SigIgn & (1n << BigInt(at))) !== 0n) {
      sigactions[at] = { ...sigactions[at]!, sigaction: BigInt(SIG_IGN) };
    }
    const [mmEntry, rlimits, timersEntry] = [mm(), limits(), timers()];
    const registrations = leader.result(barriers);
    const subreaper = reaper.bytes[0] !== 0;
    const saved = answers.map((answer, i) => ({
      tid: saving.ids.inside(threads[i]!.tid, threads[i]!.status),
      core: answer(),
    }));
    for (const [i, { core }] of saved.entries()) {
      const { tid } = threads[i]!;
      const left = timeLeft(threads[i]!, saving.waits, saving.stoppedAt);
      if (left !== undefined) core.thread_core!.attributes!.call_left = left;
      if (core.thread_core!.seccomp_mode === 'filter') core.thread_core!.seccomp_filter = saveFilters(pid, tid, saving);
    }
    const stat = readStat(pid);
    const stopped = threads[0]!.stopSignal;
    saved[0]!.core.tc = {
      task_state: stopped === 0 ? TASK_ALIVE : TASK_STOPPED,
      exit_code: 0,
      flags: stat.flags,
      blk_sigset: threads[0]!.sigmask,
      comm: status.Name,
      timers: timersEntry,
      rlimits: { rlimits },
      signals_s: { signals: savePending(threads[0]!, true) },
      ...readTaskFiles(pid),
      cgroups: cgroupsOf(pid),
      sigactions,
      child_subreaper: subreaper,
      ...(registrations > 0 ? { membarrier_registration_mask: registrations } : {}),
      ...(stopped === 0 ? {} : { stop_signo: stopped }),
      ...(hasLeader(stat.session) ? {} : { session_left: true }),
      ...(stat.exit_signal === SIGCHLD ? {} : { exit_signal: stat.exit_signal }),
    };
    return { ...placeOf(process, saving), zombie: false, threads: saved, mm: mmEntry, ...outside };
  };
}

/** What stands in files of /proc that saveTask() alone reads: once before, so that they are at hand then. See keepTaskFiles(). */
export function readTaskFiles(pid: number) {
  return { personality: Number.parseInt(readTaskText(`/proc/${pid}/personality`), 16), ...saveProcFiles(pid) };
}

/** A process that ended and that nobody has waited for. */
export function saveZombie(process: FrozenProcess, saving: Saving): SavedTask {
  const { exit_code, exit_signal, comm, session } = readStat(process.pid);
  const tc = {
    ...{
      task_state: TASK_DEAD,
      exit_code,
      personality: 0,
      flags: 0,
      blk_sigset: 0n,
      comm,
      sigactions: [],
      cgroups: [],
    },
    ...(hasLeader(session) ? {} : { session_left: true }),
    ...(exit_signal === SIGCHLD ? {} : { exit_signal }),
  };
  const core: CoreEntry = { mtype: 'X86_64', tc };
  const ids = { vm_id: 0, files_id: 0, fs_id: 0, sighand_id: 0 };
  const place = placeOf(process, saving);
  const threads = [{ tid: place.pid, core }];
  return { ...place, zombie: true, threads, ids, vmas: [], pages: NO_RUNS, unchanged: NO_RUNS };
}

/** The parent of the root is not in the image. */
function placeOf({ pid, ppid }: FrozenProcess, { ids }: Saving) {
  return { host: pid, pid: ids.inside(pid), ppid: ids.inside(ppid), ...ids.groupOf(pid) };
}
