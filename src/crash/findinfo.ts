/**
 * VMCOREINFO in a dump that has no note with it: an image of RAM, or what QEMU wrote without its vmcoreinfo device. The kernel
 * keeps the text in a page of its own and in the note for kdump, so memory is searched for it.
 */
import type { Note } from '../abi/elfnote.ts';
import { PAGE_SIZE } from '../mem/address.ts';
import { kernelSpace } from './kernelspace.ts';
import type { PageSource } from './source.ts';
import { Vmcoreinfo, vmcoreinfoOf } from './vmcoreinfo.ts';

const CHUNK = 1 << 20;
const FIRST_LINE = new TextEncoder().encode('OSRELEASE=');
/** struct new_utsname, char release[65] */
const RELEASE_OFFSET = 130;

/** The source, with VMCOREINFO among its notes. It is searched for when the notes are asked for. */
export function withVmcoreinfo(source: PageSource): PageSource {
  if (vmcoreinfoOf(source.notes) !== undefined) return source;
  let notes: readonly Note[] | undefined;
  return Object.create(source, {
    notes: {
      get() {
        notes ??= [...source.notes, ...searched(source)];
        return notes;
      },
    },
  }) as PageSource;
}

function searched(source: PageSource): Note[] {
  for (const text of candidates(source)) {
    if (describes(source, new Vmcoreinfo(text))) {
      return [{ name: 'VMCOREINFO', type: 0, desc: new TextEncoder().encode(text) }];
    }
  }
  return [];
}

function* candidates(source: PageSource): Generator<string> {
  // A page more than a chunk, so that a text that begins in one is whole.
  const buffer = new Uint8Array(CHUNK + PAGE_SIZE);
  for (const { start, end } of source.ranges) {
    for (let at = nextData(source, start); at < end; at = nextData(source, at + CHUNK)) {
      const bytes = buffer.subarray(0, Math.min(buffer.length, end - at));
      fill(source, at, bytes);
      const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
      for (let i = view.indexOf(FIRST_LINE); i >= 0 && i < CHUNK; i = view.indexOf(FIRST_LINE, i + 1)) {
        const text = view.toString('latin1', i, Math.min(i + PAGE_SIZE, view.length));
        const whole = /^OSRELEASE=\d[^\0]*\n(?=\0)/.exec(text);
        if (whole !== null) yield whole[0];
      }
    }
  }
}

/** From a page on that may hold something. */
function nextData(source: PageSource, address: number): number {
  const next = source.nextData?.(address) ?? address;
  return next - (next % PAGE_SIZE);
}

/** Pages that are not there become zeros. */
function fill(source: PageSource, address: number, into: Uint8Array): void {
  if (source.readPhysical(address, into) === undefined) return;
  for (let at = 0; at < into.length; at += PAGE_SIZE) {
    const page = into.subarray(at, at + PAGE_SIZE);
    if (source.readPhysical(address + at, page) !== undefined) page.fill(0);
  }
}

/**
 * Whether the text is of the kernel whose memory this is: a copy of another one's may have been left by the kernel before. By its
 * page tables and symbols the release must be where it says, in the initial namespace.
 */
function describes(source: PageSource, info: Vmcoreinfo): boolean {
  const names = info.symbol('init_uts_ns');
  const offset = info.offset('uts_namespace.name');
  if (info.release === undefined || names === undefined || offset === undefined) return false;
  if (info.symbol('swapper_pg_dir') === undefined || info.number('phys_base') === undefined) return false;
  const found = new Uint8Array(info.release.length + 1);
  const hole = kernelSpace(source, info).read(names + BigInt(offset + RELEASE_OFFSET), found);
  return hole === undefined && new TextDecoder('latin1').decode(found) === `${info.release}\0`;
}
