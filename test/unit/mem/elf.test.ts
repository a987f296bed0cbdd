import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  DT_NEEDED,
  DT_NULL,
  DT_RUNPATH,
  DT_SONAME,
  DT_STRSZ,
  DT_STRTAB,
  Elf64_Dyn,
  Elf64_Ehdr,
  Elf64_Phdr,
  Elf64_Shdr,
  Elf64_Sym,
  EM_X86_64,
  ET_DYN,
  PN_XNUM,
  PT_DYNAMIC,
  PT_INTERP,
  PT_LOAD,
  SHT_STRTAB,
  SHT_SYMTAB,
} from '../../../src/abi/elf.ts';
import { FormatError } from '../../../src/errors.ts';
import {
  dynamic,
  type ElfFile,
  interpreter,
  readElf,
  sectionBytes,
  segmentBytes,
  symbols,
} from '../../../src/mem/elf.ts';

const ident = Uint8Array.from([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

/** A small library: three program headers, a dynamic section, four sections, two symbols. */
function library(): Uint8Array {
  const strings = Buffer.from('\0libone.so\0libtwo.so\0libself.so\0$ORIGIN/x:/y\0');
  const names = Buffer.from('\0.shstrtab\0.symtab\0.strtab\0');
  const symbolNames = Buffer.from('\0first\0second\0');
  const at = { phdr: 64, interp: 256, dynamic: 288, strings: 400, names: 464, symtab: 496, strtab: 568, shdr: 592 };
  const bytes = new Uint8Array(at.shdr + 4 * Elf64_Shdr.size);
  const ehdr = { e_ident: ident, e_type: ET_DYN, e_machine: EM_X86_64, e_version: 1, e_entry: 0x1000n };
  const tables = { e_phoff: BigInt(at.phdr), e_phentsize: 56, e_phnum: 3, e_shoff: BigInt(at.shdr) };
  Elf64_Ehdr.write({ ...ehdr, ...tables, e_shentsize: 64, e_shnum: 4, e_shstrndx: 1 }, bytes);
  const segment = (i: number, p_type: number, offset: number, size: number, p_vaddr: bigint) => {
    const sizes = { p_filesz: BigInt(size), p_memsz: BigInt(size) };
    Elf64_Phdr.write({ p_type, p_offset: BigInt(offset), p_vaddr, ...sizes }, bytes, at.phdr + i * 56);
  };
  segment(0, PT_LOAD, 0, bytes.length, 0x10000n);
  segment(1, PT_INTERP, at.interp, 11, 0x10000n + BigInt(at.interp));
  segment(2, PT_DYNAMIC, at.dynamic, 7 * 16, 0x10000n + BigInt(at.dynamic));
  bytes.set(Buffer.from('/lib/ld.so\0'), at.interp);
  const entries: [bigint, bigint][] = [
    [DT_NEEDED, 1n],
    [DT_NEEDED, 11n],
    [DT_SONAME, 21n],
    [DT_RUNPATH, 32n],
    [DT_STRTAB, 0x10000n + BigInt(at.strings)],
    [DT_STRSZ, BigInt(strings.length)],
    [DT_NULL, 0n],
  ];
  for (const [i, [d_tag, d_val]] of entries.entries()) Elf64_Dyn.write({ d_tag, d_val }, bytes, at.dynamic + i * 16);
  bytes.set(strings, at.strings);
  bytes.set(names, at.names);
  bytes.set(symbolNames, at.strtab);
  Elf64_Sym.write(
    { st_name: 1, st_info: 0x12, st_shndx: 1, st_value: 0xffffffff81000000n, st_size: 8n },
    bytes,
    at.symtab + 24,
  );
  Elf64_Sym.write({ st_name: 7, st_info: 0x01, st_shndx: 2, st_value: 5n, st_size: 0n }, bytes, at.symtab + 48);
  const section = (i: number, sh_name: number, sh_type: number, offset: number, size: number, sh_link = 0) => {
    const place = { sh_offset: BigInt(offset), sh_size: BigInt(size) };
    Elf64_Shdr.write({ sh_name, sh_type, ...place, sh_link }, bytes, at.shdr + i * 64);
  };
  section(1, 1, SHT_STRTAB, at.names, names.length);
  section(2, 11, SHT_SYMTAB, at.symtab, 72, 3);
  section(3, 19, SHT_STRTAB, at.strtab, symbolNames.length);
  return bytes;
}

/** Everything a reader can be asked. */
function readAll(bytes: Uint8Array): ElfFile {
  const elf = readElf(bytes, 'x');
  interpreter(elf);
  dynamic(elf);
  for (const segment of elf.segments) orFormatError(() => segmentBytes(elf, segment));
  for (const section of elf.sections) {
    orFormatError(() => sectionBytes(elf, section));
    if (section.type === SHT_SYMTAB) orFormatError(() => [...symbols(elf, section)]);
  }
  return elf;
}

function orFormatError(action: () => unknown): void {
  try {
    action();
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    assert.ok(error.offset === undefined || Number.isSafeInteger(error.offset));
  }
}

test('reads headers, interpreter, dynamic section, sections and symbols', () => {
  const elf = readAll(library());
  assert.equal(elf.machine, EM_X86_64);
  assert.equal(elf.type, ET_DYN);
  assert.equal(elf.segments.length, 3);
  assert.equal(interpreter(elf), '/lib/ld.so');
  assert.deepEqual(dynamic(elf), {
    needed: ['libone.so', 'libtwo.so'],
    soname: 'libself.so',
    rpath: undefined,
    runpath: '$ORIGIN/x:/y',
  });
  assert.deepEqual(
    elf.sections.map(({ name }) => name),
    ['', '.shstrtab', '.symtab', '.strtab'],
  );
  assert.deepEqual([...symbols(elf, elf.sections[2]!)].slice(1), [
    { name: 'first', value: 0xffffffff81000000n, size: 8n, type: 2, binding: 1, section: 1 },
    { name: 'second', value: 5n, size: 0n, type: 1, binding: 0, section: 2 },
  ]);
});

test('takes counts that do not fit 16 bits from section header 0', () => {
  const bytes = library();
  const { e_phnum, e_shnum } = Elf64_Ehdr.offsets;
  const view = new DataView(bytes.buffer);
  view.setUint16(e_phnum, PN_XNUM, true);
  view.setUint16(e_shnum, 0, true);
  Elf64_Shdr.write({ sh_info: 3, sh_size: 4n }, bytes, 592);
  const elf = readElf(bytes, 'x');
  assert.equal(elf.segments.length, 3);
  assert.equal(elf.sections.length, 4);
});

test('reads the program that runs this test', () => {
  const elf = readElf(readFileSync(process.execPath), process.execPath);
  assert.match(interpreter(elf)!, /^\/lib64\/ld-linux-x86-64\.so\.2$/);
  assert.ok(dynamic(elf)!.needed.includes('libc.so.6'));
  assert.ok(
    elf.segments.some(
      ({ type, vaddr, memsz }) => type === PT_LOAD && elf.entry >= vaddr && elf.entry < vaddr + BigInt(memsz),
    ),
  );
  const exported = [...symbols(elf, elf.sections.find(({ name }) => name === '.dynsym')!)];
  assert.ok(exported.some(({ name }) => name === 'napi_create_function'));
});

test('names the field and the byte of what is wrong', () => {
  const byte = (bytes: Uint8Array, at: number, value: number) => bytes.fill(value, at, at + 1);
  const wrong = (change: (bytes: Uint8Array) => Uint8Array, message: RegExp) => {
    const bytes = library();
    assert.throws(() => readAll(change(bytes)), { name: 'FormatError', message });
  };
  wrong(() => new Uint8Array(0), /x at byte 0: e_ident: expected an ELF file, found an empty file/);
  wrong(() => Buffer.from('#!/bin/sh'), /e_ident: expected an ELF file, found bytes 23212f62/);
  wrong((b) => b.subarray(0, 40), /Elf64_Ehdr: expected 64 bytes, found 40/);
  wrong((b) => byte(b, 4, 1), /x at byte 4: EI_CLASS: expected ELFCLASS64 \(2\), found 1/);
  wrong((b) => byte(b, 5, 2), /EI_DATA/);
  wrong((b) => b.subarray(0, 100), /section header 0: expected 64 bytes, found 0/);
  wrong((b) => byte(b, 54, 55), /x at byte 54: e_phentsize: expected 56, found 55/);
  wrong((b) => byte(b, 64 + 56 + 15, 0xff), /p_offset of program header 1: expected less than 2\^53/);
  wrong((b) => b.fill(0x41, 256, 267), /PT_INTERP: expected text that ends before byte 267, found no end/);
  wrong((b) => byte(b, 288 + 8, 200), /string of the dynamic section/);
});

test('random damage gives FormatError or a result, never anything else', () => {
  const original = library();
  const damage = fc.array(fc.tuple(fc.nat(original.length - 1), fc.nat(255)), { minLength: 1, maxLength: 12 });
  fc.assert(
    fc.property(damage, fc.nat(original.length), (changes, length) => {
      const bytes = original.slice();
      for (const [at, value] of changes) bytes[at] = value;
      orFormatError(() => readAll(bytes));
      orFormatError(() => readAll(bytes.subarray(0, length)));
    }),
    { numRuns: 3000 },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (tail) => {
      orFormatError(() => readAll(tail));
      orFormatError(() => readAll(Buffer.concat([ident, tail])));
    }),
    { numRuns: 2000 },
  );
});
