/** An image for people: whose it is, its processes, their memory and their open files. */
import { MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE } from '../abi/mman.ts';
import { FormatError } from '../errors.ts';
import { count } from './count.ts';
import type { ImageInfo } from './info.ts';
import {
  VMA_AREA_GUARD,
  VMA_AREA_HEAP,
  VMA_AREA_STACK,
  VMA_AREA_VDSO,
  VMA_AREA_VSYSCALL,
  VMA_AREA_VVAR,
} from './messages/memory.ts';
import { TASK_STOPPED } from './messages/task.ts';
import { MemoryImage, PageRuns, sharedMemoryOf, type VmaEntry } from './pages.ts';
import { type ImageStore, withSource } from './store.ts';
import { type FileEntry, type ImageTask, type ImageTree, readTree } from './tree.ts';
import { fileName, images } from './types.ts';

export interface Description {
  /** undefined for an image that CRIU made. */
  readonly info: ImageInfo | undefined;
  readonly tasks: readonly TaskDescription[];
  /** Shared memory: its id and the bytes that the image has of it. */
  readonly shared: readonly { readonly id: number; readonly size: number }[];
}

export interface TaskDescription {
  readonly pid: number;
  readonly ppid: number;
  readonly pgid: number;
  readonly sid: number;
  readonly comm: string;
  readonly state: 'running' | 'stopped' | 'zombie';
  readonly args: string;
  readonly uid: number | undefined;
  readonly threads: readonly { readonly tid: number; readonly comm: string }[];
  readonly cwd: string | undefined;
  readonly exe: string | undefined;
  /** Bytes of the image's pages that are this process's own. */
  readonly memory: number;
  readonly mappings: readonly MappingDescription[];
  readonly descriptors: readonly { readonly fd: number; readonly id: number; readonly what: string }[];
}

export interface MappingDescription {
  readonly start: number;
  readonly end: number;
  /** As /proc/PID/maps has it: rwxp. */
  readonly perms: string;
  readonly what: string;
  /** Bytes of it that the image has. */
  readonly present: number;
}

/** Errors as for readTree(). */
export function describe(store: ImageStore): Description {
  const tree = readTree(store);
  const shared = new Map<number, PageRuns>();
  const collect = (id: number | undefined) => {
    if (id === undefined || shared.has(id)) return;
    shared.set(id, withSource(store, fileName(images.PAGEMAP, `shmem-${id}`), PageRuns.read));
  };
  for (const { mm } of tree.tasks) for (const vma of mm?.vmas ?? []) collect(sharedMemoryOf(tree, vma));
  for (const { shmid } of tree.memfds.values()) collect(shmid);
  return {
    info: tree.info,
    tasks: tree.tasks.map((task) => describeTask(store, tree, task, shared)),
    shared: [...shared].sort(([a], [b]) => a - b).map(([id, runs]) => ({ id, size: runs.pagesSize })),
  };
}

type SharedMemory = ReadonlyMap<number, PageRuns>;

function describeTask(store: ImageStore, tree: ImageTree, task: ImageTask, shared: SharedMemory): TaskDescription {
  const { pid, ppid, pgid, sid, mm, threads } = task;
  const { tc, thread_core } = threads[0]!.core;
  const nameOf = (id: number | undefined) => (id === undefined ? undefined : tree.files.get(id)?.reg?.name);
  const common = {
    pid,
    ppid,
    pgid,
    sid,
    comm: tc!.comm,
    uid: thread_core?.creds?.euid,
    threads: threads.map(({ tid, core }) => ({ tid, comm: core.thread_core?.comm ?? tc!.comm })),
    cwd: nameOf(task.fs?.cwd_id),
    exe: nameOf(mm?.exe_file_id),
    descriptors: task.descriptors.map(({ fd, id }) => ({ fd, id, what: describeFile(tree.files.get(id)) })),
  };
  if (mm === undefined) return { ...common, state: 'zombie', args: '', memory: 0, mappings: [] };
  const memory = new MemoryImage(store, pid);
  try {
    return {
      ...common,
      state: tc!.task_state === TASK_STOPPED ? 'stopped' : 'running',
      args: argumentsOf(memory, mm.mm_arg_start, mm.mm_arg_end),
      memory: memory.runs.pagesSize,
      mappings: mm.vmas.map((vma) => describeMapping(tree, memory.runs, shared, vma, mm.mm_start_stack)),
    };
  } finally {
    memory.close();
  }
}

/** The command line; its pages may be left out of the image. */
function argumentsOf(memory: MemoryImage, start: number, end: number): string {
  try {
    const bytes = memory.read(start, Math.max(0, Math.min(4096, end - start)));
    return Buffer.from(bytes).toString('utf8').replace(/\0+$/, '').replaceAll('\0', ' ');
  } catch (error) {
    if (error instanceof FormatError) return '';
    throw error;
  }
}

function describeMapping(
  tree: ImageTree,
  own: PageRuns,
  shared: SharedMemory,
  vma: VmaEntry,
  stack: number,
): MappingDescription {
  const { start, end, prot, flags, pgoff } = vma;
  const kind = flags & MAP_SHARED ? 's' : 'p';
  const perms = `${prot & PROT_READ ? 'r' : '-'}${prot & PROT_WRITE ? 'w' : '-'}${prot & PROT_EXEC ? 'x' : '-'}${kind}`;
  const object = flags & MAP_SHARED ? shared.get(sharedMemoryOf(tree, vma) ?? -1) : undefined;
  const present = object?.present(pgoff, pgoff + end - start) ?? own.present(start, end);
  // CRIU knows the stack of the first thread by where it begins only.
  const isStack = stack >= start && stack < end;
  return { start, end, perms, what: isStack ? '[stack]' : describeVma(tree, vma), present };
}

function describeVma(tree: ImageTree, vma: VmaEntry): string {
  const special = [
    [VMA_AREA_GUARD, '[guard]'],
    [VMA_AREA_VSYSCALL, '[vsyscall]'],
    [VMA_AREA_VDSO, '[vdso]'],
    [VMA_AREA_VVAR, '[vvar]'],
    [VMA_AREA_STACK, '[stack]'],
    [VMA_AREA_HEAP, '[heap]'],
  ] as const;
  const found = special.find(([status]) => vma.status & status);
  if (found !== undefined) return found[1];
  const shared = sharedMemoryOf(tree, vma);
  if (shared !== undefined) return `shared memory ${shared}`;
  return tree.files.get(vma.shmid)?.reg?.name ?? '';
}

function describeFile(file: FileEntry | undefined): string {
  if (file === undefined) return 'unknown';
  if (file.reg) return file.reg.name;
  if (file.pipe) return `pipe ${file.pipe.pipe_id} ${file.pipe.flags & 1 ? 'write' : 'read'} end`;
  if (file.fifo) return `fifo ${file.fifo.pipe_id}`;
  if (file.usk) return `unix socket ${file.usk.ino}${file.usk.peer ? ` to ${file.usk.peer}` : ''}`;
  if (file.isk) return `inet socket ${file.isk.src_port}${file.isk.dst_port ? ` to ${file.isk.dst_port}` : ''}`;
  if (file.tty) return `terminal ${file.tty.tty_info_id}`;
  if (file.memfd) return `memfd ${file.memfd.inode_id}`;
  return `${file.type}`.toLowerCase();
}

/** Parts of the text that `image show` prints. */
export interface RenderOptions {
  readonly memory?: boolean;
  readonly files?: boolean;
}

/** The description as text, ended by a line break. */
export function render(description: Description, options: RenderOptions = {}): string {
  const { info, tasks, shared } = description;
  const lines: string[] = [];
  if (info === undefined) lines.push('made by CRIU');
  else {
    lines.push(`made by tideover ${info.tideover}, ${info.created}`);
    lines.push(`on Linux ${info.kernel.release}, ${info.machine}, ${info.cpu.model}`);
  }
  const threads = tasks.reduce((sum, task) => sum + task.threads.length, 0);
  const size = [...tasks.map((task) => task.memory), ...shared.map((each) => each.size)].reduce((a, b) => a + b, 0);
  lines.push(`${count(tasks.length, 'process', 'es')}, ${count(threads, 'thread')}, ${bytesText(size)} of memory`, '');
  for (const task of tasks) {
    const indent = '  '.repeat(depthOf(tasks, task));
    const about = [`${task.state}`, count(task.threads.length, 'thread'), bytesText(task.memory)];
    lines.push(`${indent}${task.pid} ${task.comm}  ${about.join(', ')}${task.args === '' ? '' : `: ${task.args}`}`);
  }
  for (const task of options.memory ? tasks : []) {
    lines.push('', `memory of ${task.pid}`);
    for (const { start, end, perms, what, present } of task.mappings) {
      const range = `${start.toString(16).padStart(12, '0')}-${end.toString(16).padStart(12, '0')}`;
      lines.push(
        `  ${range} ${perms} ${bytesText(end - start).padStart(10)} ${bytesText(present).padStart(10)}  ${what}`.trimEnd(),
      );
    }
  }
  for (const task of options.files ? tasks : []) {
    lines.push('', `files of ${task.pid}`, `  exe  ${task.exe ?? ''}`, `  cwd  ${task.cwd ?? ''}`);
    for (const { fd, what } of task.descriptors) lines.push(`  ${`${fd}`.padStart(3)}  ${what}`);
  }
  return `${lines.map(printable).join('\n')}\n`;
}

/** Names come from the image and may hold anything: what would steer a terminal is shown as its code. */
function printable(line: string): string {
  return line.replace(
    /[\p{Cc}\p{Cs}]/gu,
    (control) => `\\x${(control.charCodeAt(0) & 0xff).toString(16).padStart(2, '0')}`,
  );
}

/** Levels above a process within the image. A damaged image may have a circle. */
function depthOf(tasks: readonly TaskDescription[], task: TaskDescription): number {
  let depth = 0;
  let parent = task.ppid;
  for (let each = task; depth < tasks.length; depth++) {
    const next = tasks.find(({ pid }) => pid === parent);
    if (next === undefined || next === each) break;
    each = next;
    parent = next.ppid;
  }
  return depth;
}

function bytesText(bytes: number): string {
  if (bytes < 1 << 20) return `${Math.round(bytes / 1024)} KiB`;
  return bytes < 2 ** 30 ? `${(bytes / 2 ** 20).toFixed(1)} MiB` : `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
