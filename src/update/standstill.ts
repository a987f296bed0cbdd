/**
 * Preserved memory that is where the next kernel will look for it. Pages may be moved at any time, so they are pinned first and then
 * compared with what the kernel was loaded with; from then on they stay, until the next kernel starts or unseal() is called.
 */
import { IN_DELETE_SELF } from '../abi/inotify.ts';
import { holdOpen } from '../process/holder.ts';
import { close } from '../sys/files.ts';
import { inotify_add_watch, inotify_init1 } from '../sys/inotify.ts';
import { pinMemory } from './medium.ts';
import { demandUnchanged } from './preserved.ts';
import { SEALED, seal } from './state.ts';

/**
 * To be called last before the next kernel starts: nothing may be saved from now on.
 *
 * @param waits this process will have ended until then, with all others; else it must not end
 * @throws UnsupportedError where preserved memory is not what the kernel was loaded with
 */
export function sealInPlace(waits: boolean): void {
  const pins = pinMemory();
  try {
    demandUnchanged();
    seal();
    if (waits && pins.length > 0) holdUntilUnsealed(pins);
  } catch (error) {
    for (const fd of pins) close({ fd });
    throw error;
  }
}

function holdUntilUnsealed(pins: readonly number[]): void {
  const unsealed = inotify_init1({ flags: 0 });
  try {
    inotify_add_watch({ fd: unsealed, pathname: SEALED, mask: IN_DELETE_SELF });
    holdOpen(pins, unsealed);
  } finally {
    close({ fd: unsealed });
  }
}
