/** What a machine sees to when it goes on: its clock, its services and its network. */
import { CLOCK_REALTIME, timespec } from '../abi/time.ts';
import { SyscallError } from '../errors.ts';
import { hasCarrier, networkInterfaces } from '../sys/devices.ts';
import { notifyManager } from '../sys/notify.ts';
import { clock_settime } from '../sys/poll.ts';
import { readProcText } from '../sys/proc.ts';
import { runSleepHooks } from './hooks.ts';

/** Seconds of the clock beside the machine's own: that one has no parts of seconds. */
const CLOCK_LIMIT = 2;
/** Cards look for their partner anew, which takes some seconds. */
const CARRIER_MS = 15_000;
const POLL_MS = 100;

/** What there was before the machine slept. */
export interface Awake {
  /** Seconds by which the system's clock is before the machine's own, which may be on local time; undefined without one. */
  readonly clock: number | undefined;
  /** Network interfaces that had their link. */
  readonly linked: readonly string[];
}

/** Tells the programs that want to know of it (systemd-sleep(8)). @returns for afterSleep(), and what failed, for people */
export function beforeSleep(): { readonly awake: Awake; readonly failed: readonly string[] } {
  const awake = { clock: clockOffset(), linked: linkedInterfaces() };
  return { awake, failed: runSleepHooks('pre') };
}

/**
 * Sets the clock where the kernel did not, tells the programs, and waits for the network.
 *
 * @param state for the service manager, if it has started this: sd_notify(3)
 * @returns what is not as it was, for people
 */
export function afterSleep({ clock, linked }: Awake, state: string): string[] {
  const found = [setClock(clock)];
  tellManager(state);
  found.push(...runSleepHooks('post'));
  const end = Date.now() + CARRIER_MS;
  let lost = linked.filter((name) => !hasCarrier(name));
  while (lost.length > 0 && Date.now() < end) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, POLL_MS);
    lost = lost.filter((name) => !hasCarrier(name));
  }
  found.push(...lost.map((name) => `${name}: the network's link is not back`));
  return found.filter((text) => text !== undefined);
}

function linkedInterfaces(): string[] {
  return networkInterfaces()
    .map(({ name }) => name)
    .filter((name) => name !== 'lo' && hasCarrier(name));
}

/** The kernel does so where it has a driver that reads the machine's clock (timekeeping_resume()); another may be off by hours. */
function setClock(before: number | undefined): string | undefined {
  const now = clockOffset();
  if (before === undefined || now === undefined || Math.abs(now - before) <= CLOCK_LIMIT) return undefined;
  const wanted = Date.now() / 1000 - now + before;
  const tp = timespec.write({ tv_sec: Math.floor(wanted), tv_nsec: Math.floor((wanted % 1) * 1e9) });
  clock_settime({ clockid: CLOCK_REALTIME, tp });
  return `the clock was ${Math.abs(now - before).toFixed(0)} s ${now < before ? 'slow' : 'fast'}, and is set`;
}

function clockOffset(): number | undefined {
  try {
    return Date.now() / 1000 - Number(readProcText('/sys/class/rtc/rtc0/since_epoch'));
  } catch (error) {
    if (error instanceof SyscallError) return undefined;
    throw error;
  }
}

function tellManager(state: string): void {
  const at = process.env.NOTIFY_SOCKET;
  if (at === undefined) return;
  try {
    notifyManager(at, { STATUS: state });
  } catch (error) {
    // It has stopped listening.
    if (!(error instanceof SyscallError)) throw error;
  }
}
