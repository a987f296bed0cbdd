/** Preserved memory over a change of kernels, in guests: stock kernels, and no more than tideover in them. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { boot } from '../../lab/boot.ts';
import { kernel } from '../../lab/kernels.ts';
import { guestRoot } from '../../lab/root.ts';
import { removeTemporary, temporaryFolder } from '../../lab/temporary.ts';
import type { Vm } from '../../lab/vm.ts';

const project = new URL('../..', import.meta.url).pathname;
const NEXT_KERNEL_MS = 120_000;
const MIB = 1 << 20;

/** Copies the sources with the programs of test/lab/guest into the guest. */
async function bringPrograms(vm: Vm): Promise<void> {
  await vm.check('mkdir -p /tmp/t/test/lab');
  await vm.copyIn(join(project, 'src'), '/tmp/t/src');
  await vm.copyIn(join(project, 'dist/koffi.node'), '/tmp/t/src/koffi.node');
  await vm.copyIn(join(project, 'test/lab/guest'), '/tmp/t/test/lab/guest');
  await vm.copyIn(join(project, 'package.json'), '/tmp/t/package.json');
}

test('nodes in huge pages of 6.12 are found by 6.18, whole, and are off the list then', async () => {
  const vm = await boot({ kernel: '6.12', memory: 1024 });
  try {
    const next = await kernel('6.18');
    const folder = temporaryFolder();
    try {
      writeFileSync(join(folder, 'initrd'), await guestRoot(next));
      await vm.copyIn(next.vmlinuz, '/tmp/vmlinuz');
      await vm.copyIn(join(folder, 'initrd'), '/tmp/initrd');
    } finally {
      removeTemporary(folder);
    }
    await bringPrograms(vm);
    const commandLine = (await vm.check('cat /proc/cmdline')).trim();
    assert.ok(!/nokaslr/.test(commandLine));
    const keep = `node /tmp/t/test/lab/guest/pkram-keep.ts /tmp/vmlinuz /tmp/initrd '${commandLine}' /tmp/files ${40 * MIB} /tmp/kept`;
    await vm.check(`mkdir /tmp/files; (setsid ${keep} >/tmp/log 2>&1 </dev/null &)`);
    const kept = JSON.parse(
      await vm.check(
        'for i in $(seq 240); do [ -e /tmp/kept ] && break; sleep 1; done; cat /tmp/kept || cat /tmp/log',
        {
          timeout: 300_000,
        },
      ),
    );
    assert.ok(kept.size >= 120 * MIB);
    const before = vm.agent.greeting;
    void vm.run('tideover kexec exec').catch(() => {});
    assert.equal((await vm.nextKernel(before, NEXT_KERNEL_MS)).release, next.release);
    await bringPrograms(vm);
    const found = JSON.parse(
      await vm.check('node /tmp/t/test/lab/guest/pkram-find.ts /tmp/files', { timeout: 300_000 }),
    );
    assert.deepEqual(found.digests, kept.digests);
    assert.deepEqual([found.superblock, found.ranges, found.size], [kept.superblock, kept.ranges, kept.size]);
    assert.equal(found.left, 0);
    assert.match(found.kernel, /^6\.12/, 'it says under which kernel it was saved');
    const again = JSON.parse(await vm.check('node /tmp/t/test/lab/guest/pkram-find.ts /tmp/files'));
    assert.deepEqual(again.digests, {});
  } finally {
    await vm.close();
  }
});
