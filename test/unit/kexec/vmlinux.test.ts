import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  EI_CLASS,
  EI_DATA,
  ELFCLASS64,
  ELFDATA2LSB,
  Elf64_Ehdr,
  Elf64_Phdr,
  EM_386,
  EM_X86_64,
  ET_EXEC,
  PT_LOAD,
} from '../../../src/abi/elf.ts';
import { FormatError, UnsupportedError } from '../../../src/errors.ts';
import { parameters, reuseCommandLine } from '../../../src/kexec/commandline.ts';
import { serialPort } from '../../../src/kexec/machine.ts';
import { readVmlinux } from '../../../src/kexec/vmlinux.ts';

const KERNEL_VIRTUAL = 0xffffffff80000000n;

/** Segments of 16 bytes at the given physical addresses. */
function vmlinux(addresses: readonly bigint[], change: { machine?: number; entry?: bigint } = {}): Uint8Array {
  const headers = Elf64_Ehdr.size + addresses.length * Elf64_Phdr.size;
  const bytes = new Uint8Array(headers + addresses.length * 16);
  const e_ident = new Uint8Array(16);
  e_ident.set([0x7f, 0x45, 0x4c, 0x46]);
  e_ident[EI_CLASS] = ELFCLASS64;
  e_ident[EI_DATA] = ELFDATA2LSB;
  Elf64_Ehdr.write(
    {
      e_ident,
      e_type: ET_EXEC,
      e_machine: change.machine ?? EM_X86_64,
      e_entry: change.entry ?? addresses[0]!,
      e_phoff: BigInt(Elf64_Ehdr.size),
      e_phentsize: Elf64_Phdr.size,
      e_phnum: addresses.length,
    },
    bytes,
  );
  for (const [i, p_paddr] of addresses.entries()) {
    const p_offset = headers + i * 16;
    bytes.fill(i + 1, p_offset, p_offset + 16);
    Elf64_Phdr.write(
      {
        p_type: PT_LOAD,
        p_offset: BigInt(p_offset),
        p_vaddr: KERNEL_VIRTUAL + p_paddr,
        p_paddr,
        p_filesz: 16n,
        p_memsz: 0x2000n,
      },
      bytes,
      Elf64_Ehdr.size + i * Elf64_Phdr.size,
    );
  }
  return bytes;
}

test('a vmlinux lies where its physical addresses say', () => {
  const image = readVmlinux(vmlinux([0x1000000n, 0x1800100n], { entry: 0x1000080n }), 'vmlinux');
  assert.deepEqual([image.preferred, image.relocatable, image.entry64], [0x1000000, false, 0x80]);
  assert.equal(image.size, 0x800100 + 0x2000);
  const [{ bytes, memorySize }] = image.parts as [(typeof image.parts)[0]];
  assert.equal(memorySize, image.size);
  assert.deepEqual([bytes[15], bytes[16], bytes[0x8000ff], bytes[0x800100], bytes.length], [1, 0, 0, 2, 0x800110]);
});

test('ELF files that are no x86-64 kernel are refused with the field', () => {
  assert.throws(() => readVmlinux(vmlinux([0n], { machine: EM_386 }), 'v'), /v: e_machine/);
  assert.throws(() => readVmlinux(vmlinux([0x1000n], { entry: 0xffffffff81000000n }), 'v'), UnsupportedError);
  assert.throws(() => readVmlinux(vmlinux([0x1000n, 2n ** 60n]), 'v'), FormatError);
  assert.throws(() => readVmlinux(vmlinux([0x1000n, 2n ** 40n]), 'v'), FormatError);
});

test('the running command line is reused without what was for one boot only', () => {
  const running = 'BOOT_IMAGE=/vmlinuz root=/dev/vda1 ro dyndbg="file a +p" elfcorehdr=0x1000 tideover.back=6.12 quiet';
  assert.equal(reuseCommandLine(running, ' panic=5'), 'root=/dev/vda1 ro dyndbg="file a +p" quiet panic=5');
  assert.deepEqual(parameters('a  b="c d" "e f"=g'), ['a', 'b="c d"', '"e f"=g']);
});

test('the message of a damaged kernel goes to the serial console', () => {
  assert.equal(serialPort('console=tty0 console=ttyS1,115200'), 0x2f8);
  assert.equal(serialPort('quiet'), 0x3f8);
});
