/** The page at which a machine that sleeps waits for its answer, by its physical address. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { makeMailbox } from '../../../src/hibernate/mailbox.ts';
import type { FileSystemMark } from '../../../src/hibernate/marks.ts';
import { PAGE_SIZE } from '../../../src/mem/address.ts';
import { readMaps } from '../../../src/sys/maps.ts';
import { Pagemap, pfnOf } from '../../../src/sys/pagemap.ts';
import { viewMemory } from '../../../src/sys/syscall.ts';
import { rootTest } from '../root.ts';

const COMPACT = '/proc/sys/vm/compact_memory';
/** No mailbox has a larger mapping, and several may lie in one. */
const LARGE = 16 << 20;

/** What stands in this process's page at a physical address, or undefined where it has none there. */
function ownPage(physical: number): string | undefined {
  using pagemap = new Pagemap('self');
  for (const { start, end, prot } of readMaps('self')) {
    if (end - start > LARGE || prot === 0) continue;
    const entries = pagemap.read(start, end);
    for (let i = 0; i < (end - start) / PAGE_SIZE; i++) {
      if (pfnOf(entries, i) !== physical / PAGE_SIZE) continue;
      return Buffer.from(viewMemory(start + i * PAGE_SIZE, PAGE_SIZE)).toString('latin1');
    }
  }
  return undefined;
}

rootTest('it stays where it is when programs are started, and when the kernel makes room', () => {
  // Where half of them is given back, the kernel would move some of the others.
  const mailboxes = Array.from({ length: 128 }, () => makeMailbox({ start: 0, end: 0 }));
  for (const mailbox of mailboxes.splice(0, 64)) mailbox[Symbol.dispose]();
  const child = spawn('sleep', ['100']);
  const mark: FileSystemMark = { id: 'ext4 1234', digest: '5678', at: '/somewhere' };
  try {
    if (existsSync(COMPACT)) writeFileSync(COMPACT, '1');
    for (const { address, cookie, tell } of mailboxes) {
      tell([mark]);
      assert.ok(ownPage(address)?.startsWith(cookie + JSON.stringify([mark])), `0x${address.toString(16)}`);
    }
  } finally {
    child.kill();
    for (const mailbox of mailboxes) mailbox[Symbol.dispose]();
  }
});
