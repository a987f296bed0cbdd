/** The course of a capture kernel: save, then end the machine as was ordered, whatever happened. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import {
  LINUX_REBOOT_CMD_HALT,
  LINUX_REBOOT_CMD_POWER_OFF,
  LINUX_REBOOT_CMD_RESTART,
  LINUX_REBOOT_MAGIC1,
  LINUX_REBOOT_MAGIC2,
} from '../abi/reboot.ts';
import { UnsupportedError } from '../errors.ts';
import { availableMemory } from '../sys/meminfo.ts';
import { sync } from '../sys/mount.ts';
import { reboot } from '../sys/reboot.ts';
import { ORDERS_FILE, type Orders } from './arm.ts';
import type { NextKernel } from './next.ts';
import { type Saved, save, VMCORE } from './save.ts';
import { swapToMemory } from './swap.ts';

/**
 * @param tell for the console
 * @param boot starts the kernel that follows; comes back only with an error
 * UnsupportedError where this is no capture kernel
 */
export async function runSave(
  file = ORDERS_FILE,
  tell: (line: string) => void,
  boot: (next: NextKernel) => Promise<void>,
): Promise<Saved> {
  if (!existsSync(VMCORE)) {
    throw new UnsupportedError({
      what: 'saving a crash',
      why: `there is no ${VMCORE}: this kernel was not started by a panic`,
      remedy: 'load a capture kernel for the next one: tideover crash arm',
    });
  }
  const orders = JSON.parse(readFileSync(file, 'utf8')) as Orders;
  const isFirst = process.pid === 1;
  if (isFirst) prepareMemory(tell);
  let saved: Saved = { where: undefined, files: [], failures: [] };
  let least = availableMemory();
  tell(`${Math.floor(least / 2 ** 20)} MiB of memory are free`);
  const watch = setInterval(() => {
    least = Math.min(least, availableMemory());
  }, 100);
  try {
    saved = await save(orders, tell);
    tell(saved.where === undefined ? 'NOT ALL WAS SAVED' : `saved to ${saved.where}`);
  } catch (error) {
    if (!isFirst) throw error;
    tell(`saving failed: ${(error as Error).message}`);
  } finally {
    clearInterval(watch);
    tell(`${Math.floor(least / 2 ** 20)} MiB of it were free at any time`);
  }
  if (!isFirst) return saved;
  const action = saved.where === undefined ? orders.failureAction : orders.finalAction;
  if (action === 'boot' && orders.next !== undefined) {
    tell('starting the next kernel');
    await boot(orders.next).catch((error: unknown) => tell(`it cannot be started: ${(error as Error).message}`));
  }
  end(action, tell);
  return saved;
}

/** Saving goes on without it. */
function prepareMemory(tell: (line: string) => void): void {
  try {
    swapToMemory();
  } catch (error) {
    tell(`no memory is compressed: ${(error as Error).message}`);
  }
}

const commands = {
  reboot: LINUX_REBOOT_CMD_RESTART,
  shell: LINUX_REBOOT_CMD_RESTART,
  boot: LINUX_REBOOT_CMD_RESTART,
  poweroff: LINUX_REBOOT_CMD_POWER_OFF,
  halt: LINUX_REBOOT_CMD_HALT,
} as const;

function end(action: Orders['finalAction'], tell: (line: string) => void): void {
  if (action === 'shell') {
    tell('a shell; the machine starts again when it ends');
    const [program, ...args] = existsSync('/usr/bin/busybox') ? ['/usr/bin/busybox', 'sh'] : ['/bin/sh'];
    spawnSync(program!, args, { stdio: 'inherit' });
  }
  sync({});
  tell(action);
  reboot({ magic: LINUX_REBOOT_MAGIC1, magic2: LINUX_REBOOT_MAGIC2, cmd: commands[action], arg: 0 });
}
