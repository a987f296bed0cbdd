/**
 * Every form of every instruction, with random operands, against an independent disassembler (iced-x86): what was
 * written is what it reads, to the last byte. What is compared is structure (mnemonic, registers, address, numbers), not text.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type Instruction as Decoded,
  Decoder,
  DecoderOptions,
  MemorySizeExt,
  Mnemonic,
  OpKind,
  Register,
} from 'iced-x86';
import { assemble, code32, db, resb } from '../../../src/asm/assemble.ts';
import type { Code, Form, Instruction } from '../../../src/asm/form.ts';
import * as instructions from '../../../src/asm/instructions.ts';
import * as operands from '../../../src/asm/operands.ts';
import { type Label, type Memory, mem, type Operand, type Register as OurRegister } from '../../../src/asm/operands.ts';

interface Declared {
  (...operands: readonly Operand[]): Instruction;
  readonly forms: readonly Form[];
}

const declared = (Object.values({ ...instructions, ...instructions.rep, ...instructions.repe }) as unknown[]).filter(
  (value): value is Declared => typeof value === 'function',
);
const registers = (Object.values(operands) as unknown[]).filter(
  (value): value is OurRegister =>
    typeof value === 'object' && value !== null && 'file' in value && 'number' in value && 'width' in value,
);

const of = (file: OurRegister['file'], width: number) =>
  fc.constantFrom(...registers.filter((register) => register.file === file && register.width === width));
const named = (name: string) => fc.constant(registers.find((register) => register.name === name)!);

const disp = fc.oneof(
  fc.constantFrom(0, 1, -1, 127, -128, 128, -129),
  fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
);

/** Any address with registers of one width; `rip` is the label behind the instruction. */
function address(width: 64 | 32, rip: Label | undefined) {
  const base = fc.option(of('gpr', width), { nil: undefined });
  const index = fc.option(
    of('gpr', width).filter((register) => register.number !== 4),
    { nil: undefined },
  );
  const indexed = fc
    .record({ base, index, scale: fc.constantFrom(1, 2, 4, 8), disp })
    .map(({ base, index, scale, disp }) => ({ ...(base && { base }), ...(index && { index, scale }), disp }));
  if (rip === undefined) return indexed;
  return fc.oneof(
    { weight: 5, arbitrary: indexed },
    { weight: 1, arbitrary: fc.integer({ min: -99, max: 99 }).map((disp) => ({ rip, disp })) },
  );
}

function memory(width: number, rip: Label | undefined, addressWidth: fc.Arbitrary<64 | 32>) {
  return addressWidth.chain((bits) => address(bits, rip)).map((where): Memory => ({ ...mem(where as never), width }));
}

/** Any number that fits a field of so many bits, signed or not, and often a small one. */
function number(bits: number): fc.Arbitrary<bigint> {
  const [low, high] = [-(2n ** BigInt(bits - 1)), 2n ** BigInt(bits) - 1n];
  return fc.oneof(
    fc.bigInt({ min: low, max: high }),
    fc.bigInt({ min: -130n, max: 130n }).filter((n) => n >= low && n <= high),
  );
}

interface Mode {
  readonly bits: 64 | 32;
  readonly target: Label;
  readonly addressWidth: fc.Arbitrary<64 | 32>;
}

function operand(code: Code, size: number, mode: Mode): fc.Arbitrary<Operand> {
  const widths: Record<string, number> = { b: 8, w: 16, d: 32, q: 64, dq: 128, v: size, y: size, n: mode.bits };
  const width = widths[code.slice(1)]!;
  const inMemory = memory(width, mode.bits === 64 ? mode.target : undefined, mode.addressWidth);
  switch (code) {
    case '1':
      return fc.constant(1);
    case 'AL':
    case 'AX':
    case 'CL':
    case 'DX':
      return named(code.toLowerCase());
    case 'Ib':
      return number(8);
    case 'Ibs':
      return fc.bigInt({ min: -128n, max: 127n });
    case 'Id':
      return number(32);
    case 'Iq':
      return number(64);
    case 'Iz':
      return size === 64 ? fc.bigInt({ min: -(2n ** 31n), max: 2n ** 31n - 1n }) : number(size);
    case 'Jb':
    case 'Jz':
      return fc.constantFrom(mode.target, code === 'Jb' ? operands.short(mode.target) : operands.near(mode.target));
    case 'M':
      return memory(0, mode.bits === 64 ? mode.target : undefined, mode.addressWidth);
  }
  switch (code[0]) {
    case 'C':
      return of('control', 64);
    case 'S':
      return of('segment', 16);
    case 'V':
      return of('xmm', 128);
    case 'W':
      return fc.oneof(of('xmm', 128), inMemory);
    case 'E':
      return fc.oneof(of('gpr', width), inMemory);
    default:
      return of('gpr', width);
  }
}

/** Where iced names an instruction by another of its names. */
const otherNames: Record<string, string> = { jz: 'je', jnz: 'jne', retfq: 'retf', 'jmp far': 'jmp' };

function check(instruction: Instruction, decoded: Decoded, target: bigint, bits: 64 | 32) {
  const name = instruction.name.replace(/^repe? /, '');
  assert.equal(Mnemonic[decoded.mnemonic]!.toLowerCase(), otherNames[name] ?? name);
  assert.equal(decoded.hasRepPrefix || decoded.hasRepePrefix, name !== instruction.name);
  const implied = instruction.operands.length === 0;
  if (!implied) assert.equal(decoded.opCount, instruction.operands.length);
  for (const [i, operand] of instruction.operands.entries()) {
    const kind = decoded.opKind(i);
    if (typeof operand === 'number' || typeof operand === 'bigint') {
      const width = instruction.encoding.slots[i]!.width || 8;
      assert.equal(BigInt.asUintN(width, decoded.immediate(i)), BigInt.asUintN(width, BigInt(operand)));
    } else if (operand.file === 'label' || operand.file === 'target') {
      assert.equal(decoded.nearBranchTarget, target);
    } else if (operand.file === 'memory') {
      assert.equal(kind, OpKind.Memory);
      const { width } = instruction.encoding.slots[i]!;
      if (width > 0) assert.equal(MemorySizeExt.size(decoded.memorySize) * 8, width);
      checkAddress(operand, decoded, target, bits);
    } else {
      assert.equal(kind, OpKind.Register);
      // iced calls r8l what the manual calls r8b.
      const expected = operand.name.replace(/^(r\d+)b$/, '$1l');
      assert.equal(Register[decoded.opRegister(i)]!.toLowerCase(), expected);
    }
  }
}

function checkAddress({ address }: Memory, decoded: Decoded, target: bigint, bits: 64 | 32) {
  const disp = BigInt(address.disp ?? 0);
  if ('rip' in address) {
    assert.equal(decoded.memoryBase, Register.RIP);
    assert.equal(decoded.memoryDisplacement, target + disp);
    return;
  }
  const name = (register: Register) => (register === Register.None ? undefined : Register[register]!.toLowerCase());
  assert.equal(name(decoded.memoryBase), address.base?.name);
  assert.equal(name(decoded.memoryIndex), address.index?.name);
  if (address.index) assert.equal(decoded.memoryIndexScale, address.scale ?? 1);
  const width = (address.base ?? address.index)?.width ?? bits;
  assert.equal(BigInt.asUintN(width, decoded.memoryDisplacement), BigInt.asUintN(width, disp));
}

function roundTrip(instruction: Instruction, target: Label, bits: 64 | 32) {
  const items = [instruction, target, db(0xf4)];
  const { bytes, offsetOf } = bits === 64 ? assemble(...items) : assemble(code32(...items));
  const decoder = new Decoder(bits, bytes, DecoderOptions.None);
  const decoded = decoder.decode();
  try {
    assert.equal(decoded.length, bytes.length - 1, 'length');
    check(instruction, decoded, BigInt(offsetOf(target)), bits);
  } finally {
    decoded.free();
    decoder.free();
  }
}

/** Operand sizes at which a form exists. */
function sizesOf(codes: readonly Code[]): number[] {
  if (codes.some((code) => code.endsWith('v'))) return [16, 32, 64];
  return codes.some((code) => code.endsWith('y')) ? [32, 64] : [0];
}

const target = operands.label('target');

test('each form in 64-bit code reads back as it was written', () => {
  const mode: Mode = { bits: 64, target, addressWidth: fc.constantFrom(64, 64, 64, 32) };
  const chosen = new Set<Form>();
  for (const make of declared) {
    for (const form of make.forms) {
      const [, ...codes] = form;
      for (const size of sizesOf(codes)) {
        const all = fc.tuple(...codes.map((code) => operand(code, size, mode)));
        fc.assert(
          fc.property(all, (operands) => {
            const instruction = make(...operands);
            chosen.add(instruction.encoding.form);
            if (instruction.near) chosen.add(instruction.near.form);
            roundTrip(instruction, target, 64);
          }),
          { numRuns: codes.length === 0 ? 1 : 100 },
        );
      }
    }
  }
  const unused = declared.flatMap((make) => make.forms).filter((form) => !chosen.has(form));
  assert.deepEqual(unused, []);
});

test('each form in 32-bit code reads back as it was written, or is refused for its REX prefix', () => {
  const mode: Mode = { bits: 32, target, addressWidth: fc.constant(32) };
  let written = 0;
  for (const make of declared) {
    for (const form of make.forms) {
      const [, ...codes] = form;
      const rex = form[0].includes('REX.W') || codes.some((code) => code === 'Zq');
      if (rex || form[0] === '0F 05') continue;
      for (const size of sizesOf(codes).filter((size) => size !== 64)) {
        fc.assert(
          fc.property(fc.tuple(...codes.map((code) => operand(code, size, mode))), (operands) => {
            const instruction = make(...operands);
            const needsRex = instruction.operands.some(
              (operand) =>
                typeof operand === 'object' &&
                (('number' in operand && (operand.number > 7 || (operand.width === 8 && operand.number > 3))) ||
                  (operand.file === 'memory' &&
                    !('rip' in operand.address) &&
                    Math.max(operand.address.base?.number ?? 0, operand.address.index?.number ?? 0) > 7)),
            );
            if (needsRex) assert.throws(() => assemble(code32(instruction)), /no REX prefix/);
            else {
              roundTrip(instruction, target, 32);
              written++;
            }
          }),
          { numRuns: codes.length === 0 ? 1 : 40 },
        );
      }
    }
  }
  assert.ok(written > 1000, `${written} instructions written`);
});

test('a jump is as long as its distance needs', () => {
  for (const [distance, length] of [
    [127, 2],
    [128, 5],
  ] as const) {
    const to = operands.label('to');
    const { bytes } = assemble(instructions.jmp(to), resb(distance), to);
    assert.equal(bytes.length, length + distance);
    const backwards = assemble(to, resb(distance - 1), instructions.jmp(to));
    assert.equal(backwards.bytes.length, distance - 1 + (distance - 1 + 2 <= 128 ? 2 : 5));
  }
});

test('chains of jumps of random distances all arrive', () => {
  fc.assert(
    fc.property(fc.array(fc.record({ to: fc.nat(), gap: fc.nat(200) }), { minLength: 1, maxLength: 30 }), (hops) => {
      const labels = hops.map((_, i) => operands.label(`l${i}`));
      const jumps = hops.map(({ to }, i) => (i % 2 ? instructions.jmp : instructions.jnz)(labels[to % hops.length]!));
      const { bytes, offsetOf } = assemble(jumps.map((jump, i) => [labels[i]!, jump, resb(hops[i]!.gap)]));
      for (const [i, { to }] of hops.entries()) {
        const at = offsetOf(labels[i]!);
        const decoder = new Decoder(64, bytes.subarray(at), DecoderOptions.None);
        decoder.ip = BigInt(at);
        const decoded = decoder.decode();
        assert.equal(decoded.nearBranchTarget, BigInt(offsetOf(labels[to % hops.length]!)));
        decoded.free();
        decoder.free();
      }
    }),
    { numRuns: 200 },
  );
});
