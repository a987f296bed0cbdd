/**
 * Addresses and page numbers as types of their own, so that one kind cannot be given for another. They are plain numbers at run
 * time, exact because physical addresses have at most 52 bits (Intel SDM Vol. 3, 4.1.4) and user addresses 47, or 56 where a
 * process asks for them with 5-level paging: those beyond 2^53 are refused.
 */

declare const kind: unique symbol;

/** Physical address, in bytes. */
export type PhysAddr = number & { readonly [kind]: 'PhysAddr' };
/** Virtual address in the user half of some process, in bytes. */
export type UserAddr = number & { readonly [kind]: 'UserAddr' };
/** Number of a physical page: physical address / 4096. */
export type Pfn = number & { readonly [kind]: 'Pfn' };

export const PAGE_SHIFT = 12;
/** Bytes in a page. */
export const PAGE_SIZE = 4096;
/** Bytes that one entry of a page middle directory maps: a huge page. */
export const PMD_SIZE = 2 ** 21;

/** @throws RangeError where it is not a whole number from 0 to 2^53 - 1 */
export function physAddr(value: number): PhysAddr {
  return exact(value, 'a physical address') as PhysAddr;
}

/** @throws RangeError where it is not a whole number from 0 to 2^53 - 1 */
export function userAddr(value: number): UserAddr {
  return exact(value, 'a user address') as UserAddr;
}

/** @throws RangeError where the page's address would not be a physical address */
export function pfn(value: number): Pfn {
  exact(value * PAGE_SIZE, 'the address of a page');
  return exact(value, 'a page number') as Pfn;
}

/** The page that an address lies in. */
export function pfnOf(address: PhysAddr): Pfn {
  return Math.floor(address / PAGE_SIZE) as Pfn;
}

/** Where a page begins. */
export function addressOf(page: Pfn): PhysAddr {
  return (page * PAGE_SIZE) as PhysAddr;
}

function exact(value: number, what: string): number {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`${value} is not ${what}`);
  return value;
}
