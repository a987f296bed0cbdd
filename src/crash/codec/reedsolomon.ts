/**
 * Reed-Solomon codes over bytes, both ways, as the kernel's lib/reed_solomon makes them for ramoops: the field of x^8+x^4+x^3+x^2+1,
 * generator polynomial with the roots a^0, a^1, ... A code word is the data and behind it the parity; its first byte is the coefficient
 * of the highest power. With n bytes of parity n/2 wrong bytes are found and put right.
 */
const FIELD = 0x11d;
const ORDER = 255;

/** Powers of a, twice over, so that the sum of two logarithms needs no remainder. */
const power = new Uint8Array(2 * ORDER);
const logarithm = new Uint8Array(ORDER + 1);
for (let i = 0, value = 1; i < ORDER; i++) {
  power[i] = value;
  power[i + ORDER] = value;
  logarithm[value] = i;
  value = (value << 1) ^ (value & 0x80 ? FIELD : 0);
}

function times(a: number, b: number): number {
  return a === 0 || b === 0 ? 0 : power[logarithm[a]! + logarithm[b]!]!;
}

function over(a: number, b: number): number {
  return a === 0 ? 0 : power[logarithm[a]! + ORDER - logarithm[b]!]!;
}

/** Value of a polynomial, the coefficient of the lowest power first. */
function valueAt(polynomial: ArrayLike<number>, x: number): number {
  let value = 0;
  for (let i = polynomial.length - 1; i >= 0; i--) value = times(value, x) ^ polynomial[i]!;
  return value;
}

/** @param size bytes of parity; with the data at most 255 */
export function parityOf(data: Uint8Array, size: number): Uint8Array {
  // The coefficient of the highest power first, without that power itself, which is 1.
  let generator = new Uint8Array(0);
  for (let root = 0; root < size; root++) {
    const next = new Uint8Array(root + 1);
    for (let i = 0; i <= root; i++)
      next[i] = (generator[i] ?? 0) ^ times(i === 0 ? 1 : generator[i - 1]!, power[root]!);
    generator = next;
  }
  const parity = new Uint8Array(size);
  for (const byte of data) {
    const factor = byte ^ parity[0]!;
    parity.copyWithin(0, 1);
    parity[size - 1] = 0;
    for (let i = 0; i < size; i++) parity[i]! ^= times(generator[i]!, factor);
  }
  return parity;
}

/**
 * Puts data and parity right where they stand.
 *
 * @returns how many bytes were wrong, or undefined where these are too many: then nothing is changed
 */
export function correct(data: Uint8Array, parity: Uint8Array): number | undefined {
  const length = data.length + parity.length;
  const syndromes = Array.from({ length: parity.length }, (_, i) => {
    let value = 0;
    for (const byte of data) value = times(value, power[i]!) ^ byte;
    for (const byte of parity) value = times(value, power[i]!) ^ byte;
    return value;
  });
  if (syndromes.every((value) => value === 0)) return 0;
  const locator = errorLocator(syndromes);
  const errors = locator.length - 1;
  if (2 * errors > parity.length) return undefined;
  const evaluator = Array.from({ length: errors }, (_, i) => {
    let value = 0;
    for (let j = 0; j <= i; j++) value ^= times(syndromes[i - j]!, locator[j]!);
    return value;
  });
  const derivative = locator.slice(1).map((value, i) => (i % 2 === 0 ? value : 0));
  const wrong: { at: number; by: number }[] = [];
  // Chien's search of its roots, and Forney's formula for what is wrong there.
  for (let at = 0; at < length; at++) {
    const exponent = length - 1 - at;
    const root = power[(ORDER - exponent) % ORDER]!;
    if (valueAt(locator, root) !== 0) continue;
    const slope = valueAt(derivative, root);
    if (slope === 0) return undefined;
    wrong.push({ at, by: times(power[exponent]!, over(valueAt(evaluator, root), slope)) });
  }
  if (wrong.length !== errors) return undefined;
  for (const { at, by } of wrong) {
    if (at < data.length) data[at]! ^= by;
    else parity[at - data.length]! ^= by;
  }
  return errors;
}

/** The polynomial whose roots are the inverse places of errors, the coefficient of the lowest power first: Berlekamp and Massey. */
function errorLocator(syndromes: readonly number[]): number[] {
  let [locator, before] = [[1], [1]];
  let [errors, shift, beforeDiscrepancy] = [0, 1, 1];
  for (const [step, syndrome] of syndromes.entries()) {
    let discrepancy = syndrome;
    for (let i = 1; i <= errors; i++) discrepancy ^= times(locator[i] ?? 0, syndromes[step - i]!);
    if (discrepancy === 0) {
      shift++;
      continue;
    }
    const factor = over(discrepancy, beforeDiscrepancy);
    const next = Array.from({ length: Math.max(locator.length, before.length + shift) }, (_, i) => {
      return (locator[i] ?? 0) ^ times(factor, before[i - shift] ?? 0);
    });
    if (2 * errors <= step) {
      [before, beforeDiscrepancy, shift] = [locator, discrepancy, 1];
      errors = step + 1 - errors;
    } else shift++;
    locator = next;
  }
  while (locator.at(-1) === 0) locator.pop();
  return locator;
}
