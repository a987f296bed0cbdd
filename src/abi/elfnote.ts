/** Notes as PT_NOTE segments hold them (System V ABI, chapter 5): header, name and descriptor, the latter two padded to 4 bytes. */
import { Elf64_Nhdr } from './elf.ts';

export interface Note {
  /** Without its NUL: `CORE`, `LINUX`, `VMCOREINFO`. */
  readonly name: string;
  /** NT_* */
  readonly type: number;
  readonly desc: Uint8Array;
}

/** One note, padded. */
export function writeNote(name: string, n_type: number, desc: Uint8Array): Uint8Array {
  const nameSize = name === '' ? 0 : name.length + 1;
  const header = Elf64_Nhdr.size;
  const into = Buffer.alloc(header + padded(nameSize) + padded(desc.length));
  Elf64_Nhdr.write({ n_namesz: nameSize, n_descsz: desc.length, n_type }, into);
  into.write(name, header, 'latin1');
  into.set(desc, header + padded(nameSize));
  return into;
}

/**
 * The notes of a segment, without copying. They end where an empty header says so, as the kernel ends the notes of a CPU in its
 * page (kernel/crash_core.c, final_note), or where one does not fit: what was whole before it counts.
 */
export function readNotes(segment: Uint8Array): Note[] {
  const notes: Note[] = [];
  for (let at = 0; at + Elf64_Nhdr.size <= segment.length; ) {
    const { n_namesz, n_descsz, n_type } = Elf64_Nhdr.read(segment, at);
    if (n_namesz === 0 && n_descsz === 0 && n_type === 0) break;
    const nameAt = at + Elf64_Nhdr.size;
    const descAt = nameAt + padded(n_namesz);
    if (descAt + n_descsz > segment.length) break;
    const name = Buffer.from(segment.buffer, segment.byteOffset + nameAt, n_namesz).toString('latin1');
    notes.push({ name: name.replace(/\0+$/, ''), type: n_type, desc: segment.subarray(descAt, descAt + n_descsz) });
    at = descAt + padded(n_descsz);
  }
  return notes;
}

function padded(size: number): number {
  return Math.ceil(size / 4) * 4;
}
