/** Code from the encoder, run on this processor: it computes what JavaScript computes. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { align, assemble, db, dd, dq, type Item } from '../../../src/asm/assemble.ts';
import * as i from '../../../src/asm/instructions.ts';
import * as o from '../../../src/asm/operands.ts';
import { mapCode, Region } from '../../../src/sys/region.ts';

const { rax, eax, al, rcx, ecx, cl, rdx, edx, rbx, ebx, rdi, rsi, r8, r9, r10, r11, r12, r13 } = o;
const { byte, dword, label, mem, qword, rsp, xmm1, xmm2 } = o;

/** A C function of 64-bit integers, whose result is given unsigned. */
function native(parameters: number, ...items: Item[]): (...args: (number | bigint)[]) => bigint {
  const { call } = mapCode(assemble(...items).bytes, parameters);
  return (...args) => u64of(BigInt(call(...args)));
}

const u64of = (value: bigint) => BigInt.asUintN(64, value);
const signed = (value: bigint) => BigInt.asIntN(64, value);
const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const bit = (value: bigint, n: bigint) => (value >> n) & 1n;

for (const [make, expected] of [
  [i.add, (a, b) => a + b],
  [i.sub, (a, b) => a - b],
  [i.and, (a, b) => a & b],
  [i.or, (a, b) => a | b],
  [i.xor, (a, b) => a ^ b],
] as [typeof i.add, (a: bigint, b: bigint) => bigint][]) {
  const { name } = make(rdi, rsi);
  test(`${name} of registers, of memory and of 32-bit registers`, () => {
    const registers = native(2, make(rdi, rsi), i.mov(rax, rdi), i.ret());
    const memory = native(2, i.push(rdi), make(qword({ base: rsp }), rsi), i.pop(rax), i.ret());
    const narrow = native(2, i.mov(rax, rdi), make(eax, o.esi), i.ret());
    fc.assert(
      fc.property(u64, u64, (a, b) => {
        assert.equal(registers(signed(a), signed(b)), u64of(expected(a, b)));
        assert.equal(memory(signed(a), signed(b)), u64of(expected(a, b)));
        // The upper half of a 32-bit result is zero: Vol. 1, 3.4.1.1
        assert.equal(narrow(signed(a), signed(b)), BigInt.asUintN(32, expected(a, b)));
      }),
    );
  });
}

test('shifts and rotations by cl, by a number and by one', () => {
  const rotate = (a: bigint, n: bigint) => u64of(a << n) | (a >> (64n - n));
  for (const [make, expected] of [
    [i.shl, (a, n) => u64of(a << n)],
    [i.shr, (a, n) => a >> n],
    [i.rol, (a, n) => rotate(a, n)],
    [i.ror, (a, n) => rotate(a, 64n - n)],
  ] as [typeof i.shl, (a: bigint, n: bigint) => bigint][]) {
    const byRegister = native(2, i.mov(rcx, rsi), i.mov(rax, rdi), make(rax, cl), i.ret());
    fc.assert(
      fc.property(u64, fc.bigInt({ min: 1n, max: 63n }), (a, n) => {
        assert.equal(byRegister(signed(a), n), expected(a, n));
      }),
    );
    for (const n of [1, 2, 31, 63] as const) {
      const byNumber = native(1, i.mov(rax, rdi), make(rax, n), i.ret());
      assert.equal(byNumber(signed(0x8123_4567_89ab_cdefn)), expected(0x8123_4567_89ab_cdefn, BigInt(n)));
    }
  }
});

test('immediates arrive whole and sign-extended', () => {
  fc.assert(
    fc.property(fc.oneof(u64, fc.bigInt({ min: -(2n ** 63n), max: 2n ** 31n })), (value) => {
      assert.equal(native(0, i.mov(rax, value), i.ret())(), u64of(value));
    }),
    { numRuns: 50 },
  );
  assert.equal(native(0, i.push(-5), i.pop(rax), i.ret())(), u64of(-5n));
  assert.equal(native(0, i.mov(eax, -1), i.ret())(), 0xffff_ffffn);
  assert.equal(native(0, i.xor(eax, eax), i.sub(rax, 0x1234_5678), i.ret())(), u64of(-0x1234_5678n));
});

test('bswap turns bytes around', () => {
  assert.equal(native(0, i.mov(rax, 0x0102_0304_0506_0708n), i.bswap(rax), i.ret())(), 0x0807_0605_0403_0201n);
  assert.equal(native(0, i.mov(eax, 0x0102_0304), i.bswap(eax), i.ret())(), 0x0403_0201n);
});

test('any base, index, scale and displacement reads where it says', () => {
  const memory = new Region(4096);
  for (let at = 0; at < 4096; at += 8)
    memory.view.setBigUint64(at, 0x0101_0101_0101_0101n * BigInt((at / 8) % 251), true);
  // Registers that belong to the caller are kept: rbx, r12, r13 are pushed first.
  const bases = [rax, rcx, rdx, rbx, rsi, rdi, r8, r9, r10, r11, r12, r13] as const;
  fc.assert(
    fc.property(
      fc.constantFrom(...bases),
      fc.option(fc.constantFrom(...bases), { nil: undefined }),
      fc.constantFrom(1, 2, 4, 8),
      fc.oneof(fc.constantFrom(0, -128, 127, 128), fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })),
      fc.nat(200),
      fc.nat(4088),
      (base, index, scale, disp, count, at) => {
        const start = memory.address + at - disp - (index ? count * scale : 0);
        fc.pre(index !== base);
        const address = index ? { base, index, scale, disp } : { base, disp };
        const load = native(
          0,
          [rbx, r12, r13].map((register) => i.push(register)),
          index ? i.mov(index, count) : [],
          i.mov(base, start),
          i.mov(rax, mem(address)),
          [r13, r12, rbx].map((register) => i.pop(register)),
          i.ret(),
        );
        assert.equal(load(), memory.view.getBigUint64(at, true));
      },
    ),
    { numRuns: 300 },
  );
  memory[Symbol.dispose]();
});

test('data beside the code is read relative to the instruction, also before an immediate', () => {
  const [table, wrong] = [label('table'), label('wrong')];
  const code = native(
    0,
    i.lea(rdx, mem({ rip: table })),
    i.mov(rax, mem({ rip: table, disp: 8 })),
    i.cmp(rax, qword({ base: rdx, disp: 8 })),
    i.jne(wrong),
    i.cmp(dword({ rip: table }), 0x1234_5678),
    i.jne(wrong),
    i.cmp(byte({ rip: table, disp: 4 }), 0x41),
    i.jne(wrong),
    i.ret(),
    wrong,
    i.xor(eax, eax),
    i.ret(),
    align(16),
    table,
    dd(0x1234_5678),
    db('A', 0, 0, 0),
    dq(0x1122_3344_5566_7788n),
  );
  assert.equal(code(), 0x1122_3344_5566_7788n);
});

test('loops, calls and conditions', () => {
  const [again, done, square] = [label('again'), label('done'), label('square')];
  const sumOfSquares = native(
    1,
    i.push(rbx),
    i.xor(ebx, ebx),
    again,
    i.test(rdi, rdi),
    i.jz(done),
    i.call(square),
    i.add(rbx, rax),
    i.dec(rdi),
    i.jmp(again),
    done,
    i.mov(rax, rbx),
    i.pop(rbx),
    i.ret(),
    square,
    i.xor(eax, eax),
    i.mov(rcx, rdi),
    repeatAdd(),
    i.ret(),
  );
  for (const n of [0, 1, 2, 100]) assert.equal(sumOfSquares(n), BigInt((n * (n + 1) * (2 * n + 1)) / 6));

  const conditions: [typeof i.je, (a: bigint, b: bigint) => boolean][] = [
    [i.je, (a, b) => a === b],
    [i.jne, (a, b) => a !== b],
    [i.jb, (a, b) => u64of(a) < u64of(b)],
    [i.jae, (a, b) => u64of(a) >= u64of(b)],
    [i.jbe, (a, b) => u64of(a) <= u64of(b)],
    [i.ja, (a, b) => u64of(a) > u64of(b)],
    [i.jl, (a, b) => a < b],
    [i.jge, (a, b) => a >= b],
    [i.jle, (a, b) => a <= b],
    [i.jg, (a, b) => a > b],
    [i.js, (a, b) => bit(u64of(a - b), 63n) === 1n],
    [i.jns, (a, b) => bit(u64of(a - b), 63n) === 0n],
  ];
  const any = fc.oneof(fc.bigInt({ min: -3n, max: 3n }), fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }));
  for (const [jump, expected] of conditions) {
    const yes = label('yes');
    const code = native(2, i.cmp(rdi, rsi), i.mov(eax, 1), jump(yes), i.dec(eax), yes, i.ret());
    fc.assert(fc.property(any, any, (a, b) => assert.equal(code(a, b), expected(a, b) ? 1n : 0n, jump(yes).name)));
  }
});

/** rax += rdi, rcx times: a macro with a label of its own. */
function repeatAdd(): Item[] {
  const more = label('more');
  return [more, i.add(rax, rdi), i.loop(more)];
}

test('string instructions copy, fill, load and compare', () => {
  const memory = new Region(4096);
  const [a, b] = [memory.address, memory.address + 2048];
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 600 }), (bytes) => {
      memory.bytes.set(bytes, 0);
      native(3, i.cld(), i.mov(rcx, rdx), i.rep.movsb(), i.ret())(b, a, bytes.length);
      assert.deepEqual(memory.bytes.slice(2048, 2048 + bytes.length), bytes);
    }),
    { numRuns: 30 },
  );
  const [different, compare] = [label('different'), [i.mov(rcx, rdx), i.repe.cmpsb()]];
  const equal = native(3, compare, i.jne(different), i.mov(eax, 1), i.ret(), different, i.xor(eax, eax), i.ret());
  memory.bytes.copyWithin(2048, 0, 600);
  assert.equal(equal(a, b, 600), 1n);
  memory.bytes[2048 + 599]! ^= 1;
  assert.equal(equal(a, b, 600), 0n);
  assert.equal(equal(a, b, 599), 1n);

  native(3, i.mov(rcx, rdx), i.mov(eax, o.esi), i.rep.stosb(), i.ret())(a, 0x5a, 100);
  assert.ok(memory.bytes.subarray(0, 100).every((value) => value === 0x5a));
  native(3, i.mov(rcx, rdx), i.mov(rax, rsi), i.rep.stosq(), i.ret())(a, 7, 10);
  assert.equal(memory.view.getBigUint64(72, true), 7n);
  assert.equal(native(1, i.mov(rsi, rdi), i.xor(eax, eax), i.lodsb(), i.ret())(a), 7n);
  native(3, i.mov(rcx, rdx), i.rep.movsq(), i.ret())(b, a, 10);
  assert.equal(memory.view.getBigUint64(2048 + 72, true), 7n);
  assert.equal(native(1, i.movzx(eax, byte({ base: rdi })), i.ret())(a), 7n);
  native(1, i.mov(al, 0x21), i.stosb(), i.ret())(a);
  assert.equal(memory.bytes[0], 0x21);
  memory[Symbol.dispose]();
});

const flags = new Set(/^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))![1]!.trim().split(' '));

test('cpuid says the same of SHA and SSSE3 as the kernel', () => {
  const features = (leaf: number, register: typeof ebx) =>
    native(0, i.push(rbx), i.mov(eax, leaf), i.xor(ecx, ecx), i.cpuid(), i.mov(eax, register), i.pop(rbx), i.ret())();
  assert.equal(bit(features(7, ebx), 29n) === 1n, flags.has('sha_ni'));
  assert.equal(bit(features(1, ecx), 9n) === 1n, flags.has('ssse3'));
  assert.equal(bit(features(1, edx), 26n) === 1n, flags.has('sse2'));
});

/** `xmm1 = operation(xmm1, xmm2)` on 16 bytes each. */
function vectors(operation: Item, a: Uint8Array, b: Uint8Array): Buffer {
  const memory = new Region(4096);
  memory.bytes.set(a, 0);
  memory.bytes.set(b, 16);
  native(
    1,
    i.movdqu(xmm1, mem({ base: rdi })),
    i.movdqa(xmm2, mem({ base: rdi, disp: 16 })),
    operation,
    i.movdqu(mem({ base: rdi, disp: 40 }), xmm1),
    i.ret(),
  )(memory.address);
  const result = Buffer.from(memory.bytes.slice(40, 56));
  memory[Symbol.dispose]();
  return result;
}

const lanes = (bytes: Uint8Array) => [0, 4, 8, 12].map((at) => Buffer.from(bytes).readUInt32LE(at));
const bytesOf = (values: number[]) => Buffer.from(Uint32Array.from(values).buffer);
const vector = fc.uint8Array({ minLength: 16, maxLength: 16 });

test('vector instructions move bytes and words where the manual says', { skip: missing('ssse3', 'sse4_1') }, () => {
  fc.assert(
    fc.property(vector, vector, (a, b) => {
      const [x, y] = [lanes(a), lanes(b)];
      assert.deepEqual(vectors(i.paddd(xmm1, xmm2), a, b), bytesOf(x.map((value, n) => value + y[n]!)));
      assert.deepEqual(vectors(i.pshufd(xmm1, xmm2, 0x1b), a, b), bytesOf(y.toReversed()));
      const shuffled = Buffer.from(b).map((control) => (control & 0x80 ? 0 : a[control & 15]!));
      assert.deepEqual(vectors(i.pshufb(xmm1, xmm2), a, b), shuffled);
      const joined = Buffer.concat([b, a]).subarray(4, 20);
      assert.deepEqual(vectors(i.palignr(xmm1, xmm2, 4), a, b), joined);
      const blended = Buffer.concat([Buffer.from(a).subarray(0, 8), Buffer.from(b).subarray(8)]);
      assert.deepEqual(vectors(i.pblendw(xmm1, xmm2, 0xf0), a, b), blended);
    }),
    { numRuns: 10 },
  );
});

test('SHA instructions extend a message as FIPS 180-4 says', { skip: missing('sha_ni') }, () => {
  const rotate = (value: number, by: number) => (value >>> by) | (value << (32 - by));
  const sigma0 = (value: number) => rotate(value, 7) ^ rotate(value, 18) ^ (value >>> 3);
  fc.assert(
    fc.property(vector, vector, (a, b) => {
      const words = [...lanes(a), ...lanes(b)];
      const extended = [0, 1, 2, 3].map((t) => words[t]! + sigma0(words[t + 1]!));
      assert.deepEqual(vectors(i.sha256msg1(xmm1, xmm2), a, b), bytesOf(extended));
    }),
    { numRuns: 10 },
  );
});

function missing(...needed: string[]): string | false {
  const absent = needed.filter((flag) => !flags.has(flag));
  return absent.length > 0 && `this processor has no ${absent.join(', ')}`;
}

test('what cannot be encoded is refused with the reason', () => {
  const any = (make: unknown) => make as (...operands: unknown[]) => never;
  const refused: [() => unknown, RegExp][] = [
    [() => any(i.mov)(rax, ecx), /mov rax, ecx: no encoding takes these operands; it has: Eb,Gb \|/],
    [() => i.mov(mem({ base: rax }), 5), /mov \[rax\], 0x5: how large\?/],
    [() => i.movzx(eax, mem({ base: rax })), /how large\?/],
    [() => i.inc(mem({ base: rax })), /how large\?/],
    [() => any(i.mov)(byte({ base: rax }), eax), /mov byte \[rax\], eax: no encoding/],
    [() => i.add(rax, 0x8000_0000), /add rax, 0x80000000: no encoding/],
    [() => i.mov(rax, 2n ** 64n), /no encoding/],
    [() => i.mov(eax, 1.5), /no encoding/],
    [() => any(i.shl)(eax, o.bl), /shl eax, bl: no encoding/],
    [() => assemble(i.mov(rax, mem({ base: rax, index: rsp }))), /mov rax, \[rax\+rsp\*1\]: .*rsp cannot be an index/],
    [() => assemble(i.mov(rax, mem({ base: rax, index: ecx }))), /the same width/],
    [() => assemble(i.mov(rax, mem({ base: rax, index: rcx, scale: 3 as 4 }))), /1, 2, 4 or 8/],
    [() => assemble(i.mov(rax, mem({ base: rax, disp: 2 ** 31 }))), /signed 32-bit/],
    [() => assemble(i.push(eax)), /push eax: 64-bit code does not have it with 32-bit operands/],
    [() => assemble(i.jmp(label('nowhere'))), /label nowhere stands nowhere/],
    [() => dd(2 ** 32), /4294967296 does not fit 32 bits/],
  ];
  for (const [make, reason] of refused) assert.throws(make, reason);
  const twice = label('twice');
  assert.throws(() => assemble(twice, twice), /label twice stands twice/);
  const far = label('far');
  assert.throws(() => assemble(i.jmp(o.short(far)), db(new Uint8Array(128)), far), /jmp short far: 128 bytes away/);
});
