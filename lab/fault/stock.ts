/**
 * A stock module whose first act is to read through a NULL pointer, for kernels whose headers Debian has dropped or whose build tools are
 * of a newer Debian: its code is changed, nothing is compiled.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readElf, sectionBytes, symbols } from '../../src/mem/elf.ts';
import { moduleBytes, moduleName, parseModulesDep } from '../../src/sys/modules.ts';
import type { Kernel } from '../kernels.ts';

/** Needs no other module and no device. */
const MODULE = 'dummy';

/** mov eax, [0] */
const READ_NULL = [0x8b, 0x04, 0x25, 0, 0, 0, 0];

/** Where ftrace has its call at the beginning of a function; what follows is the function's own. */
const ENTRY = /^(?:\xf3\x0f\x1e\xfa)?\xe8\0\0\0\0/;

/** As `insmod` says where it died. */
export const STOCK_FAULT = /RIP: 0010:(?:dummy_)?init_module\+\S+ \[dummy/;

/** Makes it in a folder and returns its path. */
export function stockFault(kernel: Kernel, folder: string): string {
  const from = kernel.modules!;
  const dependencies = parseModulesDep(readFileSync(join(from, 'modules.dep'), 'utf8'));
  const path = [...dependencies.keys()].find((each) => moduleName(each) === MODULE)!;
  const bytes = unsigned(Buffer.from(moduleBytes(path, { folder: from })));
  const elf = readElf(bytes, path);
  const section = (name: string) => elf.sections.find((each) => each.name === name)!;
  const init = [...symbols(elf, section('.symtab'))].find(({ name }) => name === 'init_module')!;
  const text = elf.sections[init.section]!;
  const start = text.offset + Number(init.value);
  const entry = ENTRY.exec(bytes.toString('latin1', start, start + 16))![0].length;
  bytes.set(READ_NULL, start + entry);
  // Nothing is to be filled in there: R_X86_64_NONE.
  const relocations = section(`.rela${text.name}`);
  const at = Number(init.value) + entry;
  for (let i = 0; i < sectionBytes(elf, relocations).length; i += RELA) {
    const offset = Number(bytes.readBigUInt64LE(relocations.offset + i));
    if (offset > at - 4 && offset < at + READ_NULL.length) bytes.writeBigUInt64LE(0n, relocations.offset + i + 8);
  }
  const to = join(folder, `${MODULE}-${kernel.name}.ko`);
  writeFileSync(to, bytes);
  return to;
}

/** sizeof(Elf64_Rela): r_offset, r_info, r_addend. */
const RELA = 24;

/** A signature that does not fit is refused, none is not: kernel/module/signing.c. It stands behind the file, and its length in its end. */
function unsigned(module: Buffer): Buffer {
  const mark = Buffer.from('~Module signature appended~\n');
  const end = module.length - mark.length;
  if (!module.subarray(end).equals(mark)) return module;
  // struct module_signature: sig_len is its last field, big-endian.
  const size = 12;
  return module.subarray(0, end - size - module.readUInt32BE(end - 4));
}
