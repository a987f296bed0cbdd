/** The power is cut while a machine is saved and while it is put back, and images are damaged: it goes on, or boots; never twice. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { within } from '../../lab/deadline.ts';
import { emptyDisk, type OwnDisk } from '../../lab/disk.ts';
import type { Vm } from '../../lab/vm.ts';
import { openFile } from '../../src/crash/io/file.ts';
import { openImage } from '../../src/hibernate/image.ts';
import {
  checkFileSystem,
  checkWork,
  ended,
  GOES_ON,
  helper,
  hibernate,
  hibernateAway,
  inMachine,
  kernels,
  machineOf,
  NEXT_KERNEL_MS,
  newDisks,
  QUICK,
  SAVED,
  SLOW,
  startWork,
} from './hibernating.ts';
import { KERNELS, mountKernels } from './next-kernels.ts';

const CUTS = 20;
/** Bytes per second: saving some 300 MB takes long enough for as many cuts, however quick the machine is. */
const SLOW_DISK = 20e6;

/** What stands on a disk when the machine stops. */
function copyOf(disk: OwnDisk): OwnDisk {
  const copy = emptyDisk(0);
  execFileSync('cp', ['--sparse=always', disk.path, copy.path]);
  return copy;
}

/** What is found on the disks as power cuts would leave them, at random moments until something has been said. */
async function cutsUntil(vm: Vm, end: RegExp, look: () => string): Promise<string[]> {
  const since = vm.console.text.length;
  let over = false;
  const ended = vm.waitFor(end, NEXT_KERNEL_MS, since).finally(() => {
    over = true;
  });
  const found: string[] = [];
  while (!over) {
    await Promise.race([setTimeout(Math.random() * 700), ended]);
    if (over) break;
    // Nothing is on its way to a disk then; what has not been written yet is not in the file.
    await vm.qmp('stop');
    found.push(look());
    await vm.qmp('cont');
  }
  await ended;
  return found;
}

/** The head of an image, or undefined where there is none; its pages are checked when they are restored. */
function imageOn(disk: OwnDisk) {
  const reader = openFile(disk.path);
  try {
    const { state, size } = openImage(reader);
    return { state, size };
  } catch {
    return undefined;
  } finally {
    reader.close();
  }
}

/** Turns the bits of one byte. @returns the disk */
function damaged(disk: OwnDisk, at: number): OwnDisk {
  const copy = copyOf(disk);
  const fd = openSync(copy.path, 'r+');
  const byte = new Uint8Array(1);
  readSync(fd, byte, 0, 1, at);
  writeSync(fd, Uint8Array.of(byte[0]! ^ 0xff), 0, 1, at);
  closeSync(fd);
  return copy;
}

const name = (i: number) => `/dev/vd${String.fromCharCode(97 + i)}`;

if (process.env.TIDEOVER_FULL) {
  test(`at least ${2 * CUTS} power cuts, and damaged images`, async (context) => {
    using disks = newDisks();
    const { own, image, small } = disks;
    const copies: OwnDisk[] = [];
    const kept = <T extends OwnDisk | OwnDisk[]>(made: T): T => {
      copies.push(...[made].flat());
      return made;
    };
    const machine = { ...machineOf(disks), memory: 896 };
    try {
      const { self, cuts, states } = await inMachine(machine, async (vm) => {
        await startWork(vm);
        await vm.limitDisk('disk1', SLOW_DISK);
        await hibernate(vm, `--to /dev/vdb ${QUICK}`, /tideover: saving/);
        const cuts: OwnDisk[] = [];
        const states = await cutsUntil(vm, SAVED, () => {
          const state = imageOn(image)?.state ?? 'none';
          if (state === 'none' && cuts.length < 3) cuts.push(kept(copyOf(image)));
          return state;
        });
        await within(NEXT_KERNEL_MS, 'the machine is off', vm.exited);
        return { self: vm.agent.greeting!.agent, cuts, states };
      });
      context.diagnostic(`while saving: ${states.join(' ')}`);
      assert.ok(states.length >= CUTS, `${states.length} cuts`);
      assert.deepEqual(states.toSorted(), states, 'none, then ready');
      assert.ok(states.every((state) => state === 'none' || state === 'ready'));
      assert.equal(imageOn(image)?.state, 'ready');
      const { size } = imageOn(image)!;
      const before = { own: kept(copyOf(own)), image: kept(copyOf(image)) };
      const again = () => ({
        ...machine,
        disks: [kept(copyOf(before.own)), kept(copyOf(before.image)), small, kernels],
      });

      // Cut for good while it is put back, then begun anew.
      const first = again();
      const disk = first.disks[1] as OwnDisk;
      const restoring = await inMachine(first, async (vm) => {
        void vm.run(`tideover resume ${await helper(vm)}`).catch(() => {});
        await vm.limitDisk('disk1', SLOW_DISK);
        await vm.waitFor(/tideover: restoring/, NEXT_KERNEL_MS);
        await setTimeout(Math.random() * 8000);
        return imageOn(disk)?.state;
      });
      context.diagnostic(`cut for good while restoring: ${restoring}`);
      assert.equal(restoring, 'ready');
      const used: OwnDisk[] = [];
      const after = await inMachine(first, async (vm) => {
        const began = vm.agent.greeting;
        await vm.limitDisk('disk1', SLOW_DISK);
        void vm.run(`tideover resume ${await helper(vm)}`, SLOW).catch(() => {});
        await vm.waitFor(/tideover: restoring/, NEXT_KERNEL_MS);
        const states = await cutsUntil(vm, GOES_ON, () => {
          const state = imageOn(disk)?.state ?? 'none';
          if (state === 'ready') execFileSync('cmp', [disk.path, before.image.path]);
          else if (used.length === 0) used.push(kept(copyOf(disk)));
          return state;
        });
        assert.equal((await vm.nextKernel(began, NEXT_KERNEL_MS)).agent, self);
        await checkFileSystem(vm);
        return states;
      });
      context.diagnostic(`while restoring: ${after.join(' ')}`);
      assert.ok(after.length >= CUTS, `${after.length} cuts`);
      assert.deepEqual(after.toSorted(), after, 'ready until it is used, and used from then on');
      assert.ok(after.every((state) => state === 'ready' || state === 'used'));
      if (used.length === 0) used.push(disk);

      // What a normal boot says of each.
      const headSize = 4096;
      const bad = kept([
        damaged(image, 100),
        damaged(image, 512 + 40),
        damaged(image, 3590),
        damaged(image, headSize + 600),
        damaged(image, headSize + 30_000),
      ]);
      const fits = kept(copyOf(before.image));
      const chosen = [...cuts, ...used, ...bad, fits];
      const untouched = chosen.map((each) => kept(copyOf(each)));
      const otherProcessor = ['-cpu', 'max,-movbe'];
      await inMachine({ ...machine, disks: [...chosen, kernels], extraArguments: otherProcessor }, async (vm) => {
        const options = await helper(vm);
        for (const [i, each] of chosen.entries()) {
          const state = imageOn(each)?.state;
          const { status, stdout, stderr } = await vm.run(`tideover resume --from ${name(i)} ${options}`, SLOW);
          const said = `${stdout}${stderr}`.trim();
          context.diagnostic(`${i} ${state}: ${status} ${said}`);
          if (bad.includes(each)) assert.equal(status, 5);
          else if (each === fits) assert.match(said, /the processor no longer has movbe/);
          else assert.match(said, state === 'used' ? /has been resumed before/ : /was cut off|there is no image/);
        }
      });
      for (const [i, each] of chosen.entries()) execFileSync('cmp', [each.path, untouched[i]!.path]);

      // A page: known when memory is overwritten, so the machine boots anew and does not try again.
      const page = kept(damaged(image, size - (1 << 20)));
      await inMachine({ ...machine, disks: [own, page, small, kernels] }, async (vm) => {
        void vm.run(`tideover resume ${await helper(vm)}`, SLOW).catch(() => {});
        await vm.waitFor(/tideover: could not restore the machine: .*page at 0x/, NEXT_KERNEL_MS);
        await vm.off();
      });
      assert.deepEqual(imageOn(page), { state: 'failed', size });
      await inMachine({ ...machine, disks: [own, page, small, kernels] }, async (vm) => {
        assert.match(await vm.check(`tideover resume ${await helper(vm)}`, SLOW), /could not be restored before/);
      });
    } finally {
      for (const each of copies) each.remove();
    }
  });

  test('the disk is pulled while it is saved to: the machine goes on, and says why', async () => {
    using disks = newDisks();
    const usb = emptyDisk(2 ** 31);
    const stick = ['-drive', `file=${usb.path},format=raw,if=none,id=usb`, '-device', 'usb-storage,drive=usb,id=stick'];
    try {
      await inMachine({ ...machineOf(disks), extraArguments: ['-device', 'qemu-xhci', ...stick] }, async (vm) => {
        await startWork(vm);
        await vm.limitDisk('usb', SLOW_DISK);
        const since = vm.console.text.length;
        await hibernate(vm, `--to /dev/sda ${QUICK}`, /tideover: \d+% saved/);
        await vm.qmp('device_del', { id: 'stick' });
        await vm.waitFor(GOES_ON, NEXT_KERNEL_MS, since);
        assert.match((await ended(vm, 1)).error!.message, /goes on: E(IO|NODEV|NXIO)\b/);
        assert.match(await vm.check('dmesg'), /tideover: this machine goes on: failed: E/);
        await checkWork(vm);
      });
    } finally {
      usb.remove();
    }
  });

  test('the dump alone, in another format, is put back by hand', async () => {
    using disks = newDisks();
    const [room, elf] = [emptyDisk(2 ** 31), emptyDisk(2 ** 31)];
    const base = machineOf(disks);
    const machine = { ...base, memory: 896, disks: [disks.own, disks.image, disks.small, room, elf, kernels] };
    try {
      const self = await inMachine(machine, async (vm) => {
        await startWork(vm);
        return hibernateAway(vm, `--to /dev/vdb ${QUICK}`);
      });
      await inMachine(machine, async (vm) => {
        const began = vm.agent.greeting;
        await mountKernels(vm);
        await vm.check('mkfs.ext4 -q /dev/vdd && mkdir /mnt/room && mount /dev/vdd /mnt/room', SLOW);
        await vm.check('tideover crash convert /dev/vdb /mnt/room/elf --to elf', SLOW);
        const [ps, psOfElf] = [
          await vm.check('tideover crash ps /dev/vdb', SLOW),
          await vm.check('tideover crash ps /mnt/room/elf', SLOW),
        ];
        assert.match(ps, /tideover/);
        assert.equal(psOfElf, ps);
        await vm.check('dd if=/mnt/room/elf of=/dev/vde bs=1M && umount /mnt/room && sync', SLOW);
        const { description } = JSON.parse(await vm.check('tideover image show /dev/vdb --json', SLOW));
        const { entry, region } = description;
        const program = `${KERNELS}/tideover/test/lab/guest/krestore.ts`;
        const args = [`${KERNELS}/jump/vmlinuz`, `${KERNELS}/system`, '/dev/vde', entry, region.start, region.end].join(
          ' ',
        );
        void vm.run(`node ${program} ${args}`, SLOW).catch(() => {});
        await vm.waitFor(GOES_ON, NEXT_KERNEL_MS);
        assert.equal((await vm.nextKernel(began, NEXT_KERNEL_MS)).agent, self);
        await checkWork(vm);
      });
    } finally {
      for (const each of [room, elf]) each.remove();
    }
  });
}
