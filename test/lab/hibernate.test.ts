/** A whole machine is saved by another kernel, switched off, and goes on in a new one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Vm } from '../../lab/vm.ts';
import {
  checkFileSystem,
  checkWork,
  debianModules,
  ended,
  GOES_ON,
  goOn,
  helper,
  hibernate,
  hibernateAway,
  inMachine,
  machineOf,
  newDisks,
  QUICK,
  SAVED,
  SLOW,
  startWork,
} from './hibernating.ts';

test('where there is no room it goes on; switched off, it goes on in another machine, and once only', async () => {
  using disks = newDisks();
  const machine = machineOf(disks);
  const self = await inMachine(machine, async (vm) => {
    await startWork(vm);
    const refused = await vm.run(`tideover hibernate --to /dev/vdc ${QUICK} ${await helper(vm)}`, SLOW);
    const estimated = Number(/is going to have about (\d+) MB/.exec(refused.stderr.toString())?.[1]);
    assert.equal(refused.status, 1);
    await hibernate(vm, `--force --to /dev/vdc ${QUICK}`, GOES_ON);
    assert.match((await ended(vm, 1)).error!.message, /goes on: ENOSPC/);
    assert.match(await vm.check('dmesg'), /tideover: this machine goes on: failed: ENOSPC/);
    await checkWork(vm);
    const self = await hibernateAway(vm, `--to /dev/vdb ${QUICK}`);
    const saved = Number(/ as (\d+) MB/.exec(SAVED.exec(vm.console.text)![0])![1]) * 1.048576;
    assert.ok(estimated > 0.6 * saved && estimated < 1.6 * saved, `${estimated} MB estimated, ${saved} MB saved`);
    return self;
  });
  const resume = async (vm: Vm) => `tideover resume ${await helper(vm)}`;
  const elsewhere = async (vm: Vm) => {
    const bound = `echo '{"disk":{"place":"elsewhere"}}' >/tmp/place; ${await resume(vm)} --place /tmp/place`;
    assert.match(await vm.check(bound, SLOW), /no image on the disk .* was given; to take the one on \/dev\/vdb: /);
    return resume(vm);
  };
  await goOn(machine, self, elsewhere, async (vm) => {
    const shown = JSON.parse(await vm.check('tideover image show /dev/vdb --json', SLOW));
    assert.equal(shown.state, 'used');
    const { zero, cache, cachePrivate, user, free, kernel, total } = shown.usage;
    assert.equal(zero + cache + cachePrivate + user + free + kernel, total);
    assert.ok(cache * 4096 > 64e6, 'what is in /tmp is page cache');
    assert.ok(user * 4096 > 4e6 && kernel * 4096 > 4e6, JSON.stringify(shown.usage));
    assert.match(await vm.check(await resume(vm), SLOW), /has been resumed before/);
  });
});

/** How often each kernel saves and lets go on. */
const TESTS = { jump: 10, '6.12': 2 } as const;

/** The file for the image, on a file system that the machine has mounted, and a folder for what the next boot is to have. */
async function prepareFile(vm: Vm): Promise<void> {
  await vm.check('mkfs.ext4 -q /dev/vdb && mkdir -p /mnt/image && mount /dev/vdb /mnt/image');
  await vm.check('dd if=/dev/zero of=/mnt/image/file bs=1M count=1000', SLOW);
  await vm.check('mkdir -p /etc/initramfs-tools');
}

if (process.env.TIDEOVER_FULL) {
  for (const [firmware, name] of [
    ['bios', 'jump'],
    ['uefi', '6.12'],
  ] as const) {
    test(`${firmware}, ${name}: saved and going on; then to a file, switched off, and going on by the initramfs`, async () => {
      using disks = newDisks(256 << 20);
      const base = machineOf(disks);
      const machine = { ...base, firmware, disks: [...base.disks!, ...(await debianModules())] };
      const self = await inMachine(machine, async (vm) => {
        await startWork(vm);
        await prepareFile(vm);
        const before = JSON.parse((await vm.run('tideover hibernate check --json', SLOW)).stdout.toString());
        assert.deepEqual(
          before.requirements
            .filter((each: { answer: string }) => each.answer === 'no')
            .map((each: { what: string }) => each.what),
          ['initramfs hook'],
        );
        for (let i = 0; i < TESTS[name]; i++) {
          const cache = i === 0 ? '--drop-caches' : '';
          await hibernate(vm, `--test ${QUICK} ${cache} --to /mnt/image/file`, GOES_ON, name);
          assert.equal((await ended(vm)).outcome, 'tested');
          await checkWork(vm);
        }
        const kernel = (await helper(vm, name)).replace(/ --append .*/, '');
        const { written, todo } = JSON.parse(
          await vm.check(`tideover hibernate setup --to /mnt/image/file ${kernel} --json`, SLOW),
        );
        assert.equal(written.length, 4);
        assert.deepEqual(todo, ['run: update-initramfs -u']);
        assert.equal(JSON.parse(await vm.check('tideover hibernate check --json', SLOW)).possible, true);
        // What update-initramfs would put there.
        await vm.check('mkfs.ext4 -q /dev/vdc && mkdir /tmp/boot && mount /dev/vdc /tmp/boot');
        await vm.check(
          'cp -r /var/lib/tideover/hibernate /etc/initramfs-tools/scripts /tmp/boot && umount /tmp/boot',
          SLOW,
        );
        return hibernateAway(vm, `--reboot --to /mnt/image/file`, name);
      });
      const initramfs = async (vm: Vm) => {
        await vm.check(
          'mkdir -p /tmp/boot && mount -o ro /dev/vdc /tmp/boot && cp -r /tmp/boot/hibernate /tideover',
          SLOW,
        );
        return 'sh /tmp/boot/scripts/local-premount/tideover';
      };
      await goOn(machine, self, initramfs, async (vm) => {
        await checkFileSystem(vm);
        await vm.check('umount /mnt/image && e2fsck -f -n /dev/vdb', SLOW);
      });
    });
  }
}
