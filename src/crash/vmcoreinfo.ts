/**
 * VMCOREINFO: lines by which a kernel describes itself to tools that read its dump (kernel/vmcore_info.c; meanings in
 * Documentation/admin-guide/kdump/vmcoreinfo.rst).
 *
 *     OSRELEASE=6.12.117+deb12-amd64
 *     SYMBOL(swapper_pg_dir)=ffffffff8fa10000      hexadecimal
 *     SIZE(page)=64                                the other numbers are decimal
 */
import type { Note } from '../abi/elfnote.ts';

export class Vmcoreinfo {
  /** As it stands in the dump. */
  readonly text: string;
  readonly #lines = new Map<string, string>();

  constructor(text: string) {
    this.text = text;
    for (const line of text.split('\n')) {
      const at = line.indexOf('=');
      if (at > 0) this.#lines.set(line.slice(0, at), line.slice(at + 1));
    }
  }

  /** The text after `name=`. */
  get(name: string): string | undefined {
    return this.#lines.get(name);
  }

  /** uname -r */
  get release(): string | undefined {
    return this.get('OSRELEASE');
  }

  /** Virtual address of a symbol, KASLR included. */
  symbol(name: string): bigint | undefined {
    const text = this.get(`SYMBOL(${name})`);
    return text !== undefined && /^[0-9a-f]{1,16}$/i.test(text) ? BigInt(`0x${text}`) : undefined;
  }

  /** sizeof, in bytes. */
  size(type: string): number | undefined {
    return this.#decimal(`SIZE(${type})`);
  }

  /** offsetof, in bytes: `page.flags`. */
  offset(member: string): number | undefined {
    return this.#decimal(`OFFSET(${member})`);
  }

  /** Elements of an array. */
  length(array: string): number | undefined {
    return this.#decimal(`LENGTH(${array})`);
  }

  /** A number, or undefined where it is none or beyond 2^53. */
  number(name: string): number | undefined {
    return this.#decimal(`NUMBER(${name})`);
  }

  #decimal(name: string): number | undefined {
    const text = this.get(name);
    if (text === undefined || !/^-?\d{1,19}$/.test(text)) return undefined;
    const value = Number(text);
    return Number.isSafeInteger(value) ? value : undefined;
  }
}

/** The kernel's own description, or undefined where the dump has none. */
export function vmcoreinfoOf(notes: readonly Note[]): Vmcoreinfo | undefined {
  const note = notes.find(({ name, desc }) => name === 'VMCOREINFO' && desc.length > 0);
  if (note === undefined) return undefined;
  const end = note.desc.indexOf(0);
  return new Vmcoreinfo(new TextDecoder('latin1').decode(end < 0 ? note.desc : note.desc.subarray(0, end)));
}
