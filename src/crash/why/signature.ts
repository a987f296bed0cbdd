/**
 * By which the same crash is known again: a hash of what happened and of the names of the functions that led there. Addresses,
 * offsets and what compilers add to names are left out, so that it is the same on every boot and mostly with another build.
 */
import { plainName } from './scene.ts';
import type { CallFrame, FindingKind, Signature } from './verdict.ts';

/** So many functions tell crashes apart. Beyond are the ways in which programs come into the kernel. */
const MAX_FUNCTIONS = 12;

/**
 * @param frames of the code that is to blame, the innermost first: up to where it interrupted something else
 * @param about what tells such crashes apart where the stack does not
 */
export function signatureOf(kind: FindingKind, frames: readonly CallFrame[], about?: string): Signature | undefined {
  const names: string[] = about === undefined ? [] : [about];
  for (const { symbol, module, interrupted } of frames) {
    // What an interrupt came into differs each time.
    if (interrupted && names.length > 0) break;
    if (symbol === '') continue;
    const name = module === undefined ? plainName(symbol) : `${module}:${plainName(symbol)}`;
    // Recursion has a different depth each time.
    if (!names.includes(name)) names.push(name);
  }
  if (names.length === 0) return undefined;
  const parts = [kind, ...names.slice(0, MAX_FUNCTIONS)];
  return { hash: fnv1a(parts.join('\n')), parts };
}

/** FNV-1a of 64 bits (RFC 9923), in hexadecimal. */
function fnv1a(text: string): string {
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(text)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash.toString(16).padStart(16, '0');
}
