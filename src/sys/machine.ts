/** What this machine is: uname(2), /proc/cpuinfo. */
import { readProcText } from './proc.ts';

export interface Machine {
  readonly kernel: { readonly release: string; readonly version: string };
  /** As uname(2) has it. */
  readonly machine: string;
  /** In bytes. */
  readonly pageSize: number;
  readonly cpu: { readonly vendor: string; readonly model: string; readonly features: readonly string[] };
}

let known: Machine | undefined;

/** Nothing of it changes while a kernel runs. */
export function readMachine(): Machine {
  known ??= read();
  return known;
}

function read(): Machine {
  const cpuinfo = readProcText('/proc/cpuinfo');
  const line = (name: string) => new RegExp(`^${name}\\s*: (.*)$`, 'm').exec(cpuinfo)?.[1] ?? '';
  const setting = (name: string) => readProcText(`/proc/sys/kernel/${name}`).trimEnd();
  return {
    kernel: { release: setting('osrelease'), version: setting('version') },
    machine: setting('arch'),
    pageSize: 4096,
    cpu: { vendor: line('vendor_id'), model: line('model name'), features: line('flags').split(' ') },
  };
}

/** Another one for each boot of a kernel: random(4). */
export function bootId(): string {
  return readProcText('/proc/sys/kernel/random/boot_id').trim();
}
