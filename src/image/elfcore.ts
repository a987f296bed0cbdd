/**
 * A process of an image as an ELF core file, which gdb and other debuggers open: <linux/elfcore.h>, <linux/elf.h> and the
 * kernel's fs/binfmt_elf.c, whose order of notes this keeps.
 *
 *     Elf64_Ehdr
 *     Elf64_Phdr[]     one PT_NOTE, then a PT_LOAD for each part of a mapping
 *     notes            for each thread its registers, and once the process, its auxiliary vector and mapped files
 *     contents         page after page; pages of zeros are holes
 */
import * as elf from '../abi/elf.ts';
import { type ElfHeaders, elfHeadersSize, writeElfHeaders } from '../abi/elfheaders.ts';
import { PROT_EXEC, PROT_READ, PROT_WRITE } from '../abi/mman.ts';
import { UnsupportedError } from '../errors.ts';
import { notesOf } from './corenotes.ts';
import {
  PE_LAZY,
  PE_PARENT,
  VMA_AREA_GUARD,
  VMA_AREA_UPROBES,
  VMA_AREA_VSYSCALL,
  VMA_FILE_PRIVATE,
  VMA_FILE_SHARED,
} from './messages/memory.ts';
import { MemoryImage, PAGE_SIZE, sharedMemoryOf, type VmaEntry } from './pages.ts';
import type { ImageStore } from './store.ts';
import { type ImageTask, type ImageTree, type MmEntry, readTree } from './tree.ts';

/** Where a core file goes: any place can be written, and what is not written is zero. */
export interface CoreOutput {
  write(bytes: Uint8Array, position: number): void;
  /** The size of the file, once, after all is written. */
  finish(size: number): void;
}

/** Pages of a segment: their address, and their place in the pages file. */
interface Content {
  readonly memory: MemoryImage;
  readonly at: number;
  readonly size: number;
  readonly offset: number;
}

/** A program header and where its contents come from. */
interface Segment {
  readonly start: number;
  readonly size: number;
  /** Bytes that the file has for it: all, or none. */
  readonly fileSize: number;
  readonly flags: number;
  readonly contents: readonly Content[];
}

/** Memory that was never written is zeros in the file (holes) up to this many bytes, and left out beyond. */
const MAX_HOLE = 1 << 30;
const COPY = 256 << 10;

/**
 * Writes the core file of one process.
 *
 * @param pid a process of the image, its root by default
 * @throws FormatError for damaged images, UnsupportedError for a zombie, another machine or pages that are elsewhere
 */
export function writeCore(store: ImageStore, output: CoreOutput, pid?: number): void {
  const tree = readTree(store);
  const { task, mm } = demandTask(tree, pid);
  const memory = new MemoryImage(store, task.pid);
  const shared = new Map<number, MemoryImage>();
  try {
    const segments = mm.vmas
      .filter((vma) => (vma.status & (VMA_AREA_GUARD | VMA_AREA_VSYSCALL | VMA_AREA_UPROBES)) === 0)
      .flatMap((vma) => {
        const behind = sharedMemory(store, tree, vma, shared);
        return segmentsOf(vma, behind ?? memory, behind !== undefined);
      });
    write(output, notesOf(tree, task, memory), segments);
  } finally {
    memory.close();
    for (const each of shared.values()) each.close();
  }
}

function demandTask(tree: ImageTree, pid: number | undefined): { task: ImageTask; mm: MmEntry } {
  const task = pid === undefined ? tree.tasks[0] : tree.tasks.find((each) => each.pid === pid);
  const refuse = (why: string, remedy: string): never => {
    throw new UnsupportedError({ what: `core file of process ${task?.pid ?? pid}`, why, remedy });
  };
  if (task === undefined) return refuse('the image has no such process', 'image show lists those it has');
  if (task.mm === undefined) return refuse('it ended, so that it has no memory', 'choose another process');
  const foreign = task.threads.find(({ core }) => core.mtype !== 'X86_64' || core.thread_info === undefined);
  if (foreign !== undefined) {
    return refuse(`its registers are those of ${foreign.core.mtype}`, 'only images of x86_64 can be converted');
  }
  return { task, mm: task.mm };
}

function sharedMemory(
  store: ImageStore,
  tree: ImageTree,
  vma: VmaEntry,
  opened: Map<number, MemoryImage>,
): MemoryImage | undefined {
  const id = sharedMemoryOf(tree, vma);
  if (id === undefined || vma.status & VMA_FILE_PRIVATE) return undefined;
  const memory = opened.get(id) ?? new MemoryImage(store, `shmem-${id}`);
  opened.set(id, memory);
  return memory;
}

function segmentsOf(vma: VmaEntry, memory: MemoryImage, isShared: boolean): Segment[] {
  const flags =
    (vma.prot & PROT_READ ? elf.PF_R : 0) |
    (vma.prot & PROT_WRITE ? elf.PF_W : 0) |
    (vma.prot & PROT_EXEC ? elf.PF_X : 0);
  // Addresses of shared memory are offsets into it.
  const shift = isShared ? vma.pgoff - vma.start : 0;
  const isFile = !isShared && (vma.status & (VMA_FILE_PRIVATE | VMA_FILE_SHARED)) !== 0;
  const segments: Segment[] = [];
  let contents: Content[] = [];
  let start = vma.start;
  const end = (at: number) => {
    if (at > start) segments.push({ start, size: at - start, fileSize: at - start, flags, contents });
    contents = [];
    start = at;
  };
  for (const extent of memory.extents(vma.start + shift, vma.end + shift)) {
    const [from, to] = [extent.start - shift, extent.end - shift];
    if (extent.offset === undefined && extent.flags & (PE_PARENT | PE_LAZY)) {
      throw new UnsupportedError({
        what: `core file: pages at 0x${from.toString(16)}`,
        why: extent.flags & PE_PARENT ? 'they are in the parent image' : 'they were left to be fetched later',
        remedy: 'make an image with all pages',
      });
    }
    if (extent.offset !== undefined) {
      contents.push({ memory, at: from, size: to - from, offset: extent.offset });
      continue;
    }
    // The debugger takes unchanged pages of a file from the file itself; others are zero.
    if (!isFile && vma.prot !== 0 && to - from <= MAX_HOLE) continue;
    end(from);
    segments.push({ start: from, size: to - from, fileSize: 0, flags, contents: [] });
    start = to;
  }
  end(vma.end);
  return segments;
}

/** Lays the file out and writes it. */
function write(output: CoreOutput, notes: Uint8Array, segments: readonly Segment[]): void {
  const notesAt = elfHeadersSize(1 + segments.length);
  let at = Math.ceil((notesAt + notes.length) / PAGE_SIZE) * PAGE_SIZE;
  const size = BigInt(notes.length);
  const headers: ElfHeaders['segments'][number][] = [
    { p_type: elf.PT_NOTE, p_offset: BigInt(notesAt), p_filesz: size, p_align: 4n },
  ];
  const buffer = new Uint8Array(COPY);
  for (const { start, size, fileSize, flags, contents } of segments) {
    headers.push({
      p_type: elf.PT_LOAD,
      p_flags: flags,
      p_offset: BigInt(at),
      p_vaddr: BigInt(start),
      p_filesz: BigInt(fileSize),
      p_memsz: BigInt(size),
      p_align: BigInt(PAGE_SIZE),
    });
    for (const part of contents) {
      for (let done = 0; done < part.size; done += COPY) {
        const piece = buffer.subarray(0, Math.min(COPY, part.size - done));
        part.memory.readPages(piece, part.offset + done);
        output.write(piece, at + part.at - start + done);
      }
    }
    at += fileSize;
  }
  output.write(writeElfHeaders({ type: elf.ET_CORE, segments: headers }), 0);
  output.write(notes, notesAt);
  output.finish(at);
}
