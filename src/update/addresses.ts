/** The addresses of this machine that connections of a checkpoint use: a restore needs them. */
import { networkInterfaces } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { FormatError } from '../errors.ts';
import { savedConnections } from '../process/held.ts';
import type { Place } from './medium.ts';
import { type Checkpoint, openCheckpoint } from './workload.ts';

/**
 * Waits until this machine has the addresses; where one does not come, the restore says which.
 *
 * @param place of preserved memory
 * @param patience in ms
 */
export async function untilAddressed(place: Place | undefined, where: Checkpoint, patience: number): Promise<void> {
  const wanted = new Set(addressesOf(place, where).map(addressText));
  const until = performance.now() + patience;
  for (;;) {
    const there = new Set(
      Object.values(networkInterfaces()).flatMap((all) => (all ?? []).map(({ address }) => address)),
    );
    if (wanted.isSubsetOf(there) || performance.now() > until) return;
    await sleep(20);
  }
}

function addressesOf(place: Place | undefined, where: Checkpoint): Uint8Array[] {
  const image = openCheckpoint(place, where);
  try {
    return savedConnections(image).map(({ own }) => own.address);
  } catch (error) {
    // The restore says what is damaged.
    if (error instanceof FormatError) return [];
    throw error;
  } finally {
    image.close();
  }
}

/** In the form in which Node lists addresses of interfaces. */
function addressText(address: Uint8Array): string {
  if (address.length === 4) return address.join('.');
  const groups = Array.from({ length: 8 }, (_, i) => ((address[2 * i]! << 8) | address[2 * i + 1]!).toString(16));
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1);
}
