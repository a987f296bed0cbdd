/** Services that an update does not keep: for them the jump is a power cut with file systems that are whole, unless they are stopped first. */
import { UnsupportedError } from '../errors.ts';
import { attemptSystemctl, runningServices, runsSystemd, systemctl } from '../sys/systemd.ts';
import { findWorkload } from './workload.ts';

/** Those that run, but for what a system always has. @param kept names of workloads @param stopped units that are stopped first */
export function othersRunning(kept: readonly string[], stopped: readonly string[]): string[] {
  if (!runsSystemd()) return [];
  const ours = new Set([...stopped, ...unitsOf(kept)].map(unitName));
  return runningServices().filter((unit) => !ours.has(unit) && !ALWAYS.test(unit));
}

const ALWAYS = /^(systemd-|dbus|getty@|serial-getty@|user@|tideover-)/;

/** @throws UnsupportedError where one of them is to be kept, or there is no systemd */
export function checkStop(units: readonly string[], kept: readonly string[]): void {
  if (units.length === 0) return;
  const remedy = 'leave it out';
  if (!runsSystemd()) throw new UnsupportedError({ what: '--stop', why: 'there is no systemd', remedy });
  const ours = new Set(unitsOf(kept).map(unitName));
  const both = units.find((unit) => ours.has(unitName(unit)));
  if (both !== undefined) throw new UnsupportedError({ what: `--stop ${both}`, why: 'it is to be kept', remedy });
}

/** @throws UnsupportedError with what systemctl says */
export function stopServices(units: readonly string[]): void {
  if (units.length > 0) systemctl('stop', ...units);
}

/** After an update that was taken back. @returns what was done, for people; undefined for nothing */
export function startServices(units: readonly string[]): string | undefined {
  if (units.length === 0) return undefined;
  const why = attemptSystemctl('start', ...units);
  if (why !== undefined) throw new Error(`not all of ${units.join(', ')} started again: ${why}`);
  return `started again: ${units.join(', ')}`;
}

function unitsOf(workloads: readonly string[]): string[] {
  return workloads.flatMap((name) => findWorkload(name)?.state.unit ?? []);
}

const unitName = (unit: string) => (/\.[a-z]+$/.test(unit) ? unit : `${unit}.service`);
