/**
 * SHA-256 (FIPS 180-4) in machine code, twice: with general registers only, and with the SHA instructions, which are six
 * times as fast. The callers choose; both update eight 32-bit words of state by whole blocks of 64 bytes.
 */
import { align, dd, type Item } from './assemble.ts';
import {
  add,
  and,
  bswap,
  call,
  cmp,
  dec,
  jb,
  je,
  jmp,
  jnz,
  jz,
  lea,
  mov,
  movdqa,
  movdqu,
  paddd,
  palignr,
  pblendw,
  pop,
  pshufb,
  pshufd,
  push,
  rep,
  ret,
  ror,
  sha256msg1,
  sha256msg2,
  sha256rnds2,
  shl,
  shr,
  sub,
  test,
  xor,
} from './instructions.ts';
import {
  byte,
  dword,
  eax,
  ebp,
  ebx,
  ecx,
  edx,
  esi,
  type Gpr,
  label,
  mem,
  qword,
  r8d,
  r9d,
  r10d,
  r11d,
  r12,
  r12d,
  r13,
  r13d,
  r14,
  r15,
  r15d,
  rax,
  rbp,
  rbx,
  rcx,
  rdi,
  rdx,
  rsi,
  rsp,
  type Xmm,
  xmm0,
  xmm1,
  xmm2,
  xmm3,
  xmm4,
  xmm5,
  xmm6,
  xmm7,
  xmm8,
  xmm9,
  xmm10,
  xmmword,
} from './operands.ts';

/** First 32 bits of the fractional parts of the cube roots of the first 64 primes: FIPS 180-4, 4.2.2. */
const roundConstants = primes(64).map((prime) => fraction(prime, 3n));
/** The same of the square roots of the first 8: 5.3.3. */
const initialState = primes(8).map((prime) => fraction(prime, 2n));

/** The entries of this file's code, for one assembly of it. */
export function sha256Code() {
  const sha256 = label('sha256');
  const plain = label('sha256_plain');
  const shaNi = label('sha256_ni');
  const constants = label('sha256_constants');
  const initial = label('sha256_initial');
  const swap = label('sha256_swap');
  const items: Item[] = [
    digest(sha256, initial),
    blocksPlain(plain, constants),
    blocksShaNi(shaNi, constants, swap),
    align(16),
    constants,
    dd(...roundConstants),
    initial,
    dd(...initialState),
    // Bytes of each 32-bit word reversed.
    swap,
    dd(0x00010203, 0x04050607, 0x08090a0b, 0x0c0d0e0f),
  ];
  return { items, sha256, plain, shaNi };
}

/**
 * `sha256(digest: rdi, data: rsi, size: rdx, blocks: rcx)`: the digest of `size` bytes. `blocks` is the address of one of
 * the two functions below.
 *
 *     rsp+0    state, 8 words
 *     rsp+32   padding: the rest of the data, 0x80, zeros, length in bits (big-endian): one block or two
 */
function digest(entry: Item, initial: ReturnType<typeof label>): Item[] {
  const [oneBlock, words] = [label('one_block'), label('words')];
  return [
    entry,
    ...[push(rbx), push(rbp), push(r12), push(r13), push(r14), push(r15)],
    sub(rsp, 168),
    mov(r12, rdi),
    mov(r13, rsi),
    mov(r14, rdx),
    mov(r15, rcx),
    // movdqu would need SSE to be on, for the sake of two instructions.
    mov(rdi, rsp),
    lea(rsi, mem({ rip: initial })),
    mov(ecx, 4),
    rep.movsq(),
    // whole blocks
    mov(rdi, rsp),
    mov(rsi, r13),
    mov(rdx, r14),
    shr(rdx, 6),
    call(r15),
    // padding
    lea(rdi, mem({ base: rsp, disp: 32 })),
    xor(eax, eax),
    mov(ecx, 16),
    rep.stosq(),
    mov(rbp, r14),
    and(rbp, 63),
    mov(rsi, r13),
    add(rsi, r14),
    sub(rsi, rbp),
    lea(rdi, mem({ base: rsp, disp: 32 })),
    mov(rcx, rbp),
    rep.movsb(),
    mov(byte({ base: rdi }), 0x80),
    mov(edx, 1),
    cmp(rbp, 56),
    jb(oneBlock),
    mov(edx, 2),
    oneBlock,
    mov(rax, r14),
    shl(rax, 3),
    bswap(rax),
    mov(rcx, rdx),
    shl(rcx, 6),
    mov(qword({ base: rsp, index: rcx, disp: 32 - 8 }), rax),
    mov(rdi, rsp),
    lea(rsi, mem({ base: rsp, disp: 32 })),
    call(r15),
    mov(ecx, 8),
    words,
    mov(eax, dword({ base: rsp, index: rcx, scale: 4, disp: -4 })),
    bswap(eax),
    mov(dword({ base: r12, index: rcx, scale: 4, disp: -4 }), eax),
    dec(ecx),
    jnz(words),
    add(rsp, 168),
    ...[pop(r15), pop(r14), pop(r13), pop(r12), pop(rbp), pop(rbx)],
    ret(),
  ];
}

/**
 * `sha256_plain(state: rdi, data: rsi, blocks: rdx)`. The message schedule W of a block (FIPS 180-4, 6.2.2) lies at rsp,
 * 64 words; behind it the state's address, the number of blocks left and the address of the data.
 */
function blocksPlain(entry: Item, constants: ReturnType<typeof label>): Item[] {
  const [block, rounds, done] = [label('block'), label('rounds'), label('done')];
  const w = (t: number) => dword({ base: rsp, disp: 4 * t });
  const [state, left, data] = [256, 264, 272].map((disp) => qword({ base: rsp, disp })) as [Word, Word, Word];
  const working = [eax, ebx, ecx, edx, r8d, r9d, r10d, r11d];
  const load = (t: number) => [mov(eax, dword({ base: rsi, disp: 4 * t })), bswap(eax), mov(w(t), eax)];
  // s1(W[t-2]) + W[t-7] + s0(W[t-15]) + W[t-16]
  const extend = (t: number) => [
    mov(eax, w(t - 15)),
    ...[mov(edx, eax), mov(ebx, eax)],
    ...[ror(eax, 7), ror(edx, 18), shr(ebx, 3)],
    ...[xor(eax, edx), xor(eax, ebx)],
    mov(edx, w(t - 2)),
    ...[mov(r8d, edx), mov(ebx, edx)],
    ...[ror(edx, 17), ror(r8d, 19), shr(ebx, 10)],
    ...[xor(edx, r8d), xor(edx, ebx)],
    ...[add(eax, edx), add(eax, w(t - 7)), add(eax, w(t - 16))],
    mov(w(t), eax),
  ];
  return [
    entry,
    ...[push(rbx), push(rbp), push(r12), push(r13), push(r14), push(r15)],
    sub(rsp, 280),
    ...[mov(state, rdi), mov(left, rdx), mov(data, rsi)],
    block,
    ...[cmp(left, 0), je(done), mov(rsi, data)],
    ...Array.from({ length: 64 }, (_, t) => (t < 16 ? load(t) : extend(t))),
    // 8 rounds at a time, after which every working variable is in its register again
    mov(rdi, state),
    ...working.map((register, i) => mov(register, dword({ base: rdi, disp: 4 * i }))),
    ...[mov(r15d, ebx), xor(r15d, ecx)],
    lea(r14, mem({ rip: constants })),
    mov(rdi, rsp),
    mov(ebp, 8),
    rounds,
    ...working.map((_, i) => round([...working.slice(8 - i), ...working.slice(0, 8 - i)], i)),
    add(r14, 32),
    add(rdi, 32),
    dec(ebp),
    jnz(rounds),
    mov(rdi, state),
    ...working.map((register, i) => add(dword({ base: rdi, disp: 4 * i }), register)),
    add(data, 64),
    dec(left),
    jmp(block),
    done,
    add(rsp, 280),
    ...[pop(r15), pop(r14), pop(r13), pop(r12), pop(rbp), pop(rbx)],
    ret(),
  ];
}

type Word = ReturnType<typeof qword>;

/**
 * One round on the variables a to h: h becomes the new a, d the new e. A sum of three rotations is done by rotating in
 * between: ((x ror (r3-r2) ^ x) ror (r2-r1) ^ x) ror r1. Maj(a, b, c) is ((a ^ b) & (b ^ c)) ^ b, and a ^ b is the next
 * round's b ^ c, so that two registers take turns.
 */
function round([a, b, , d, e, f, g, h]: Gpr<32>[], t: number): Item[] {
  const [bc, ab] = t % 2 === 0 ? [r15d, r13d] : [r13d, r15d];
  return [
    // S1(e)
    ...[mov(r12d, e!), ror(r12d, 14), xor(r12d, e!), ror(r12d, 5), xor(r12d, e!), ror(r12d, 6)],
    // Ch(e, f, g)
    ...[mov(esi, f!), xor(esi, g!), and(esi, e!), xor(esi, g!)],
    add(h!, r12d),
    add(h!, esi),
    add(h!, dword({ base: r14, disp: 4 * t })),
    add(h!, dword({ base: rdi, disp: 4 * t })),
    add(d!, h!),
    // S0(a)
    ...[mov(r12d, a!), ror(r12d, 9), xor(r12d, a!), ror(r12d, 11), xor(r12d, a!), ror(r12d, 2)],
    // Maj(a, b, c)
    ...[mov(ab, a!), xor(ab, b!), and(bc, ab), xor(bc, b!)],
    add(h!, r12d),
    add(h!, bc),
  ];
}

/**
 * `sha256_ni(state: rdi, data: rsi, blocks: rdx)`. The processor must have SHA, SSSE3 and SSE4.1, with SSE switched on.
 * The instructions want the state as (a, b, e, f) and (c, d, g, h), highest lane first: Intel SDM Vol. 2, SHA256RNDS2.
 */
function blocksShaNi(entry: Item, constants: ReturnType<typeof label>, swap: ReturnType<typeof label>): Item[] {
  const [block, done] = [label('ni_block'), label('ni_done')];
  const [abef, cdgh, turned, saved0, saved1, order] = [xmm1, xmm2, xmm7, xmm8, xmm9, xmm10];
  return [
    entry,
    movdqu(abef, xmmword({ base: rdi })),
    movdqu(cdgh, xmmword({ base: rdi, disp: 16 })),
    pshufd(abef, abef, 0xb1),
    pshufd(cdgh, cdgh, 0x1b),
    movdqa(turned, abef),
    palignr(abef, cdgh, 8),
    pblendw(cdgh, turned, 0xf0),
    movdqu(order, xmmword({ rip: swap })),
    block,
    test(rdx, rdx),
    jz(done),
    movdqa(saved0, abef),
    movdqa(saved1, cdgh),
    ...Array.from({ length: 16 }, (_, group) => fourRounds(group, constants, order)),
    paddd(abef, saved0),
    paddd(cdgh, saved1),
    add(rsi, 64),
    dec(rdx),
    jmp(block),
    done,
    pshufd(turned, abef, 0x1b),
    pshufd(cdgh, cdgh, 0xb1),
    movdqa(abef, turned),
    pblendw(abef, cdgh, 0xf0),
    palignr(cdgh, turned, 8),
    movdqu(xmmword({ base: rdi }), abef),
    movdqu(xmmword({ base: rdi, disp: 16 }), cdgh),
    ret(),
  ];
}

/** Rounds 4 * group on, with W[t] of the last four groups in xmm3 to xmm6; prepares the next group's W. */
function fourRounds(group: number, constants: ReturnType<typeof label>, order: Xmm): Item[] {
  const messages = [xmm3, xmm4, xmm5, xmm6];
  const of = (number: number) => messages[number & 3]!;
  const [abef, cdgh, shifted] = [xmm1, xmm2, xmm7];
  const load = [movdqu(of(group), xmmword({ base: rsi, disp: 16 * group })), pshufb(of(group), order)];
  // W[t-7] of the next group straddles this group and the one before.
  const schedule = [
    movdqa(shifted, of(group)),
    palignr(shifted, of(group - 1), 4),
    paddd(of(group + 1), shifted),
    sha256msg2(of(group + 1), of(group)),
  ];
  return [
    ...(group < 4 ? load : []),
    movdqa(xmm0, of(group)),
    paddd(xmm0, xmmword({ rip: constants, disp: 16 * group })),
    sha256rnds2(cdgh, abef),
    ...(group >= 3 && group < 15 ? schedule : []),
    pshufd(xmm0, xmm0, 0x0e),
    sha256rnds2(abef, cdgh),
    ...(group >= 1 && group < 13 ? [sha256msg1(of(group - 1), of(group))] : []),
  ];
}

function primes(count: number): number[] {
  const found: number[] = [];
  for (let n = 2; found.length < count; n++) if (found.every((prime) => n % prime !== 0)) found.push(n);
  return found;
}

/** First 32 bits of the fractional part of the `power`-th root: floor(root * 2^32) mod 2^32, by bisection. */
function fraction(of: number, power: bigint): number {
  const target = BigInt(of) << (32n * power);
  let [low, high] = [0n, 1n << 40n];
  while (high - low > 1n) {
    const middle = (low + high) / 2n;
    if (middle ** power <= target) low = middle;
    else high = middle;
  }
  return Number(BigInt.asUintN(32, low));
}
