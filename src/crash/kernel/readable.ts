/** What a dump's VMCOREINFO leads to without symbols or types: the memory of the kernel, and with it the log. */
import { FormatError } from '../../errors.ts';
import { kernelSpace } from '../kernelspace.ts';
import type { PageSource } from '../source.ts';
import { type Vmcoreinfo, vmcoreinfoOf } from '../vmcoreinfo.ts';
import { Gaps } from './gaps.ts';
import { VirtualMemory } from './memory.ts';

export class ReadableKernel {
  readonly source: PageSource;
  readonly info: Vmcoreinfo;
  readonly memory: VirtualMemory;
  readonly gaps = new Gaps();

  /** @throws FormatError where the dump has no VMCOREINFO, or one without what leads to the page tables */
  constructor(source: PageSource) {
    const info = vmcoreinfoOf(source.notes);
    if (info === undefined) {
      const expected = 'a VMCOREINFO note';
      throw new FormatError({ file: source.file, field: 'notes', expected, found: 'none' });
    }
    this.source = source;
    this.info = info;
    this.memory = new VirtualMemory(kernelSpace(source, info));
  }
}
