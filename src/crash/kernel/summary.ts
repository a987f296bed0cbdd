/** A kernel at a glance. What cannot be read is undefined, with the reason among the kernel's gaps. */
import { type Clock, readClock, readLoad, readTaints, readUtsname, taintText } from './identity.ts';
import type { Kernel } from './kernel.ts';
import { panicMessage } from './panic.ts';
import { readLog } from './printk.ts';

export function summarise(kernel: Kernel) {
  const { gaps, info, memory } = kernel;
  const clock: Clock | undefined = gaps.try('clock', () => readClock(kernel));
  const taints = gaps.try('taints', () => readTaints(kernel));
  const panicTask = gaps.try('the task that crashed', () => kernel.panicTask);
  return {
    utsname: gaps.try('names of the system', () => readUtsname(memory, info)) ?? { release: info.release },
    cpus: gaps.try('CPUs', () => kernel.perCpu.online.length),
    /** When it stopped. */
    time: clock?.now ?? kernel.source.header.time,
    /** Seconds. */
    uptime: clock === undefined ? undefined : clock.now - Number(clock.boot / 1_000_000_000n),
    load: gaps.try('load averages', () => readLoad(kernel)),
    tasks: gaps.try('tasks', () => kernel.tasks.length),
    modules: gaps.try('modules', () => kernel.modules.map(({ name }) => name)),
    taints: taints === undefined ? undefined : taintText(taints),
    panic: gaps.try('log', () => panicMessage(readLog(memory, info, gaps))),
    panicTask,
    /** Of physical memory that the dump describes, in bytes. */
    memory: kernel.source.ranges.reduce((sum, { start, end }) => sum + end - start, 0),
  };
}
