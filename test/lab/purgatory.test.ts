/**
 * The purgatory by itself, loaded by another loader: the file that `tideover kexec purgatory` writes, its parameter block filled
 * by the offsets of docs/spec/purgatory.md, entered on a bare machine; and the machine's state looked at through QEMU.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import type { Machine } from '../../lab/qemu.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';
import { Vm } from '../../lab/vm.ts';
import { assemble, type Item } from '../../src/asm/assemble.ts';
import { cli, hlt, jmp, mov, out } from '../../src/asm/instructions.ts';
import { al, dx, eax, edx, label, rax } from '../../src/asm/operands.ts';
import { flatImage } from './flat.ts';

const folder = temporaryFolder();
after(() => removeTemporary(folder));

const project = new URL('../..', import.meta.url).pathname;
const MACHINE_MS = 300_000;
const [RESET_VGA, RESET_PIC, ENTRY_32] = [1, 2, 4];

const kernel = { at: 0x800000, entry: 0x800200 };
const bootParams = 0x210000;
const text = { at: 0x211000, prefix: 'quiet kexec_jump_back_entry=0x' };
const backup = { from: 0x220000, to: 0x300000, bytes: randomBytes(0xa0000) };
const initrd = { at: 0x900000, bytes: randomBytes(1_000_001) };
const wayBack = 0x1234_5678;

/** Another kernel: both entries of it stop there. */
const again = label('again');
const kernelBytes = Buffer.concat([randomBytes(0x200), assemble(again, cli(), hlt(), jmp(again)).bytes]);

interface Block {
  readonly flags?: number;
  readonly entry?: number;
  readonly serialPort?: number;
}

/** The file with its parameter block filled. */
function filled({ flags = 0, entry = kernel.entry, serialPort = 0x3f8 }: Block): Buffer {
  const file = join(folder, 'purgatory.bin');
  execFileSync(join(project, 'bin/tideover'), ['kexec', 'purgatory', '-o', file]);
  const bytes = readFileSync(file);
  const block = bytes.subarray(8, 8 + 840);
  assert.equal(block.toString('latin1', 0, 8), 'TIDEPURG');
  assert.equal(block.readUInt32LE(8), 1);
  block.writeUInt32LE(flags, 12);
  for (const [at, value] of [
    [16, entry],
    [24, bootParams],
    [32, text.at + text.prefix.length],
    [40, backup.from],
    [48, backup.to],
    [56, backup.bytes.length],
  ] as const) {
    block.writeBigUInt64LE(BigInt(value), at);
  }
  block.writeUInt16LE(serialPort, 64);
  const regions = [{ at: kernel.at, bytes: kernelBytes }, initrd];
  block.writeUInt32LE(regions.length, 68);
  for (const [i, region] of regions.entries()) {
    block.writeBigUInt64LE(BigInt(region.at), 72 + 48 * i);
    block.writeBigUInt64LE(BigInt(region.bytes.length), 80 + 48 * i);
    block.set(createHash('sha256').update(region.bytes).digest(), 88 + 48 * i);
  }
  return bytes;
}

interface Loading {
  /** What is done before the purgatory is entered. */
  readonly before?: readonly Item[];
  readonly at?: number;
  readonly initrdBytes?: Uint8Array;
  readonly machine?: Machine;
}

/** Puts all into the memory of a machine and enters the purgatory. */
async function enter(block: Block, loading: Loading, look: (vm: Vm) => Promise<void>): Promise<void> {
  const { before = [], at = 0x200000, initrdBytes = initrd.bytes, machine = {} } = loading;
  const first = 0x180000;
  const image = flatImage(
    [
      { at: first, bytes: assemble(before, mov(eax, at), jmp(rax)).bytes },
      { at, bytes: filled(block) },
      { at: kernel.at, bytes: kernelBytes },
      { at: initrd.at, bytes: initrdBytes },
      { at: text.at, bytes: Buffer.from(`${text.prefix}${'0'.repeat(16)}\0`) },
      { at: backup.from, bytes: backup.bytes },
    ],
    first,
    wayBack,
  );
  const file = join(folder, 'flat.bin');
  writeFileSync(file, image);
  const vm = await Vm.start({
    memory: 128,
    network: false,
    ...machine,
    extraArguments: [...(machine.extraArguments ?? []), '-kernel', file],
  });
  try {
    await look(vm);
  } finally {
    await vm.close();
  }
}

const monitor = (vm: Vm, line: string) => vm.qmp('human-monitor-command', { 'command-line': line }) as Promise<string>;

/** The processor's registers once it has halted in the kernel: upper-case names, hex. */
async function registersInKernel(vm: Vm): Promise<Map<string, string>> {
  for (const end = Date.now() + MACHINE_MS; ; await setTimeout(100)) {
    const shown = await monitor(vm, 'info registers');
    const registers = new Map(
      [...shown.matchAll(/\b([A-Z0-9]{2,4}) ?=([0-9a-f]+)\b/g)].map(([, name, value]) => [name!, value!]),
    );
    const at = Number.parseInt(registers.get('RIP') ?? registers.get('EIP') ?? '', 16);
    if (registers.get('HLT') === '1' && at > kernel.at && at < kernel.at + 0x1000) return registers;
    assert.ok(Date.now() < end, `the kernel was not entered:\n${shown}`);
  }
}

async function memory(vm: Vm, at: number, size: number): Promise<Buffer> {
  const filename = join(folder, 'memory');
  await vm.qmp('pmemsave', { val: at, size, filename });
  return readFileSync(filename);
}

for (const at of [0x200000, 0x3456000]) {
  test(`loaded at 0x${at.toString(16)}, it enters the kernel in 64 bits as its specification says`, () =>
    enter({}, { at }, async (vm) => {
      const registers = await registersInKernel(vm);
      const expected = {
        RSI: bootParams,
        RBX: 0,
        RBP: 0,
        RDI: 0,
        CS: 0x10,
        DS: 0x18,
        ES: 0x18,
        SS: 0x18,
        FS: 0x18,
        GS: 0x18,
      };
      for (const [name, value] of Object.entries(expected))
        assert.equal(Number.parseInt(registers.get(name)!, 16), value, name);
      assert.equal(Number.parseInt(registers.get('CR4')!, 16), 0x20, 'CR4 is as it was: PAE');
      const written = await memory(vm, text.at, text.prefix.length + 17);
      assert.equal(written.toString(), `${text.prefix}${wayBack.toString(16).padStart(16, '0')}\0`);
      assert.ok((await memory(vm, backup.to, backup.bytes.length)).equals(backup.bytes), 'the backup is whole');
    }));
}

test('it enters a kernel that has the 32-bit entry only, out of long mode and paging', () =>
  enter({ flags: ENTRY_32, entry: kernel.entry }, {}, async (vm) => {
    const registers = await registersInKernel(vm);
    const expected = { ESI: bootParams, EBX: 0, EBP: 0, EDI: 0, CS: 0x10, DS: 0x18, ES: 0x18, SS: 0x18, CR4: 0 };
    for (const [name, value] of Object.entries(expected))
      assert.equal(Number.parseInt(registers.get(name)!, 16), value, name);
    assert.equal(Number.parseInt(registers.get('CR0')!, 16) >>> 31, 0, 'paging is off');
    assert.equal(Number.parseInt(registers.get('EFER')!, 16) & 0x500, 0, 'long mode is off');
  }));

test('it stops at what was changed, with its number on the serial port, and nothing is written', () => {
  const initrdBytes = Buffer.from(initrd.bytes);
  initrdBytes[initrdBytes.length - 1]! ^= 1;
  return enter({}, { initrdBytes }, async (vm) => {
    await vm.waitFor(
      /^tideover purgatory: segment 1 of the next kernel was changed after it was loaded \(SHA-256 differs\)\. Stopped\.\n/m,
      MACHINE_MS,
    );
    assert.ok((await memory(vm, backup.to, backup.bytes.length)).equals(Buffer.alloc(backup.bytes.length)));
    assert.equal((await memory(vm, text.at + text.prefix.length, 16)).toString(), '0'.repeat(16));
  });
});

/** The VGA in a graphics mode, the interrupt controllers at vectors 0x20 and 0x28 with nothing masked, as Linux has them. */
const asLinux: readonly Item[] = (
  [
    [0x3ce, 0x06],
    [0x3cf, 0x05],
    [0x20, 0x11],
    [0xa0, 0x11],
    [0x21, 0x20],
    [0xa1, 0x28],
    [0x21, 0x04],
    [0xa1, 0x02],
    [0x21, 0x01],
    [0xa1, 0x01],
    [0x21, 0x00],
    [0xa1, 0x00],
  ] as const
).map(([port, value]) => [mov(edx, port), mov(al, value), out(dx, al)]);

for (const [flags, says, expected] of [
  [
    0,
    'neither is asked for, VGA and interrupt controllers stay',
    { pic: ['imr=00 20', 'imr=00 28'], screen: '640 400' },
  ],
  [RESET_VGA, 'the VGA is asked for, it goes into text mode', { pic: ['imr=00 20', 'imr=00 28'], screen: '720 400' }],
  [
    RESET_PIC,
    'the interrupt controllers are asked for, they go back',
    { pic: ['imr=fb 08', 'imr=ff 70'], screen: '640 400' },
  ],
] as const) {
  test(`when ${says}`, () =>
    enter({ flags }, { before: asLinux, machine: { extraArguments: ['-device', 'VGA'] } }, async (vm) => {
      await registersInKernel(vm);
      const shown = await monitor(vm, 'info pic');
      const pics = [...shown.matchAll(/^pic([01]):.* imr=(\w\w) .* irq_base=(\w\w)/gm)]
        .sort()
        .map(([, , imr, base]) => `imr=${imr} ${base}`);
      assert.deepEqual(pics, expected.pic, shown);
      const filename = join(folder, 'screen.ppm');
      await vm.qmp('screendump', { filename });
      assert.equal(readFileSync(filename, 'latin1').split('\n')[1], expected.screen);
    }));
}
