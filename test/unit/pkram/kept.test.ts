import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { KeptMedium } from '../../../src/pkram/index.ts';
import type { LockedMedium } from '../../../src/pkram/medium.ts';
import { MemoryMedium } from './medium.ts';

/** With a lock, which it has as long as it is open. */
class Lockable extends MemoryMedium implements LockedMedium {
  isLocked = true;
  isOpen = true;

  lock(): void {
    this.#turn(true);
  }

  unlock(): void {
    this.#turn(false);
  }

  override close(): void {
    this.isOpen = false;
  }

  #turn(to: boolean): void {
    assert.ok(this.isOpen, 'its descriptor may be of something else by now');
    assert.notEqual(this.isLocked, to);
    this.isLocked = to;
  }
}

function fresh(): { medium: Lockable; kept: KeptMedium } {
  const medium = new Lockable(MemoryMedium.formatted(2 << 20).bytes);
  return { medium, kept: new KeptMedium(medium) };
}

describe('a medium that stays mapped', () => {
  it('has the room of a save again that was open when it was closed, however that ended', () => {
    const { kept } = fresh();
    const first = kept.open(false, {});
    const { free } = first.status();
    {
      using save = first.prepareSave('node');
      save.prepareSaveObject().write(new Uint8Array(1 << 20));
      first.close();
    }
    const next = kept.open(false, {});
    assert.equal(next.status().free, free);
    next.close();
  });

  it('is locked as long as one of those is open who only read', () => {
    const { medium, kept } = fresh();
    const [one, two] = [kept.open(true, {}), kept.open(true, {})];
    one.close();
    one.close();
    assert.ok(medium.isLocked);
    two.close();
    assert.ok(!medium.isLocked);
  });

  it('gives up no lock when it is closed already', () => {
    const { medium, kept } = fresh();
    const open = kept.open(true, {});
    kept.close();
    open.close();
    assert.deepEqual([medium.isLocked, medium.isOpen, kept.isFree(false)], [true, false, true]);
  });
});
