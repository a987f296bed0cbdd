/** Writes the memory of another kernel, which stands still, as an image. */
import { readNotes } from '../abi/elfnote.ts';
import type { Compression } from '../crash/codec/page.ts';
import { CONTROL_WORDS, type CopyJob, type KdumpForm } from '../crash/filter/job.ts';
import { known, writeKdump } from '../crash/filter/kdump.ts';
import { DL_EXCLUDE_FREE, excludePages } from '../crash/filter/pages.ts';
import type { ThreadOptions } from '../crash/filter/threads.ts';
import { UnsupportedError, VerifyError } from '../errors.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import type { Range } from '../mem/range.ts';
import { beginImage, type Description, descriptionNote, type State, sealImage } from './image.ts';
import { type Memory, openPhysical } from './physical.ts';
import { openOutput, openReader, type Place } from './place.ts';
import { saveInThreads } from './threads.ts';

export interface SaveRequest {
  readonly description: Description;
  /** What is saved: whole pages, sorted. */
  readonly memory: readonly Range[];
  readonly vmcoreinfo: { readonly address: number; readonly size: number };
  readonly compression: Compression;
  readonly keepFree: boolean;
  /** What the image is when it is whole. */
  readonly state: State;
  /** See PhysicalWindows. */
  readonly device?: string;
}

export interface Saved {
  /** Bytes of the image. */
  readonly size: number;
  /** Pages that are in it, those of them that are zeros, and those that were free and so are not. */
  readonly pages: number;
  readonly zero: number;
  readonly free: number;
}

/**
 * @param place is an image when all is done, and none before
 * @throws SyscallError, the system's errors (ENOSPC: no room)
 */
export async function saveMemory(place: Place, request: SaveRequest, options: ThreadOptions): Promise<Saved> {
  const { description, vmcoreinfo, compression, keepFree, state, device } = request;
  const described: Memory = {
    ranges: request.memory,
    notes: [],
    header: {
      time: description.saved / 1000,
      cpus: description.cpu.count,
      incomplete: false,
      flattened: false,
      files: 1,
    },
    ...(device !== undefined && { device }),
  };
  const memory = { ...described, notes: [...notesAt(described, vmcoreinfo), descriptionNote(description)] };
  const source = openPhysical(memory);
  const output = openOutput(place);
  try {
    beginImage(output);
    output.sync();

    const length = source.ranges.at(-1)!.end / PAGE_SIZE;
    const bits = new Uint8Array(new SharedArrayBuffer(Math.ceil(length / 8)));
    source.storedPages(0, bits);
    // Where the kernel does not say which pages are free, all are saved.
    const excluded = known(source, (info) => excludePages(source, info, keepFree ? 0 : DL_EXCLUDE_FREE, bits));
    const level = excluded === undefined || keepFree ? 0 : DL_EXCLUDE_FREE;
    const taken = new Float64Array(new SharedArrayBuffer(8));
    const pages = { start: 0, end: length };
    let headSize = 0;
    const copied = await writeKdump(
      source,
      output,
      { bits, length, pages },
      { compression, level, checksums: true, alignment: PAGE_SIZE },
      (form: KdumpForm, at) => {
        headSize = form.zero.at;
        taken[0] = at;
        const control = new Int32Array(new SharedArrayBuffer(CONTROL_WORDS * 4));
        const job: CopyJob = { kind: 'copy', form, bits, pages, fd: -1, flattened: false, control, taken };
        return saveInThreads(memory, place, job, options);
      },
    );
    if (copied.unreadable > 0)
      throw new VerifyError(source.file, 'memory that can be read', `${copied.unreadable} pages that cannot`);
    // All of it is there before it is called an image.
    output.sync();
    const reader = openReader(place);
    try {
      sealImage(reader, output, headSize, taken[0]!, state);
    } finally {
      reader.close();
    }
    output.sync();
    return { size: taken[0]!, pages: copied.pages, zero: copied.zero, free: excluded?.free ?? 0 };
  } finally {
    output.close();
    source.close();
  }
}

function notesAt(memory: Memory, { address, size }: SaveRequest['vmcoreinfo']) {
  const source = openPhysical(memory);
  try {
    const bytes = new Uint8Array(size);
    const hole = source.readPhysical(address, bytes);
    if (hole === undefined) return readNotes(bytes);
    throw new UnsupportedError({
      what: 'saving a machine',
      why: `its VMCOREINFO is said to lie at 0x${address.toString(16)}, which is not among its memory`,
      remedy: 'start it without crashkernel= at that place',
    });
  } finally {
    source.close();
  }
}
